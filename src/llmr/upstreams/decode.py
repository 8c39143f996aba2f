"""Bodies that an upstream compressed although nobody asked: decoded as they come, within limits."""

import zlib
from typing import Final

from llmr.upstreams.base import TransportError

STEP = 64 * 1024  # bytes decoded at a time
FREE_SIZE = 1024 * 1024  # so much may come of anything
RATIO = 100  # beyond it, so many bytes may come of one
SIZE_LIMIT = 64 * 1024 * 1024

CODINGS: Final = frozenset(("gzip", "x-gzip", "deflate"))


class Decoder:
    """Decodes one body of gzip or deflate (either form of it)."""

    def __init__(self, coding: str) -> None:
        """`coding` is one of `CODINGS`."""
        self._gzip = coding != "deflate"
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS) if self._gzip else None
        self._held = b""
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes) -> bytes:
        """What the bytes decode to, as far as it goes.

        Raises `TransportError`: "protocol" for what is corrupt, "too_large" for a bomb.
        """
        if self._held:
            data, self._held = self._held + data, b""
        if self._zlib is None:
            if len(data) < 2:
                self._held = data
                return b""
            self._zlib = zlib.decompressobj(_deflate_window(data))
        try:
            return self._decoded(data)
        except zlib.error:
            raise TransportError("protocol", "the compressed body is corrupt") from None

    def finish(self) -> None:
        """The body is at its end. Raises `TransportError` ("protocol") where it lacks something."""
        begun = self._taken > 0 or bool(self._held)
        if begun and (self._zlib is None or not self._zlib.eof):
            raise TransportError("protocol", "the compressed body breaks off")

    def _decoded(self, data: bytes) -> bytes:
        pieces: list[bytes] = []
        while True:
            assert self._zlib is not None
            if self._zlib.eof:
                if not data:
                    break
                if not self._gzip:
                    raise TransportError("protocol", "bytes after the end of a compressed body")
                self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)  # gzip: one more member
            piece = self._zlib.decompress(data, STEP)
            rest = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
            self._count(len(data) - len(rest), len(piece))
            pieces.append(piece)
            data = rest
            if not data and len(piece) < STEP:
                break
        return b"".join(pieces)

    def _count(self, taken: int, given: int) -> None:
        self._taken += taken
        self._given += given
        if self._given > min(SIZE_LIMIT, FREE_SIZE + RATIO * self._taken):
            raise TransportError("too_large", "the compressed body grows beyond all measure")


def _deflate_window(data: bytes) -> int:
    """With zlib's wrapper, as the standard says, or raw, as some send it."""
    wrapped = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS
