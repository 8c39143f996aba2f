"""`llmr doctor`: what works here, what does not, and what to do about it."""

import asyncio
import platform
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from llmr import __version__
from llmr import config as configuration
from llmr.cli.output import FAILED, print_json, table
from llmr.config import Config
from llmr.errors import ConfigError
from llmr.gateway import Gateway

PROBE_S = 8.0
Check = dict[str, Any]


def run(config: str | None, as_json: bool) -> None:
    """Check everything; exit 1 where something needs mending."""
    checks = [_python()]
    try:
        loaded = configuration.load(config, serving=True)
    except ConfigError as error:
        checks.append(_check("configuration", False, str(error), "mend the file or the variable"))
    else:
        checks.append(_check("configuration", True, "good"))
        checks += asyncio.run(_probe(loaded))
        checks.append(_port(loaded))
    well = all(check["ok"] for check in checks)
    if as_json:
        print_json({"ok": well, "checks": checks})
    else:
        rows = [
            ["ok" if c["ok"] else "!!", c["check"], c["found"], c["hint"] or ""] for c in checks
        ]
        table([("", "left"), ("check", "left"), ("found", "left"), ("do", "left")], rows)
    if not well:
        import typer

        raise typer.Exit(FAILED)


def _check(name: str, ok: bool, found: str, hint: str | None = None) -> Check:
    return {"check": name, "ok": ok, "found": found, "hint": None if ok else hint}


def _python() -> Check:
    try:
        loop = f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        loop = "asyncio"
    found = f"llmr {__version__}, Python {platform.python_version()}, {loop}, {sys.platform}"
    return _check("installation", sys.version_info >= (3, 11), found, "use Python 3.11 or newer")


async def _probe(config: Config) -> list[Check]:
    gateway = Gateway(config)
    checks = []
    try:
        async with asyncio.timeout(PROBE_S):
            await gateway.start(PROBE_S)
    except TimeoutError:
        pass
    for name, source in gateway.sources.items():
        if source.missing_key:
            variable = "OPENROUTER_API_KEY" if name == "openrouter" else f"upstreams.{name}.api_key"
            checks.append(_check(f"upstream {name}", False, "no key", f"set {variable}"))
            continue
        models = f"{len(source.snapshot.routable)} routable models ({source.origin})"
        found = f"answers, {models}" if source.accessible and not source.error else source.error
        checks.append(
            _check(
                f"upstream {name}",
                source.accessible and source.error is None,
                found or "no answer yet",
                "check base_url, key and network",
            )
        )
    if gateway.shared is not None:
        await asyncio.sleep(0.5)
        place = gateway.shared.place
        found = f"{place} answers" if gateway.redis_connected else f"{place} does not answer"
        checks.append(
            _check("redis", gateway.redis_connected, found, "start it, or unset redis.url")
        )
    await gateway.close()
    return checks


def _port(config: Config) -> Check:
    host, port = config.server.host, config.server.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            found = f"{host}:{port} is in use, perhaps by a running llmr"
            return _check("port", True, found)
    return _check("port", True, f"{host}:{port} is free")
