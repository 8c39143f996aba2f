"""How long an upstream asks to be left alone, in every form that was recorded."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

_TEXT = re.compile(
    r"(?:retry|try again)\s+(?:in|after)\s+(\d+(?:\.\d+)?)\s*(ms|milli\w*|s\b|sec\w*)?", re.I
)
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)s$")


def wait_s(
    headers: Mapping[str, str], facts: Sequence[Mapping[str, Any]], message: str, wall: float
) -> float | None:
    """Seconds to wait, or None where nothing usable is said. The finest form wins.

    `wall` is the wall clock in seconds, against which dates are read; a date in the past means now.
    Negative, not finite and unreadable values count as not said.
    """
    ms = _number(headers.get("retry-after-ms"))
    if ms is not None:
        return ms / 1000.0
    if (header := headers.get("retry-after")) is not None:
        seconds = _number(header)
        if seconds is not None:
            return seconds
        if (date := _date(header, wall)) is not None:
            return date
    return max(_told(facts, message), default=None)


def _told(facts: Sequence[Mapping[str, Any]], message: str) -> Iterator[float]:
    """What a body says, in its fields and in its text, which may be finer: the longest is safe."""
    for fact in facts:
        if (seconds := _number(fact.get("retry_after"))) is not None:
            yield seconds
        delay = fact.get("retryDelay")
        if isinstance(delay, str) and (match := _DURATION.match(delay)):
            yield float(match[1])
    if match := _TEXT.search(message):
        value = float(match[1])
        yield value / 1000.0 if (match[2] or "").lower().startswith("m") else value


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(text: str, wall: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall)
    except (TypeError, ValueError, OverflowError):
        return None
