"""What is compared: the upstream itself, the router, and nginx where it is installed."""

import os
import re
import shutil
import socket
import time
from pathlib import Path

import msgspec

from bench.children import PATIENCE_S, BenchError, Child, cores, module

_READY = re.compile(r"http://127\.0\.0\.1:(\d+)")

ROUTER_CONFIG = """\
server: {{host: 127.0.0.1, port: 0}}
upstreams:
  openrouter: {{base_url: "http://127.0.0.1:{port}/v1", api_key: bench-dummy-key}}
state: {{path: "{folder}/state.db"}}
"""

NGINX_CONFIG = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
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
    keepalive 512;
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


def start_upstream(events: int, interval_ms: float) -> tuple[Child, int]:
    """(process, port) of the upstream. It hides its catalogue, so that the bundled one stays."""
    flags = ("--no-models", "--events", str(events), "--interval-ms", str(interval_ms))
    child = Child(module("bench.upstream", *flags), cores()[1])
    try:
        port: int = msgspec.json.decode(child.line())["port"]
    except BaseException:
        child.stop()
        raise
    return child, port


def start_router(upstream: int, folder: Path) -> tuple[Child, int]:
    """(process, port) of `llmr serve` with its defaults, over the whole bundled catalogue."""
    config = folder / "config.yaml"
    config.write_text(ROUTER_CONFIG.format(port=upstream, folder=folder))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMR_", "OPENROUTER_"))}
    command = module("llmr", "serve", "--config", str(config))
    child = Child(command, cores()[0], cwd=folder, env=kept, log=folder / "router.log")
    try:
        ready = _READY.search(child.line())
        if ready is None:
            raise BenchError("llmr serve did not say where it listens.")
    except BaseException:
        child.stop()
        raise
    return child, int(ready[1])


def start_nginx(upstream: int, folder: Path) -> tuple[Child, int] | None:
    """(process, port) of nginx as a plain reverse proxy; None where it is not installed."""
    program = shutil.which("nginx")
    if program is None:
        return None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(folder=folder, upstream=upstream, port=port))
    errors = folder / "nginx-start.log"
    command = [program, "-p", str(folder), "-e", str(errors), "-c", str(config)]
    child = Child(command, cores()[0], cwd=folder, log=folder / "nginx.log")
    try:
        _wait_for(port, "nginx")
    except BaseException:
        child.stop()
        raise
    return child, port


def connect(port: int) -> socket.socket:
    """A connection to a port of the loopback."""
    return socket.create_connection(("127.0.0.1", port), 10.0)


def _wait_for(port: int, name: str) -> None:
    """Return once something listens on the port."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            connect(port).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise BenchError(f"{name} does not listen.")
