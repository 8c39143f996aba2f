"""Compressed request bodies, decoded as they come and never further than the body limit."""

import zlib
from collections.abc import Iterator
from typing import Any

from llmr.errors import ApiError, bad_request

SLICE = 1024 * 1024  # bytes decoded at once: a bomb must not hold up the others either
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
RAW = -15


class Inflater:
    """One body of a coding that is known: `gzip` or `deflate`."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._decoder: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes in slices; raises a 400 where they cannot be decoded."""
        if self._decoder is None:
            self._decoder = zlib.decompressobj(self._window(data))
        try:
            full = True
            while data or full:
                out = self._decoder.decompress(data, SLICE)
                data, full = self._decoder.unconsumed_tail, len(out) == SLICE
                yield out
        except zlib.error:
            raise self._broken() from None
        if self._decoder.unused_data:
            raise self._broken()

    def end(self) -> None:
        """Raise a 400 where the body was cut short."""
        if self._decoder is None or not self._decoder.eof:
            raise self._broken()

    def _window(self, data: bytes) -> int:
        # `deflate` means zlib's format, but some send the bare stream, which cannot begin so.
        if self._coding == "deflate" and data[0] & 0x0F != 8:
            return RAW
        return WINDOWS[self._coding]

    def _broken(self) -> ApiError:
        return bad_request("invalid_encoding", f"The body is not whole, valid {self._coding}.")


def inflater(coding: str | None) -> Inflater | None:
    """The decoder for a Content-Encoding, None where there is nothing to decode.

    Raises a 415 for a coding that is not understood.
    """
    word = (coding or "identity").strip().lower()
    if word == "identity":
        return None
    if word not in WINDOWS:
        raise ApiError(
            415,
            "unsupported_encoding",
            f"The content encoding {word[:40]!r} is not understood. Send gzip, deflate or none.",
        )
    return Inflater(word)
