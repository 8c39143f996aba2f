"""Whether a caller's connection is read, and whether it takes what is written."""

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """uvicorn's, for connections most of which never wait: the event is made when one does."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable: asyncio.Event | None = None
        self.read_paused = self.write_paused = False

    async def drain(self) -> None:
        if self._writable is None:
            self._writable = asyncio.Event()
        if self.write_paused:
            self._writable.clear()
            await self._writable.wait()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()


class Behind(list[tuple[Any, Any]]):
    """Requests behind the one being answered, the newest first. A list takes less than a deque."""

    __slots__ = ()

    def appendleft(self, request: tuple[Any, Any]) -> None:
        """Take another one."""
        self.insert(0, request)
