"""What is compared: the upstream itself, the router, and nginx where it is installed."""

import http.client
import os
import re
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from bench import payload
from bench.children import PATIENCE_S, BenchError, Child, cores, module
from bench.compiler import Programs
from bench.payload import Target
from bench.settings import SMALL

NGINX_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
NO_NGINX = "nginx is not installed, and the ratios to it are left out: apt-get install nginx-light"
NO_MORE: Mapping[str, str] = MappingProxyType({})
_READY = re.compile(r"http://127\.0\.0\.1:(\d+)")
_DECISION = "x-llmr-decision-id"

ROUTER_CONFIG = """\
server: {{host: 127.0.0.1, port: 0}}
upstreams:
  openrouter: {{base_url: "http://127.0.0.1:{port}/v1", api_key: bench-dummy-key}}
{more}state: {{path: "{folder}/state.db"}}
routing: {{quality: static}}
"""
READING_CONFIG = ROUTER_CONFIG.replace("static", "prompt")

OWN_UPSTREAM = """\
  {name}: {{base_url: "http://127.0.0.1:{port}/v1", models: [{{id: {name}}}]}}
"""

NGINX_CONFIG = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/client;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream bench {{
    server 127.0.0.1:{upstream};
    keepalive 2048;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def start_upstream(
    programs: Programs,
    folder: Path,
    *flags: str,
    events: int,
    interval_ms: float,
    on: Sequence[int],
) -> tuple[Child, int]:
    """(process, port) of the upstream. It has no catalogue, so that the bundled one stays."""
    replies = folder / "replies"
    if not replies.exists():
        payload.write_replies(replies)
    command = [str(programs.upstream), "--replies", str(replies), "--events", str(events)]
    command += ["--interval-us", str(round(interval_ms * 1000)), *flags]
    child = Child(command, on, log=folder / "upstream.log")
    try:
        port: int = msgspec.json.decode(child.line())["port"]
    except BaseException:
        child.stop()
        raise
    return child, port


def start_router(
    upstream: int,
    folder: Path,
    name: str = "router",
    *,
    workers: int = 1,
    on: Sequence[int] = (),
    own: Sequence[str] = (),
) -> tuple[Child, Target]:
    """`llmr serve` with its defaults, over the whole bundled catalogue.

    `own`: more upstreams, each with one model of its own name.
    """
    more = "".join(OWN_UPSTREAM.format(name=one, port=upstream) for one in own)
    home = folder / name
    return router(ROUTER_CONFIG, port=upstream, folder=home, more=more, workers=workers, on=on)


def router(
    config: str,
    *,
    port: int,
    folder: Path,
    more: str,
    workers: int = 1,
    on: Sequence[int] = (),
    env: Mapping[str, str] = NO_MORE,
) -> tuple[Child, Target]:
    """`llmr serve` with such a configuration, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    file = folder / "config.yaml"
    file.write_text(config.format(port=port, folder=folder, more=more))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMR_", "OPENROUTER_"))}
    command = module("llmr", "serve", "--config", str(file), "--workers", str(workers))
    child = Child(command, on or cores()[0], cwd=folder, env={**kept, **env}, log=folder / "log")
    try:
        ready = _READY.search(child.line())
        if ready is None:
            raise BenchError("llmr serve did not say where it listens.")
        return child, Target(int(ready[1]))
    except BaseException:
        child.stop()
        raise


def start_nginx(upstream: int, folder: Path) -> tuple[Child, Target] | None:
    """nginx as a plain reverse proxy; None where it is not installed."""
    if shutil.which("nginx", path=NGINX_PLACES) is None:
        return None
    port = free_port()
    config = NGINX_CONFIG.format(folder=folder, upstream=upstream, port=port)
    child = nginx(config, folder, cores()[0])
    wait_for(child, port, "nginx")
    return child, Target(port)


def nginx(config: str, folder: Path, on: Sequence[int]) -> Child:
    """nginx with this configuration."""
    program = shutil.which("nginx", path=NGINX_PLACES) or "nginx"
    file = folder / "nginx.conf"
    file.write_text(config)
    errors = folder / "nginx-start.log"
    command = [program, "-p", str(folder), "-e", str(errors), "-c", str(file)]
    return Child(command, on, cwd=folder, log=folder / "nginx.log")


def free_port() -> int:
    """A port of the loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(child: Child, port: int, name: str, limit_s: float = PATIENCE_S) -> None:
    """Return once it listens on the port; where it never does, it is ended."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until and not child.ended(0.01):
        try:
            socket.create_connection(("127.0.0.1", port), 10.0).close()
        except OSError:
            continue
        return
    child.stop()
    raise BenchError(f"{name} does not listen.{child.last_words()}")


def ask(
    target: Target, method: str, path: str, body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request on a connection of its own: status, header, body."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=PATIENCE_S)
    try:
        headers = {"content-type": "application/json", **target.headers}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"{method} {path} was not answered: {error}") from None
    finally:
        connection.close()


def first_answer(target: Target, name: str = "the router") -> str | None:
    """One request, whose answer must be right; the id of its decision where it has one."""
    data = payload.request(SMALL, model=target.model)
    status, headers, answer = ask(target, "POST", target.path, data)
    if status != 200 or payload.TEXT.encode() not in answer:
        raise BenchError(f"the first answer of {name} is not right: {status} {answer[-500:]!r}")
    return headers[_DECISION]
