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
        self.round: Round | None = None
        self.lost = False
        self._begun = 0.0
        self._size = 0
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def begin(self, round: Round) -> None:
        """Take part in a round."""
        self.round = round
        if self.lost:
            self.connection_lost(None)
        else:
            self._next(round)

    def _next(self, round: Round) -> None:
        if round.left <= 0:
            self.round = None
            round.leave()
            return
        round.left -= 1
        self._size, self._buffer = 0, b""
        self._begun = time.perf_counter()
        self.transport.write(round.request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        self._size = self._size or whole_size(self._buffer)
        if not self._size or len(self._buffer) < self._size or self.round is None:
            return
        took = time.perf_counter() - self._begun
        problem = judged(self._buffer, self._size)
        if problem is None:
            self.round.tally.took.append(took)
        else:
            self.round.tally.errors[problem] += 1
        self._next(self.round)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        round, self.round = self.round, None
        if round is not None:
            round.tally.errors["connection lost"] += 1
            round.leave()


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
