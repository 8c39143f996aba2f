"""Running the server: the socket, the processes, the words at the start."""

import errno
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import uvicorn

from llmr import config as configuration
from llmr.cli.output import FAILED, fail
from llmr.config import Config
from llmr.gateway import Gateway
from llmr.ledger.book import check, place
from llmr.observe import log as request_log
from llmr.server.asgi import Application
from llmr.server.process import Server, descriptors, keep_memory
from llmr.server.protocol import Protocol
from llmr.server.reload import Reloader

KEEP_ALIVE_S = 75
FLUSH_S = 1

log = logging.getLogger("llmr.server")


def run(path: str | None, flags: Mapping[str, Any], workers: int, sandbox: bool, level: str) -> int:
    """Serve until told to stop; the exit code."""
    config = configuration.load(path, flags, serving=True)
    if not sandbox or config.state.path is not None:
        check(place(config.state.path))
    listening = listen(config.server.host, config.server.port)
    port = listening.getsockname()[1]
    simulated = None
    if sandbox:
        from llmr.sandbox.process import SandboxProcess

        simulated = SandboxProcess().start()
    url = simulated.base_url if simulated is not None else None
    load = loader(path, flags, url)
    try:
        if workers > 1:
            from llmr.cli.workers import serve_many

            return serve_many(path, flags, load(), listening, workers, url, level)
        return serve_one(load, listening, sandbox, level, lambda gateway: banner(gateway, port))
    finally:
        listening.close()
        if simulated is not None:
            simulated.stop()


def loader(path: str | None, flags: Mapping[str, Any], sandbox: str | None) -> Callable[[], Config]:
    """Reads the configuration, now and whenever it is to be read again."""

    def load() -> Config:
        config = configuration.load(path, flags, serving=True)
        return config if sandbox is None else with_sandbox(config, sandbox)

    return load


def serve_one(
    load: Callable[[], Config],
    listening: socket.socket,
    sandbox: bool,
    level: str,
    ready: Any,
    figures: str | None = None,
) -> int:
    """One server in this process. `figures` is a folder in which workers add up their counts."""
    keep_memory()
    config = load()
    writer = request_log.start(level, secrets(config))

    def load_again() -> Config:
        fresh = load()
        writer.hide(secrets(fresh))
        return fresh

    gateway = Gateway(config, sandbox=sandbox)
    gateway.recorder.observers.append(writer.request)
    application = Application(gateway, figures=figures)
    application.wire.descriptors = descriptors()
    reloader = Reloader(application, load_again)
    server = Server(uvicorn_config(application), application, reloader, ready)
    try:
        server.run(sockets=[listening])
    finally:
        gateway.recorder.flush()
        writer.stop()
    return server.exit_code if server.started else FAILED


def secrets(config: Config) -> Iterator[str]:
    """What must never be written down."""
    yield from config.server.api_keys
    yield config.redis.password or ""
    for upstream in config.upstreams.values():
        if upstream is not None and isinstance(upstream.api_key, str):
            yield upstream.api_key


def uvicorn_config(application: Application) -> uvicorn.Config:
    """uvicorn as a carrier of bytes: no log lines, no headers of its own but the date."""
    protocol: Any = partial(Protocol, application)
    return uvicorn.Config(
        application,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=FLUSH_S,
        backlog=2048,
    )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, or one clear line why there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            fail(
                f"port {port} on {host} is taken",
                FAILED,
                f"stop the program that has it, or choose another: llmr serve --port {port + 1}",
            )
        fail(f"cannot listen on {host}:{port}: {error}", FAILED)
    return listening


def with_sandbox(config: Config, base_url: str) -> Config:
    """The configuration with the simulated provider in the place of `openrouter`."""
    from msgspec.structs import replace

    simulated = configuration.UpstreamConfig(base_url, "sandbox")
    return replace(config, upstreams={**config.upstreams, "openrouter": simulated})


def banner(gateway: Gateway, port: int) -> None:
    """What a person needs to begin: where it is, a call to copy, what it found."""
    host = gateway.config.server.host
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    routable = gateway.snapshot.routable
    auth = " -H 'Authorization: Bearer YOUR_KEY'" if gateway.config.server.api_keys else ""
    lines = [f"llmr is ready on {url}   (docs: {url}/docs, OpenAI base_url: {url}/v1)", ""]
    if gateway.sandbox:
        lines += [
            "  SANDBOX: answers are simulated, nothing leaves this machine.",
            "  Set OPENROUTER_API_KEY and start again for real models.",
            "",
        ]
    for name, source in gateway.sources.items():
        key = "no key" if source.missing_key else "ready"
        key = "simulated" if gateway.sandbox and name == "openrouter" else key
        when = source.snapshot.captured.get(name, "never")
        origin = f"{source.origin}, of {when}" if source.origin == "bundled" else source.origin
        lines.append(f"  upstream {name}: {key}, {len(source.snapshot.routable)} models ({origin})")
    if all(source.missing_key for source in gateway.sources.values()):
        lines.append("  no upstream has a key: set OPENROUTER_API_KEY, or try llmr serve --sandbox")
    lines += [
        f"  routable models: {len(routable)}",
        "",
        "  Try it:",
        f"  curl {url}/v1/chat/completions{auth} -H 'Content-Type: application/json' \\",
        """    -d '{"model": "auto", "messages": [{"role": "user", "content": "Hello!"}]}'""",
        "",
    ]
    print("\n".join(lines), flush=True)
