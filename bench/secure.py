"""The same work with an upstream that speaks TLS, as real ones do: router beside nginx."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from bench import load
from bench.children import BenchError, Child, cores
from bench.compiler import Programs
from bench.load import Compared, Job
from bench.payload import Target
from bench.servers import (
    NGINX_CONFIG,
    NGINX_PLACES,
    ROUTER_CONFIG,
    free_port,
    nginx,
    router,
    start_upstream,
    wait_for,
)
from bench.settings import SMALL, Settings
from bench.stand import DIRECT, NGINX, ROUTER, same

TLS_SERVER = "listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};"
TLS_PROXY = "proxy_ssl_session_reuse on; proxy_ssl_name localhost; proxy_pass https://bench;"


class Secure(Struct, frozen=True):
    """One caller, and many, through each server to an upstream behind TLS.

    `direct` is the upstream without TLS: what is added has the cost of TLS in it, for both alike.
    """

    one: Compared
    busy: Compared


def secure(settings: Settings, programs: Programs, folder: Path) -> Secure | None:
    """None where nginx or openssl, which make the TLS upstream, are missing."""
    if shutil.which("nginx", path=NGINX_PLACES) is None or shutil.which("openssl") is None:
        return None
    folder = folder / "secure"
    folder.mkdir()
    with _standing(settings, programs, folder) as targets:

        def run(connections: int, requests: int) -> Compared:
            job = Job(
                connections=connections,
                requests=requests,
                rounds=settings.rounds,
                warm_up=settings.warm_up,
                round_s=settings.round_s,
            )
            return load.run(programs.load, job, same(SMALL), targets, folder, cores()[1])

        return Secure(run(1, settings.single), run(settings.connections, settings.busy))


@contextmanager
def _standing(settings: Settings, programs: Programs, folder: Path) -> Iterator[dict[str, Target]]:
    cert, key = _certificate(folder)
    with ExitStack() as stack:
        plain, port = start_upstream(
            programs, folder, events=settings.events, interval_ms=1.0, on=cores()[1]
        )
        stack.enter_context(plain)
        behind = free_port()
        listen = TLS_SERVER.format(port=behind, cert=cert, key=key)
        stack.enter_context(_nginx(folder / "tls", port, behind, listen=listen, on=1))
        proxy = free_port()
        stack.enter_context(_nginx(folder / "proxy", behind, proxy, pass_on=TLS_PROXY, on=0))
        config = ROUTER_CONFIG.replace("http://127.0.0.1", "https://localhost", 1)
        trusting = {"SSL_CERT_FILE": str(cert)}
        child, target = router(config, port=behind, folder=folder, more="", env=trusting)
        stack.enter_context(child)
        yield {DIRECT: Target(port), ROUTER: target, NGINX: Target(proxy)}


def _nginx(
    folder: Path, upstream: int, port: int, *, listen: str = "", pass_on: str = "", on: int
) -> Child:
    folder.mkdir()
    config = NGINX_CONFIG.format(folder=folder, upstream=upstream, port=port)
    if listen:
        config = config.replace(f"listen 127.0.0.1:{port} backlog=2048;", listen)
    if pass_on:
        config = config.replace("proxy_pass http://bench;", pass_on)
    child = nginx(config, folder, cores()[on])
    wait_for(child, port, "nginx")
    return child


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of `localhost` that signs itself, for this run."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(cert)]
    made = subprocess.run(command, capture_output=True, check=False, env=dict(os.environ))
    if made.returncode:
        raise BenchError(f"openssl made no certificate: {made.stderr.decode()[-300:]}")
    return cert, key
