"""A request body as bytes with the places of its top-level values.

The body is decoded once, shallowly. What goes upstream is cut and spliced from the bytes that came
in: unknown fields, number forms and key order reach the upstream exactly as the caller sent them.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from llmr.errors import ApiError, bad_request

_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.decode
_encode = msgspec.json.encode
_decoders: dict[Any, Callable[[Any], Any]] = {}  # of the shapes the source names
EMPTY: Mapping[str, bytes | None] = MappingProxyType({})
COMMA, BRACE = b",}"
MARKS = frozenset((COMMA, BRACE))
Pieces = tuple[bytes | memoryview, ...]
Spans = dict[str, tuple[int, int, int]]
_GAP = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb'[ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*')


class Body:
    """One JSON object as bytes. `fields` maps each top-level key to its raw value."""

    __slots__ = ("_spans", "data", "fields")

    def __init__(self, data: bytes) -> None:
        """Raise a 400 where `data` is not one JSON object of valid UTF-8 with distinct keys."""
        try:
            if not data.isascii():
                data.decode()
            self.fields: dict[str, msgspec.Raw] = _decode_top(data)
        except UnicodeDecodeError as error:
            raise bad_request(
                "invalid_json", f"The body is not valid UTF-8: byte {error.start} cannot be read."
            ) from None
        except msgspec.ValidationError:
            raise bad_request("invalid_json", "The body must be a JSON object.") from None
        except msgspec.DecodeError as error:
            raise bad_request("invalid_json", f"The body is not valid JSON: {error}") from None
        except RecursionError:
            raise bad_request("too_deep", "The body is nested too deeply.") from None
        self.data = data
        self._spans = self._compact() or self._places()

    def _compact(self) -> Spans | None:
        """The places where nothing is between the tokens and no key needs decoding, else None.

        What the entries take up, added up, is then the whole body: a key given twice, a space or an
        escape would make it longer.
        """
        spans, at = {}, 1
        for key, raw in self.fields.items():
            start = at + len(key) + 3
            end = start + len(memoryview(raw))
            spans[key] = (at, start, end)
            at = end + 1
        return spans if at == len(self.data) else None

    def _places(self) -> Spans:
        """For each key: where its entry starts, where its value starts, where its value ends.

        The decoder has proved the syntax and keeps the last value of a key given twice, so walking
        the bytes beside its result either meets every entry or finds the double one.
        """
        data, mark = self.data, COMMA
        spans: Spans = {}
        at = data.index(b"{") + 1
        for key, raw in self.fields.items():
            head = _KEY.match(data, at)
            if head is None or mark != COMMA:
                raise self._doubled()
            start = head.end()
            if not data.startswith(raw, start):
                raise self._doubled()
            literal = head[1]
            if literal != key.encode() and not _same(literal, key):
                raise self._doubled()
            end = start + len(memoryview(raw))
            spans[key] = (at, start, end)
            mark = data[end]
            if mark not in MARKS:
                end = _GAP.match(data, end).end()  # type: ignore[union-attr]
                mark = data[end]
            at = end + 1
        if spans and mark != BRACE:
            raise self._doubled()
        return spans

    def _doubled(self) -> ApiError:
        name = _first_double(self.data)
        which = f"The key {name!r}" if name is not None else "A key"
        text = f"{which} is given twice. Send each top-level key once."
        return bad_request("duplicate_key", text, name)

    def get(self, key: str, shape: Any, what: str) -> Any:
        """The value of `key` decoded as `shape`, None where absent or null.

        Raises a 400 naming the key where it is not `what`.
        """
        raw = self.fields.get(key)
        if raw is None:
            return None
        decode = _decoders.get(shape)
        if decode is None:
            decode = _decoders[shape] = msgspec.json.Decoder(shape | None).decode
        try:
            return decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise bad_request("invalid_type", f"{key!r} must be {what}.", key) from None

    def splice(self, drop: Collection[str] = (), put: Mapping[str, bytes | None] = EMPTY) -> Pieces:
        """The body without the keys of `drop` and with the encoded values of `put`, in pieces.

        A value of None in `put` leaves a gap at the end of a piece: the caller joins the pieces
        with what belongs there, once per target. They are views where nothing had to be copied.
        """
        fields = self.fields
        gone = [key for key in fields if key in drop]
        fresh = [key for key in put if key not in fields]
        if not gone and not fresh:
            cuts = [
                (start, end, put[key]) for key, (_, start, end) in self._spans.items() if key in put
            ]
            return _pieces(self.data, cuts)
        out = bytearray(b"{")
        cuts = []
        for key, (entry, start, end) in self._spans.items():
            if key in gone:
                continue
            if len(out) > 1:
                out += b","
            at = len(out) + start - entry
            out += self.data[entry:end]
            if key in put:
                cuts.append((at, len(out), put[key]))
        for key in fresh:
            out += (b"," if len(out) > 1 else b"") + _encode(key) + b":"
            cuts.append((len(out), len(out), put[key]))
        out += b"}"
        return _pieces(bytes(out), cuts)


def _pieces(data: bytes, cuts: list[tuple[int, int, bytes | None]]) -> Pieces:
    view = memoryview(data)
    pieces: list[bytes | memoryview] = []
    held, last = b"", 0
    for start, end, value in cuts:
        if value is None:
            pieces.append(held + view[last:start] if held else view[last:start])
            held = b""
        else:
            held += data[last:start] + value
        last = end
    return (*pieces, held + data[last:] if held else view[last:])


def _same(literal: bytes, key: str) -> bool:
    return b"\\" in literal and bool(_decode(b'"' + literal + b'"', type=str) == key)


def _first_double(data: bytes) -> str | None:
    """The first key that a valid JSON object has twice, where another parser can tell."""
    double: str | None = None

    def collect(pairs: list[tuple[str, Any]]) -> None:
        nonlocal double  # the outermost object comes last
        seen: set[str] = set()
        double = None
        for key, _ in pairs:
            if key in seen:
                double = key
                return
            seen.add(key)

    try:
        json.loads(data, object_pairs_hook=collect, parse_int=str)
    except (ValueError, RecursionError):
        return None  # it is stricter about numbers and depth; the refusal stands without the name
    return double[:200] if double is not None else None
