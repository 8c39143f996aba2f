"""Pieces of text that come in a frame of always the same bytes, known without being decoded."""

import re

LEARNT = 4  # frames of one stream: one whose events all differ is not worth more
# A JSON string between its quotes, without the escapes that would have to be decoded.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*(?:\\["\\/bfnrt][^"\\\x00-\x1f]*)*')
_KEY = b'"content":'
_NOISE = b'"obfuscation":"'


class Frame:
    """What stands before and after the text of an event; the same bytes mean the same again.

    Some providers pad each event with a string of noise behind it, which may be anything.
    """

    __slots__ = ("_after", "_before", "_end", "_left")

    def __init__(self) -> None:
        self._before = self._after = self._end = b""  # `_end` stands behind the noise
        self._left = LEARNT

    @property
    def learns(self) -> bool:
        """Whether another frame would be learnt."""
        return self._left > 0

    def learn(self, data: bytes, text: bytes) -> None:
        """Take the frame from the data of an event that has this content, as it is encoded."""
        at = data.find(_KEY) + len(_KEY)
        before, after = data[: at + 1], data[at + len(text) - 1 :]
        told = data.count(b'"content"') == 1 and data.startswith(text, at)
        if not told or b"\\" in before or b"\\" in after:
            return
        self._left -= 1
        self._before, end = b"data: " + before, b""
        start = after.find(_NOISE) + len(_NOISE)
        if start >= len(_NOISE):
            after, end = after[:start], after[after.index(b'"', start) :]
        tail = b"\n\n"
        self._after, self._end = (after, end + tail) if end else (after + tail, b"")

    def texts(self, data: bytes) -> list[bytes] | None:
        """The encoded texts of whole events in this frame, None where `data` is anything else."""
        before, after, last, end = self._before, self._after, self._end, len(data)
        if not before:
            return None
        at, found = 0, []
        while at < end:
            start = at + len(before)
            stop = _PLAIN.match(data, start).end()  # type: ignore[union-attr]
            if start >= stop or not (data.startswith(before, at) and data.startswith(after, stop)):
                return None
            found.append(data[start - 1 : stop + 1])
            at = stop + len(after)
            if last:
                at = _PLAIN.match(data, at).end()  # type: ignore[union-attr]
                if not data.startswith(last, at):
                    return None
                at += len(last)
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                return None
        return found
