"""An answer for those who wait for it: what a receiver is told, to be read at one's own pace."""

import asyncio
from collections.abc import Mapping

from llmr.upstreams.base import Line, Send, TransportError, Upstream

HIGH_WATER = 256 * 1024  # bytes read ahead of a slow reader; reading goes on once all are taken


class ReadTimeout(Exception):  # noqa: N818 - says what happened, and is never shown
    """Nothing came until the instant given to `read`."""


class Reading:
    """An answer whose head has arrived. Whoever holds it must read it to its end or close it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._line: Line | None = None
        self._begun = False
        self._complete = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: TransportError | None = None

    async def read(self, until: float) -> bytes:
        """The next bytes of the body, b"" at its end.

        Raises `ReadTimeout` at the loop time `until`, `TransportError` where the body breaks off.
        """
        while not self._pieces:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait(until)
        data, self._pieces = b"".join(self._pieces), []
        if self._size > HIGH_WATER and self._line is not None:
            self._line.resume()
        self._size = 0
        return data

    def close(self) -> None:
        """Give the answer up. Closes the connection unless the body came whole. Idempotent."""
        if self._line is not None:
            self._line.close()

    async def begin(self, line: Line, until: float) -> None:
        """Wait for the head."""
        self._line = line
        while not self._begun:
            if self._error is not None:
                raise self._error
            await self._wait(until)

    async def _wait(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_at(until, _expire, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- Receiver ---

    def whole(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> None:
        self.head(status, headers)
        if body:
            self.data(body)
        self.ended()

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self.status = status
        self.headers = text(headers)
        self._begun = True
        self._wake()

    def data(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and self._line is not None:
            self._line.pause()
        self._wake()

    def ended(self) -> None:
        self._complete = True
        self._wake()

    def failed(self, error: TransportError) -> None:
        self._error = error
        self._wake()


async def send(upstream: Upstream, request: Send, *, connect_until: float, until: float) -> Reading:
    """Send, and wait for the head of the answer.

    Raises `TransportError`, or `ReadTimeout` where the head has not come at loop time `until`.
    """
    reading = Reading()
    connect_s = connect_until - asyncio.get_running_loop().time()
    line = upstream.start(request, reading, connect_s)
    try:
        await reading.begin(line, until)
    except BaseException:
        line.close()
        raise
    return reading


def text(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """Header fields as words."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(ReadTimeout())
