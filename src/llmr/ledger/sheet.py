"""Sums of what was spent, by day and by whom and for what. Money is Decimal throughout."""

import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import Struct

from llmr.observe.record import Record, Sent

MOST_LINES = 20_000
OTHER = "(other)"
CACHE = "cache"  # the source of answers that nobody was paid for


class Key(NamedTuple):
    """What a line is of. `source` says where its cost is from; `day` is UTC, as YYYY-MM-DD."""

    day: str
    tenant: str
    tag: str
    upstream: str
    model: str
    source: str


class Line(Struct):
    """Sums over sends. `unpriced` sends have a cost that nobody knows: it is not in `usd`."""

    answers: int = 0
    attempts: int = 0
    unpriced: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    usd: Decimal = Decimal(0)

    def add(self, other: "Line") -> None:
        """Add another line to this one."""
        self.answers += other.answers
        self.attempts += other.attempts
        self.unpriced += other.unpriced
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.written_tokens += other.written_tokens
        self.completion_tokens += other.completion_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.usd += other.usd


class Sheet:
    """Lines that are not written yet, bounded: what is too much counts under one name."""

    def __init__(self) -> None:
        self._lines: dict[Key, Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, key: Key, line: Line) -> None:
        """Add to the line of a key."""
        known = self._lines.get(key)
        if known is None:
            if len(self._lines) >= MOST_LINES:
                key = key._replace(tenant=OTHER, tag=OTHER, upstream=OTHER, model=OTHER)
            known = self._lines.setdefault(key, Line())
        known.add(line)

    def take(self) -> dict[Key, Line]:
        """All lines; none are left."""
        lines, self._lines = self._lines, {}
        return lines

    def put_back(self, lines: Mapping[Key, Line]) -> None:
        """Keep lines that could not be written."""
        for key, line in lines.items():
            self.add(key, line)


def day_of(wall: float) -> str:
    """The UTC day of an instant in seconds since 1970."""
    return _day(int(wall // 86400))


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(number * 86400))


def lines_of(record: Record, day: str) -> Iterable[tuple[Key, Line, Sent | None]]:
    """What a finished request puts on the sheet, with the send each line is of."""
    tenant, tag = record.tenant, record.tag
    if record.cached and record.model is not None and not record.attempts:
        key = Key(day, tenant, tag, record.upstream or "", record.model, CACHE)
        yield key, Line(answers=1), None
    for sent in record.attempts:
        source = sent.cost_source or "unknown"
        key = Key(day, tenant, tag, sent.upstream, sent.model, source)
        yield key, line_of(sent), sent


def line_of(sent: Sent) -> Line:
    """The line of one send."""
    usage = sent.usage or {}
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Line(
        answers=int(sent.outcome == "ok"),
        attempts=1,
        unpriced=int(sent.cost_usd is None),
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(prompt, "cached_tokens"),
        written_tokens=_count(prompt, "cache_write_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        reasoning_tokens=_count(completion, "reasoning_tokens"),
        usd=sent.cost_usd or Decimal(0),
    )


def _count(fields: Any, name: str) -> int:
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and 0 < value < 10**12 else 0
