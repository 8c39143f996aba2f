"""What is to be written, gathered while the loop works through what has arrived.

A write wakes whoever reads at the other end, which costs as much as the write. Where many requests
are under way, those of one turn of the loop go out together: the reader is woken once. Where there
are few, each goes out at once.
"""

import asyncio
from typing import Any

MOST = 64  # writes that are gathered; so nobody waits for long, and little is held
FEW = 8  # requests under way up to which nothing is gathered


class Outbox:
    """Writes to transports in the order given. `active` is how many requests are under way."""

    __slots__ = ("_loop", "_pending", "active")

    def __init__(self) -> None:
        self.active = 0
        self._pending: list[tuple[Any, bytes]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def write(self, transport: Any, data: bytes) -> None:
        """Write, now or at the end of this turn of the loop."""
        pending = self._pending
        if self.active <= FEW and not pending:
            transport.write(data)
            return
        if not pending:
            loop = self._loop
            if loop is None or loop.is_closed():
                loop = self._loop = asyncio.get_running_loop()
            loop.call_soon(self.flush)
        pending.append((transport, data))
        if len(pending) >= MOST:
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
