"""Server-sent events from bytes, by the standard's rules, whatever the split of the bytes.

An event that already is one `data: …` line is handed on as the very bytes that came.
"""

from typing import NamedTuple

EVENT_LIMIT = 8 * 1024 * 1024
DONE = b"data: [DONE]\n\n"


class Event(NamedTuple):
    """One event or comment. `raw` is what to send on; `data` is None for a comment.

    `normal` says that `raw` is byte for byte what came in. `name` is the `event:` field.
    """

    raw: bytes
    data: bytes | None
    normal: bool = True
    name: bytes = b""


class EventTooLarge(Exception):  # noqa: N818 - the executor turns it into a failure
    """One event is larger than the limit, or a line never ends."""


class EventReader:
    """Feed it bytes as they come; it gives the events that are complete."""

    __slots__ = ("_after_cr", "_begun", "_buffer", "_limit", "between")

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        """`limit` is the size of the largest event, in bytes."""
        self._limit = limit
        self._buffer = b""
        self._after_cr = False
        self._begun = False
        self.between = False  # an event begins with the next byte

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        if not self._begun and not self._begin(data):
            return []
        if not self._begun:
            data, self._buffer, self._begun = self._without_mark(self._buffer + data), b"", True
        if self._after_cr and data:
            # The line ended with the CR already; an LF that belongs to it adds nothing.
            data = data[1:] if data[0] == 10 else data
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        buffer = self._buffer + data if self._buffer else data
        *blocks, rest = buffer.split(b"\n\n")
        if len(buffer) > self._limit and max(map(len, (rest, *blocks))) > self._limit:
            raise EventTooLarge
        self._buffer = rest
        self.between = not rest and not self._after_cr
        return [event for block in blocks if (event := _event(block)) is not None]

    def flush(self) -> list[Event]:
        """What is left at the end of the body: providers often leave out the last blank line."""
        rest, self._buffer = self._buffer.rstrip(b"\n"), b""
        event = _event(rest)
        return [event] if event is not None else []

    @staticmethod
    def _without_mark(data: bytes) -> bytes:
        return data[3:] if data.startswith(b"\xef\xbb\xbf") else data

    def _begin(self, data: bytes) -> bool:
        """Whether enough has come to tell a byte order mark from the first event."""
        start = self._buffer + data
        if len(start) < 3 and b"\xef\xbb\xbf".startswith(start):
            self._buffer = start
            return False
        return True


def _event(block: bytes) -> Event | None:
    block = block.lstrip(b"\n")
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block + b"\n\n", block[6:])
    if not block:
        return None
    name, data, comments = b"", [], []
    for line in block.split(b"\n"):
        if line.startswith(b":"):
            comments.append(line)
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    if data:
        joined = b"\n".join(data)
        return Event(b"data: " + b" ".join(data) + b"\n\n", joined, False, name)
    if comments:
        return Event(b"\n".join(comments) + b"\n\n", None)
    return None
