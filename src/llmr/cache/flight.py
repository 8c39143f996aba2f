"""One upstream call for identical requests in flight, read by everyone who waits for it."""

import asyncio
from collections.abc import AsyncIterator

from llmr.execution.types import Outcome


class Flight:
    """A call under way. It is the sink of the call; each waiting caller reads it from the start.

    The call belongs to those who wait (`with flight:`): it goes on while one is left, and is
    cancelled with the last.
    """

    __slots__ = ("_pieces", "_readers", "_waiters", "include_usage", "outcome", "stream", "task")

    def __init__(self, stream: bool, include_usage: bool) -> None:
        self.stream = stream
        self.include_usage = include_usage
        self.outcome: Outcome | None = None
        self.task: asyncio.Task[Outcome] | None = None
        self._pieces: list[bytes] = []
        self._readers = 0
        self._waiters: list[asyncio.Future[None]] = []

    # --- Sink ---

    async def begin(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._wake()

    async def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._wake()

    # --- readers ---

    def __enter__(self) -> "Flight":
        self._readers += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._readers -= 1
        if not self._readers and self.task is not None and not self.task.done():
            self.task.cancel()

    async def begun(self) -> Outcome | None:
        """Wait for the commit point: the outcome, or None where the call ended without one."""
        while self.outcome is None and not self._done:
            await self._wait()
        return self.outcome

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the streamed answer from its start, as they come."""
        position = 0
        while True:
            while position < len(self._pieces):
                position += 1
                yield self._pieces[position - 1]
            if self._done:
                return
            await self._wait()

    async def result(self) -> Outcome:
        """Wait for the end. Raises what the call raised."""
        while self.task is None or not self.task.done():
            await self._wait()
        return self.task.result()

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

    def start(self, task: "asyncio.Task[Outcome]") -> None:
        self.task = task
        task.add_done_callback(lambda _: self._wake())
