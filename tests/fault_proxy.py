"""A small TCP proxy that can refuse, swallow, slow down and cut, switchable while it runs."""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Literal

Mode = Literal["pass", "refuse", "black_hole", "delay", "throttle", "reset", "cut"]

PIECE = 64 * 1024


def reset(transport: asyncio.BaseTransport) -> None:
    """Close a connection with a reset instead of an orderly end."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):  # it may be gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    getattr(transport, "abort", transport.close)()


class FullQueue:
    """A port whose accept queue is full: connecting to it neither succeeds nor fails."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._fill: list[socket.socket] = []
        for _ in range(16):
            filler = socket.socket()
            self._fill.append(filler)
            filler.settimeout(0.05)
            try:
                filler.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return
        raise RuntimeError("the accept queue never filled up")

    def close(self) -> None:
        for one in (*self._fill, self._listener):
            one.close()


class FaultProxy:
    """Listens on a free port of the loopback and passes to `target`. Use as a context manager.

    Modes: `pass`; `refuse` (closed port); `black_hole` (connecting hangs, open connections are
    silent); `delay` (answers later by `seconds`); `throttle` (answers at `bytes_per_s`); `reset`
    (open and new connections are reset); `cut` (closed after `after` bytes of the next answer).
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._mode: Mode = "pass"
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._options: dict[str, float] = {}
        self._server: asyncio.Server | None = None
        self._hole: FullQueue | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.port = 0

    @property
    def open_connections(self) -> int:
        """Those of callers; each has one to the target beside it."""
        return len(self._open)

    def set(self, mode: Mode, **options: float) -> None:
        """Change the mode at once, for open connections too."""
        self._do(self._set(mode, options))

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, wish: Awaitable[None]) -> None:
        async def main() -> None:
            await wish

        asyncio.run_coroutine_threadsafe(main(), self._loop).result(5)

    # --- in the loop ---

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, mode: Mode, options: dict[str, float]) -> None:
        self._mode, self._options = mode, options
        if mode == "black_hole":
            self._flowing.clear()
        else:
            self._flowing.set()
        if self._hole is not None:
            self._hole.close()
            self._hole = None
        if mode in ("refuse", "black_hole") and self._server is not None:
            self._server.close()
            self._server = None
        if mode == "reset":
            for writer in list(self._open):
                reset(writer.transport)
        if mode == "black_hole":
            self._hole = FullQueue(self.port)
        elif mode != "refuse" and self._server is None:
            await self._listen()

    async def _end(self) -> None:
        await self._set("refuse", {})
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        self.accepted += 1
        with suppress(OSError, asyncio.CancelledError):
            await self._serve(reader, writer)
        self._open.discard(writer)
        writer.transport.abort()
        self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "reset":
            reset(writer.transport)
            return
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        try:
            there = asyncio.ensure_future(self._pass(reader, back_writer, answers=False))
            back = asyncio.ensure_future(self._pass(back_reader, writer, answers=True))
            try:
                await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (there, back):
                    task.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        finally:
            back_writer.transport.abort()

    async def _pass(self, source: Any, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await source.read(PIECE):
            await self._flowing.wait()
            if not answers or self._mode in ("pass", "refuse"):
                sink.write(data)
            elif not await self._spoil(data, sink):
                return
            await sink.drain()

    async def _spoil(self, data: bytes, sink: asyncio.StreamWriter) -> bool:
        """Pass an answer on as the mode wants it; False where the connection is to end."""
        if self._mode == "delay":
            await asyncio.sleep(self._options["seconds"])
        elif self._mode == "throttle":
            rate = self._options["bytes_per_s"]
            for byte in data:
                sink.write(bytes((byte,)))
                await sink.drain()
                await asyncio.sleep(1 / rate)
            return True
        elif self._mode == "cut":
            sink.write(data[: int(self._options["after"])])
            await sink.drain()
            self._options["after"] -= len(data)
            if self._options["after"] <= 0:
                sink.close()
                return False
            return True
        sink.write(data)
        return True
