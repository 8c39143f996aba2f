"""Callers of streams: when the first content came, how late each event was, whether all came."""

import asyncio
import time
from array import array
from collections import Counter
from typing import Any

from bench.payload import DONE, SENT

_OK = b"HTTP/1.1 200 "
_KEPT = 256  # bytes looked at again, in case an event came in two pieces


class StreamTally:
    """What the streams from one target saw. Times in seconds."""

    def __init__(self) -> None:
        self.first = array("d")
        self.late = array("d")
        self.errors: Counter[str] = Counter()


class Listener(asyncio.Protocol):
    """One stream on a connection of its own."""

    def __init__(self, request: bytes, events: int, tally: StreamTally) -> None:
        self.transport: Any = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._expected = events
        self._tally = tally
        self._begun = 0.0
        self._head = b""
        self._seen = 0
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def begin(self) -> None:
        """Ask for the stream."""
        if self.over.done():
            return
        self._begun = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if len(self._head) < len(_OK):
            self._head += data[: len(_OK)]
        data = self._rest + data
        end = 0
        for sent in SENT.finditer(data):
            end = sent.end()
            self._seen += 1
            if self._seen == 1:
                self._tally.first.append(now - self._begun)
            self._tally.late.append(now - float(sent[1]))
        if DONE in data:
            self._end(None if self._seen == self._expected else "events missing")
            return
        self._rest = data[max(end, len(data) - _KEPT) :]
        if not self._head.startswith(_OK[: len(self._head)]):
            self._end(f"status {self._head[9:12].decode('latin-1')}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("connection lost")

    def _end(self, problem: str | None) -> None:
        if self.over.done():
            return
        if problem is not None:
            self._tally.errors[problem] += 1
        self.over.set_result(None)
        self.transport.close()
