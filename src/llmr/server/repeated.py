"""Heads that a caller sends again and again, byte for byte but for the length of the body."""

import re
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
DIGITS = 9


class Repeated:
    """A head as the parser judged it. The same bytes mean the same: they need not be parsed again.

    `surface` is (path, surface), `raw` the fields without the length, `keep` whether the connection
    stays open.
    """

    __slots__ = ("_after", "_before", "keep", "raw", "surface")

    def __init__(
        self, before: bytes, after: bytes, surface: tuple[str, str], raw: Any, keep: bool
    ) -> None:
        self._before = before
        self._after = after
        self.surface = surface
        self.raw = raw
        self.keep = keep

    def body(self, data: bytes) -> bytes | None:
        """The body of the request that `data` is, if it is this head and a whole body behind it."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(after, end):
            return None
        begin = end + len(after)
        return data[begin:] if len(data) - begin == int(digits) else None


def repeated(data: bytes, surface: tuple[str, str], raw: Any, keep: bool) -> Repeated | None:
    """The head of the request that begins `data`, None where it cannot be known again."""
    end = data.find(b"\r\n\r\n") + 4
    found = list(_LENGTH.finditer(data, 0, end))
    if end < 4 or len(found) != 1:
        return None
    start, stop = found[0].span(1)
    return Repeated(data[:start], data[stop:end], surface, raw, keep)
