"""One answer as it arrives: filled by its connection, read by the executor."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from llmr.upstreams.base import ReadTimeout, TransportError
from llmr.upstreams.decode import Decoder

HIGH_WATER = 256 * 1024  # bytes read ahead of a slow reader; reading goes on once all are taken


class Line(Protocol):
    """What an exchange wants of the connection it is on."""

    def resume(self) -> None:
        """The reader has caught up."""

    def give_up(self, exchange: "Exchange") -> None:
        """Nobody wants the rest of the answer."""


class Exchange:
    """Implements `Response`."""

    __slots__ = (
        "_buffer",
        "_error",
        "_line",
        "_size",
        "_waiter",
        "complete",
        "decoder",
        "head_ready",
        "headers",
        "status",
    )

    def __init__(self, line: Line) -> None:
        self._line: Line | None = line
        self._buffer: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: TransportError | None = None
        self.complete = False
        self.head_ready = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.decoder: Decoder | None = None

    # --- for the reader ---

    async def wait_head(self, until: float) -> None:
        while not self.head_ready:
            if self._error is not None:
                raise self._error
            await self._wait(until)

    async def read(self, until: float) -> bytes:
        while not self._buffer:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait(until)
        buffer = self._buffer
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        self._buffer = []
        if self._size > HIGH_WATER and self._line is not None:
            self._line.resume()
        self._size = 0
        return data

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.give_up(self)

    async def _wait(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_at(until, expire, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    # --- for the connection ---

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.complete or self._error is not None

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.head_ready = True
        self._wake()

    def feed(self, data: bytes) -> bool:
        """Take body bytes; True where the reader has fallen behind."""
        self._buffer.append(data)
        self._size += len(data)
        self._wake()
        return self._size > HIGH_WATER

    def finish(self) -> None:
        self.complete = True
        self._line = None
        self._wake()

    def fail(self, error: TransportError) -> None:
        """What came before the fault can still be read."""
        if not self.over:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def expire(waiter: "asyncio.Future[None]") -> None:
    """For timers: the instant has come."""
    if not waiter.done():
        waiter.set_exception(ReadTimeout())
