"""Callers in a closed loop: each connection sends its next request when its answer is whole."""

import asyncio
import re
import time
from array import array
from collections import Counter
from typing import Any

from bench.payload import TEXT

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)\r\n")
_OK = b"HTTP/1.1 200 "
_TEXT = TEXT.encode()


class Tally:
    """What came back, over all connections to one target."""

    def __init__(self) -> None:
        self.took = array("d")
        self.errors: Counter[str] = Counter()


class Round:
    """A bounded number of requests, shared by the connections that send them."""

    def __init__(self, request: bytes, count: int, running: int, tally: Tally) -> None:
        self.request = request
        self.left = count
        self.running = running
        self.tally = tally
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def leave(self) -> None:
        """A connection has nothing more to send, or is lost."""
        self.running -= 1
        if not self.running and not self.over.done():
            self.over.set_result(None)


class Caller(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.part: Round | None = None
        self.lost = False
        self._begun = 0.0
        self._size = 0
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def begin(self, part: Round) -> None:
        """Take part in a part."""
        self.part = part
        if self.lost:
            self.connection_lost(None)
        else:
            self._next(part)

    def _next(self, part: Round) -> None:
        if part.left <= 0:
            self.part = None
            part.leave()
            return
        part.left -= 1
        self._size, self._buffer = 0, b""
        self._begun = time.perf_counter()
        self.transport.write(part.request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        self._size = self._size or whole_size(self._buffer)
        if not self._size or len(self._buffer) < self._size or self.part is None:
            return
        took = time.perf_counter() - self._begun
        problem = judged(self._buffer, self._size)
        if problem is None:
            self.part.tally.took.append(took)
        else:
            self.part.tally.errors[problem] += 1
        self._next(self.part)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        part, self.part = self.part, None
        if part is not None:
            part.tally.errors["connection lost"] += 1
            part.leave()


def whole_size(start: bytes) -> int:
    """How long head and body are together; 0 while the head is not there yet."""
    end = start.find(b"\r\n\r\n")
    if end < 0:
        return 0
    length = _LENGTH.search(start, 0, end + 2)
    return end + 4 + (int(length[1]) if length else 0)


def judged(answer: bytes, size: int) -> str | None:
    """What is wrong with an answer, or None: status 200, of the promised size, the text whole."""
    if not answer.startswith(_OK):
        return f"status {answer[9:12].decode('latin-1')}"
    return None if len(answer) == size and _TEXT in answer else "wrong answer"
