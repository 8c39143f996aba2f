"""What is to be written, gathered while the loop works through what has arrived.

A write wakes whoever reads at the other end, which costs as much as the write. Where many requests
are under way, those of one turn of the loop go out together: the reader is woken once. Where there
are few, each goes out at once.
"""

import asyncio
import time
from typing import Any

MOST = 64  # writes that are gathered; so nobody waits for long, and little is held
FEW = 8  # requests under way up to which nothing is gathered


class Outbox:
    """Writes to transports in the order given. `active` is how many requests are under way."""

    __slots__ = ("_ends", "_loop", "_pending", "_turn", "active")

    def __init__(self) -> None:
        self.active = 0
        self._pending: list[tuple[Any, bytes]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: float | None = None
        self._ends = False  # the end of this turn will be told

    def turn(self) -> float:
        """Since when the loop works through what has arrived, monotonic: it was there by then.

        To be called by whoever is told that something has.
        """
        begun = self._turn
        if begun is None:
            begun = self._turn = time.monotonic()
            self._tell_the_end()
        return begun

    def write(self, transport: Any, data: bytes) -> None:
        """Write, now or at the end of this turn of the loop."""
        pending = self._pending
        if self.active <= FEW and not pending:
            transport.write(data)
            return
        pending.append((transport, data))
        if not self._ends:
            self._tell_the_end()
        elif len(pending) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered. To be called before a transport is closed or written to."""
        pending = self._pending
        try:
            for transport, data in pending:  # one that calls back may add to it
                if not transport.is_closing():
                    transport.write(data)
        finally:
            pending.clear()

    def _tell_the_end(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = asyncio.get_running_loop()
        self._ends = True
        loop.call_soon(self._end)

    def _end(self) -> None:
        self._turn, self._ends = None, False
        self.flush()
