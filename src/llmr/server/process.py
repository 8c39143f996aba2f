"""The life of a serving process: its signals, its drain, and its limit of descriptors.

The first SIGTERM or SIGINT turns `/readyz` to 503 and new work away, while the listener still
accepts and streams go on; the second ends them. SIGHUP reads the configuration again.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from llmr.server.asgi import Application
from llmr.server.reload import Reloader

log = logging.getLogger("llmr.server")

DRAIN_S = 30.0  # streams in flight may go on so long
GRACE_S = 0.2  # for so long at least the listener shows that the process ends
LOOK_S = 0.02
STDIN = 0
MIB = 1024 * 1024
# From malloc.h: trim above, pad the top by, map what is larger than.
MALLOC = ((-1, 32 * MIB), (-2, MIB), (-3, 8 * MIB))
COLLECTED = (20_000, 20, 50)  # objects more than freed, and collections of the younger, before one
MOST_DESCRIPTORS = 65_536


class Server(uvicorn.Server):
    """uvicorn with an end of our own."""

    def __init__(
        self, config: uvicorn.Config, application: Application, reloader: Reloader, ready: Any
    ) -> None:
        super().__init__(config)
        self.exit_code = 0
        self._application = application
        self._reloader = reloader
        self._ready = ready
        self._terminal = _on_terminal()
        self._reloads: set[asyncio.Task[bool]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            at_ease()
            self._ready(self._application.gateway)

    async def main_loop(self) -> None:
        await super().main_loop()
        await self._drain()

    async def _drain(self) -> None:
        """Let the streams end while the listener still answers, then end those that are left."""
        calls, begun = self._application.calls, time.monotonic()
        while not self.exit_code:
            passed = time.monotonic() - begun
            if passed >= DRAIN_S or (passed >= GRACE_S and not calls):
                break
            await asyncio.sleep(LOOK_S)
        if ended := calls.end():
            log.warning("the drain is over: %d requests are ended", ended)
            await asyncio.sleep(LOOK_S)  # for what they were told to be sent

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.should_exit:
            self.exit_code = 128 + sig
        self.should_exit = True
        self._application.drain()

    def handle_hangup(self, sig: int, frame: Any) -> None:
        if self._terminal and not _on_terminal():
            self.handle_exit(sig, frame)  # the terminal is gone, and its user with it
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._reload)

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reloader.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again once it has finished, which turns a clean end into a kill.
        handlers: dict[int, Any] = {
            signal.SIGINT: self.handle_exit,
            signal.SIGTERM: self.handle_exit,
        }
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self.handle_hangup
        before = {number: signal.signal(number, handlers[number]) for number in handlers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def keep_memory() -> None:
    """Have glibc keep what it freed for what comes next.

    Else it gives large bodies back to the system one by one, and faults them in again.
    """
    with suppress(OSError, AttributeError):  # other libraries do not have it, and not the trouble
        import ctypes

        for option, value in MALLOC:
            ctypes.CDLL(None).mallopt(option, value)


def at_ease() -> None:
    """Tell the collector what stays, and that the rest is mostly freed without it.

    A request leaves no cycles behind; looking through the catalogue for some cost a fifth of it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED)


def _on_terminal() -> bool:
    try:
        return os.isatty(STDIN)
    except OSError:
        return False


def descriptors() -> int:
    """How many descriptors this process may have, once that is as many as it is allowed."""
    try:
        import resource
    except ImportError:
        return MOST_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if 0 <= soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):
            return soft
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
