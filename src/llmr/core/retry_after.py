"""How long an upstream asks to be left alone, in every form that was recorded."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

LONGEST_S = 86_400.0  # whatever is asked for beyond a day is a mistake, or no concern of today
_UNIT = r"ms|mil\w*|s|sec\w*|m|min\w*|h|hour\w*"
_NUMBER = r"\d{1,7}(?:\.\d{1,9})?"
_TEXT = re.compile(
    rf"(?:retry|try again)\s+(?:in|after)\s+({_NUMBER}\s*(?:(?:{_UNIT})(?![a-z]))?"
    rf"(?:\s*{_NUMBER}\s*(?:{_UNIT})(?![a-z]))*)(?!\s*\w*day)",
    re.I,
)
_RESET = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h)?){{1,4}}")
_PART = re.compile(rf"({_NUMBER})\s*({_UNIT})?", re.I)
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"^(\d{1,9}(?:\.\d{1,9})?)s$")


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


def headroom(headers: Mapping[bytes, bytes], tokens: float) -> tuple[int, float] | None:
    """(requests of so many tokens that a limit still lets through, seconds until it is reset).

    None where that is not said. The form is that of OpenAI and those who follow it: "6m0s".
    """
    found = []
    for what, size in ((b"requests", 1.0), (b"tokens", max(tokens, 1.0))):
        told = headers.get(b"x-ratelimit-remaining-" + what, b"").decode("latin-1")
        reset = headers.get(b"x-ratelimit-reset-" + what, b"").decode("latin-1")
        left = _number(told)
        if left is not None and _RESET.fullmatch(reset):
            found.append((int(left / size), sum(_spoken(reset))))
    return min(found, key=lambda one: (one[0], -one[1]), default=None)


def _told(facts: Sequence[Mapping[str, Any]], message: str) -> Iterator[float]:
    """What a body says, in its fields and in its text, which may be finer: the longest is safe."""
    for fact in facts:
        if (seconds := _number(fact.get("retry_after"))) is not None:
            yield seconds
        delay = fact.get("retryDelay")
        if isinstance(delay, str) and (match := _DURATION.match(delay)):
            yield min(float(match[1]), LONGEST_S)
    if match := _TEXT.search(message):
        yield from _spoken(match[1])


def _spoken(text: str) -> Iterator[float]:
    """Seconds of "48.9s", "2m30s" or "5 minutes"."""
    total = 0.0
    for number, word in _PART.findall(text):
        unit = word.lower()
        thousandth = unit == "ms" or unit.startswith("mil")
        total += float(number) * (0.001 if thousandth else _UNITS[unit[:1]])
    yield min(total, LONGEST_S)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return min(number, LONGEST_S) if math.isfinite(number) and number >= 0 else None


def _date(text: str, wall: float) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)  # HTTP knows GMT only
        return min(max(0.0, date.timestamp() - wall), LONGEST_S)
    except (TypeError, ValueError, OverflowError):
        return None
