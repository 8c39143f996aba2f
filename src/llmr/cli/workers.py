"""Several processes on one socket: a supervisor that starts them, restarts them and ends them.

Each worker keeps its own caches, figures and health. The supervisor holds the listening socket, so
the port stays open while a worker is replaced.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from llmr.cli.serve import banner, log, serve_one, with_sandbox
from llmr.config import Config, load
from llmr.gateway import Gateway

LEAST_LIFE_S = 1.0  # a worker that lived shorter is not restarted at once
PATIENCE = 5  # as often may workers die young before the supervisor gives up
LOOK_S = 0.1


class Orders(msgspec.Struct):
    """What a worker needs to know. It reads the configuration itself, so no secret is passed on."""

    path: str | None
    flags: dict[str, Any]
    descriptor: int
    sandbox_url: str | None
    level: str


class Supervisor:
    """Keeps `count` workers alive until it is told to stop."""

    def __init__(self, orders: Orders, count: int) -> None:
        self._orders = orders
        self._count = count
        self._workers: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._stopping = 0
        self._young = 0

    def run(self) -> int:
        """The exit code, once every worker has ended."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        for slot in range(self._count):
            self._start(slot)
        while self._workers:
            time.sleep(LOOK_S)
            for slot, (child, born) in list(self._workers.items()):
                if child.poll() is not None:
                    self._ended(slot, child, born)
        return 0 if self._young <= PATIENCE else 1

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

    def _ended(self, slot: int, child: subprocess.Popen[bytes], born: float) -> None:
        del self._workers[slot]
        if self._stopping:
            return
        log.warning("worker %d ended with %s: starting another", child.pid, child.returncode)
        if time.monotonic() - born < LEAST_LIFE_S:
            self._young += 1
            if self._young > PATIENCE:
                log.error("workers keep dying as they start: giving up")
                self._stop(signal.SIGTERM, None)
                return
        self._start(slot)

    def _stop(self, number: int, frame: Any) -> None:
        """Workers finish their streams on the first signal, and end on the second."""
        self._stopping += 1
        for child, _ in self._workers.values():
            child.send_signal(signal.SIGTERM)


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
    orders = Orders(path, given, listening.fileno(), sandbox_url, level)
    return Supervisor(orders, workers).run()


def main() -> int:
    """One worker."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    config = load(orders.path, orders.flags)
    if orders.sandbox_url is not None:
        config = with_sandbox(config, orders.sandbox_url)
    listening = socket.socket(fileno=orders.descriptor)
    return serve_one(
        config, listening, orders.sandbox_url is not None, orders.level, lambda _: None
    )


if __name__ == "__main__":
    sys.exit(main())
