"""Several processes on one socket: a supervisor that starts them, restarts them and ends them.

Each worker keeps its own caches, window and health; what they count for Prometheus adds up. The
supervisor holds the listening socket, so the port stays open while a worker is replaced.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from llmr.cli.serve import banner, loader, log, serve_one
from llmr.config import Config
from llmr.gateway import Gateway
from llmr.observe import log as request_log

LEAST_LIFE_S = 1.0  # a worker that lived shorter died young
PATIENCE = 5  # as often in a row workers may die young before the supervisor gives up


class Orders(msgspec.Struct):
    """What a worker needs to know. It reads the configuration itself, so no secret is passed on."""

    path: str | None
    flags: dict[str, Any]
    descriptor: int
    sandbox_url: str | None
    level: str
    figures: str


class Supervisor:
    """Keeps `count` workers alive until it is told to stop."""

    def __init__(self, orders: Orders, count: int) -> None:
        self._orders = orders
        self._count = count
        self._workers: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._stopping = 0
        self._ended_by = 0
        self._young = 0

    def run(self) -> int:
        """The exit code, once every worker has ended."""
        waiting, waking = socket.socketpair()
        waking.setblocking(False)
        # Every signal leaves a byte, so none is missed between looking at the workers and waiting.
        signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)
        with waiting, waking:
            for slot in range(self._count):
                self._start(slot)
            while self._workers:
                waiting.recv(256)
                for slot, (child, born) in list(self._workers.items()):
                    if child.poll() is not None:
                        self._ended(slot, child, born)
            signal.set_wakeup_fd(-1)
        if self._young > PATIENCE:
            return 1
        return 128 + self._ended_by if self._ended_by else 0

    def _start(self, slot: int) -> None:
        command = [
            sys.executable,
            "-m",
            "llmr.cli.workers",
            msgspec.json.encode(self._orders).decode(),
        ]
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, pass_fds=(self._orders.descriptor,), start_new_session=True
        )
        self._workers[slot] = (child, time.monotonic())
        if self._stopping:  # the signal came while the child was made, and could not reach it
            child.terminate()

    def _ended(self, slot: int, child: subprocess.Popen[bytes], born: float) -> None:
        del self._workers[slot]
        if self._stopping:
            return
        log.warning("worker %d ended with %s: starting another", child.pid, child.returncode)
        if time.monotonic() - born >= LEAST_LIFE_S:
            self._young = 0
        else:
            self._young += 1
            if self._young > PATIENCE:
                log.error("workers keep dying as they start: giving up")
                self._stop(signal.SIGTERM, None)
                return
        self._start(slot)

    def _stop(self, number: int, frame: Any) -> None:
        """Workers finish their streams on the first signal, and end on the second."""
        if self._stopping:
            self._ended_by = number
        self._stopping += 1
        self._tell(signal.SIGTERM)

    def _reload(self, number: int, frame: Any) -> None:
        """Every worker reads the configuration again, and says in its health what came of it."""
        self._tell(number)

    def _tell(self, number: int) -> None:
        for child, _ in self._workers.values():
            child.send_signal(number)


def serve_many(
    path: str | None,
    flags: Mapping[str, Any],
    config: Config,
    listening: socket.socket,
    workers: int,
    sandbox_url: str | None,
    level: str,
) -> int:
    """Serve with several workers; the exit code."""
    listening.listen(2048)
    gateway = Gateway(config, sandbox=sandbox_url is not None)
    banner(gateway, listening.getsockname()[1])
    given = {key: value for key, value in flags.items() if value is not None}
    writer = request_log.start(level)
    with tempfile.TemporaryDirectory(prefix="llmr-workers-") as figures:
        orders = Orders(path, given, listening.fileno(), sandbox_url, level, figures)
        try:
            return Supervisor(orders, workers).run()
        finally:
            writer.stop()


def main() -> int:
    """One worker."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    load = loader(orders.path, orders.flags, orders.sandbox_url)
    listening = socket.socket(fileno=orders.descriptor)
    sandbox = orders.sandbox_url is not None
    return serve_one(load, listening, sandbox, orders.level, lambda _: None, orders.figures)


if __name__ == "__main__":
    sys.exit(main())
