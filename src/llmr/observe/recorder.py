"""Finished requests on their way to whoever measures: handed on when their answers are out.

An answer does not wait for what is written down of it, and those of one turn of the loop cost less
together than one by one.
"""

import asyncio
from collections.abc import Callable

from llmr.observe.record import Record


class Recorder:
    """Hands records to its `observers`. What they show is whole after `flush`."""

    def __init__(self) -> None:
        self.observers: list[Callable[[Record], None]] = []
        self._pending: list[Record] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, record: Record) -> None:
        """Take a record."""
        pending = self._pending
        if not pending:
            loop = self._loop
            if loop is None or loop.is_closed():
                loop = self._loop = asyncio.get_running_loop()
            loop.call_soon(self.flush)
        pending.append(record)

    def flush(self) -> None:
        """Hand on what is there."""
        pending, self._pending = self._pending, []
        for observe in self.observers:
            for record in pending:
                observe(record)
