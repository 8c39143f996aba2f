"""One upstream call for identical requests in flight, read by everyone who waits for it."""

import asyncio
from collections.abc import AsyncIterator, Callable

from llmr.execution.types import Outcome

AHEAD_BYTES = 1024 * 1024  # an answer runs this far ahead of the quickest reader, no further


class Flight:
    """A call under way. It is the sink of the call; each waiting caller reads it from the start.

    The call belongs to those who wait (`with flight:`): it goes on while one is left, and is
    cancelled with the last, after which nobody can join it any more.
    """

    def __init__(self, stream: bool, include_usage: bool, abandoned: Callable[[], None]) -> None:
        """`abandoned` is called when the last reader leaves before the end."""
        self.stream = stream
        self.include_usage = include_usage
        self.accounted = False
        self.outcome: Outcome | None = None
        self.task: asyncio.Task[Outcome] | None = None
        self._abandoned = abandoned
        self._pieces: list[bytes] = []
        self._written = 0
        self._read = 0
        self._readers = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._writer: asyncio.Future[None] | None = None

    def start(self, task: "asyncio.Task[Outcome]") -> None:
        self.task = task
        task.add_done_callback(lambda _: self._wake())

    # --- Sink ---

    async def begin(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._wake()

    async def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._written += len(data)
        self._wake()
        while self._written - self._read > AHEAD_BYTES and self.stream:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    # --- readers ---

    def __enter__(self) -> "Flight":
        self._readers += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._readers -= 1
        if not self._readers and self.task is not None and not self.task.done():
            self._abandoned()
            self.task.cancel()

    async def begun(self) -> Outcome | None:
        """Wait for the commit point: the outcome, or None where the call ended without one."""
        while self.outcome is None and not self._done:
            await self._wait()
        return self.outcome

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the streamed answer from its start, as they come."""
        position = size = 0
        while True:
            while position < len(self._pieces):
                piece = self._pieces[position]
                position += 1
                size += len(piece)
                yield piece
                self._consumed(size)
            if self._done:
                return
            await self._wait()

    async def result(self) -> Outcome:
        """Wait for the end. Raises what the call raised."""
        while self.task is None or not self.task.done():
            self._consumed(self._written)
            await self._wait()
        return self.task.result()

    def _consumed(self, size: int) -> None:
        """One reader has so many bytes: the call may go on where the quickest is near."""
        self._read = max(self._read, size)
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    @property
    def _done(self) -> bool:
        return self.task is not None and self.task.done()

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
