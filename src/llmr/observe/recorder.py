"""Finished requests on their way to whoever measures: gathered, and handed on some at a time.

An answer does not wait for what is written down of it, and many at once cost less than one by one.
"""

import asyncio
from collections.abc import Callable

from llmr.observe.record import Record

GATHER_S = 0.02  # so long at most until a record is seen
BATCH = 256  # so many at most at a time, since the loop does nothing else meanwhile


class Recorder:
    """Hands records to its `observers`. What they show is whole after `flush`."""

    def __init__(self) -> None:
        self.observers: list[Callable[[Record], None]] = []
        self._pending: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: Record) -> None:
        """Take a record."""
        pending = self._pending
        pending.append(record)
        if len(pending) >= BATCH:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._due)

    def flush(self) -> None:
        """Hand on what is there."""
        pending, self._pending = self._pending, []
        for observe in self.observers:
            for record in pending:
                observe(record)

    def _due(self) -> None:
        self._timer = None
        self.flush()
