"""Reports over the ledger: sums by day, model, key or tag, and what another model would have cost.

Pure: lines in, rows out. Sums are Decimal.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct

from llmr.core import price
from llmr.core.price import Prices
from llmr.ledger.sheet import Key, Line

GROUPS = {
    "day": "day",
    "model": "model",
    "key": "tenant",
    "tag": "tag",
    "upstream": "upstream",
    "source": "source",
}


class Row(Struct):
    """Sums over the lines of one group. `always_usd`: what the model compared with would cost."""

    group: tuple[str, ...]
    line: Line
    always_usd: Decimal | None = None

    @property
    def saved_usd(self) -> Decimal | None:
        """How much less was spent than with the model compared with."""
        return None if self.always_usd is None else self.always_usd - self.line.usd


def report(
    lines: Iterable[tuple[Key, Line]], by: Sequence[str], always: Prices | None = None
) -> list[Row]:
    """One row a group, in order; the groups are those of `GROUPS` named in `by`.

    `always` are the prices of a model to compare with. It is taken to need the tokens that were
    used, cached ones at its own price for them; answers from the cache cost it nothing either.
    """
    rows: dict[tuple[str, ...], Row] = {}
    for key, line in lines:
        group = tuple(getattr(key, GROUPS[name]) for name in by)
        row = rows.setdefault(group, Row(group, Line(), None if always is None else Decimal(0)))
        row.line.add(line)
        if always is not None and row.always_usd is not None:
            row.always_usd += _with(always, line)
    return [rows[group] for group in sorted(rows)]


def total(rows: Sequence[Row]) -> Row:
    """All rows together."""
    found = Row((), Line(), Decimal(0) if rows and rows[0].always_usd is not None else None)
    for row in rows:
        found.line.add(row.line)
        if found.always_usd is not None and row.always_usd is not None:
            found.always_usd += row.always_usd
    return found


def shown(row: Row, by: Sequence[str]) -> dict[str, Any]:
    """A row for a program; money as decimal text, which loses nothing."""
    line = row.line
    return {
        **dict(zip(by, row.group, strict=False)),
        "usd": format(line.usd, "f"),
        "answers": line.answers,
        "attempts": line.attempts,
        "unpriced": line.unpriced,
        "prompt_tokens": line.prompt_tokens,
        "cached_tokens": line.cached_tokens,
        "written_tokens": line.written_tokens,
        "completion_tokens": line.completion_tokens,
        "reasoning_tokens": line.reasoning_tokens,
        **_comparison(row),
    }


def _comparison(row: Row) -> Mapping[str, str]:
    if row.always_usd is None or row.saved_usd is None:
        return {}
    return {
        "always_usd": format(row.always_usd, "f"),
        "saved_usd": format(row.saved_usd, "f"),
    }


def _with(always: Prices, line: Line) -> Decimal:
    usage = {
        "prompt_tokens": line.prompt_tokens,
        "completion_tokens": line.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": line.cached_tokens,
            "cache_write_tokens": line.written_tokens,
        },
    }
    base = {**always.base, "request": Decimal(0)}
    fee = always.base.get("request", Decimal(0)) * line.answers
    return (price.cost(base, usage) or Decimal(0)) + fee
