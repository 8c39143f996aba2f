"""The cache key: everything that can change the answer, and nothing else."""

import hashlib
import math
import re
from typing import Any

import msgspec

from llmr.core.body import Body
from llmr.core.capability import BINDING
from llmr.core.request import REMOVED, Request
from llmr.errors import bad_request

# The form in which the answer is handed over; one entry serves both.
FORM = frozenset(("stream", "stream_options"))


# A string before a colon is a key: no value is. Values are matched too, lest one be entered.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\r\n]*+(:?)')


def _members(value: Any) -> int:
    """How many members the objects of a value have, all told."""
    count, left = 0, [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            count += len(found)
            left.extend(found.values())
        elif isinstance(found, list):
            left.extend(found)
    return count


def _number(text: str) -> Any:
    """1, 1.0 and 1e0 are one number; one that no float can hold is its text and nothing else."""
    value = float(text)
    if not math.isfinite(value):
        return ["\0number", text]
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_decode = msgspec.json.Decoder(float_hook=_number).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def cache_key(body: Body, request: Request, scope: bytes) -> bytes:
    """Digest of the request in `scope`, the tenant's own.

    Key order, spacing and number form do not matter; every other field does, unknown ones too. For
    `auto` the wishes count, not the pick.
    """
    try:
        fields: dict[str, Any] = _decode(body.data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise bad_request("invalid_json", "The body holds a number no parser agrees on.") from None
    members = _members(fields)
    for name in REMOVED | FORM | {"model"}:
        fields.pop(name, None)
    wishes = (
        request.mode,
        request.models,
        request.weights,
        request.preferred,
        request.max_latency_ms,
        request.max_cost_per_1k,
        request.max_cost_usd,
        request.needs & BINDING,
    )
    digest = hashlib.blake2b(scope, digest_size=24)
    if sum(map(len, _STRINGS.findall(body.data))) != members:
        # A key given twice inside: what it means is up to who reads it, so only its bytes tell.
        digest.update(body.data)
    digest.update(_encode((wishes, fields)))
    return digest.digest()


def deterministic(body: Body) -> bool:
    """Whether the same request is meant to give the same answer: temperature 0 or a seed."""
    fields = body.fields
    if "seed" in fields and bytes(fields["seed"]) != b"null":
        return True
    return "temperature" in fields and body.get("temperature", float, "a number") == 0
