"""What to expect of a model before any board names it: from price, date, size and relatives."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from llmr.core.quality.facts import PLAIN_SIZE_B, Facts
from llmr.core.quality.gaussian import Vector, ridge

_YEAR_S = 31_557_600.0
_NEW_YEAR_2025 = 1_735_689_600
OLDEST_YEARS = -2.0
CHEAPEST_USD = 0.01  # per million tokens: below, a price tells nothing
CHEAP_USD = 0.05  # what a model costs that has no price

# Expected weights before any row is seen; only size has one, since few published rows are small.
_EXPECTED: Vector = (0.6, 0.0, 0.0, 0.0, -0.35)
_PENALTY = 4.0
AUTHOR_COUNT = 3.0  # how many models of an author count as much as knowing nothing of it
LEAST_SD, UNKNOWN_SD = 0.45, 0.9


class Expectation:
    """A regression of general ability on public facts, and each author's mean miss."""

    def __init__(self, rows: Mapping[str, Facts], known: Mapping[str, float]) -> None:
        """`rows` are all by base, `known` the abilities of those that boards tell of."""
        dates = [row.created for base, row in rows.items() if row.created and base in known]
        # A row without a date came with the newest part of the catalogue. Neither progress nor
        # price is extrapolated past the rows that boards tell of.
        self.newest = (max(dates) - _NEW_YEAR_2025) / _YEAR_S if dates else 0.0
        self.dearest = max([CHEAP_USD, *(rows[base].usd_per_mtok or 0.0 for base in known)])
        self._features = {base: self._feature(row) for base, row in rows.items()}
        priced = [base for base in known if rows[base].usd_per_mtok]
        self.weights = ridge([(self._features[b], known[b]) for b in priced], _PENALTY, _EXPECTED)
        misses: dict[str, list[float]] = {}
        for base in known:
            misses.setdefault(rows[base].author, []).append(known[base] - self.line(base))
        self.author = {name: sum(m) / (len(m) + AUTHOR_COUNT) for name, m in misses.items()}
        left = [m - self.author[name] for name, group in misses.items() for m in group]
        self.sd = max(LEAST_SD, pstdev(left, fmean(left)) if len(left) > 4 else UNKNOWN_SD)

    def line(self, base: str) -> float:
        """The ability that the facts of a row alone suggest, as a logit."""
        return sum(w * v for w, v in zip(self.weights, self._features[base], strict=True))

    def _feature(self, row: Facts) -> Vector:
        price = max(row.usd_per_mtok or CHEAP_USD, CHEAPEST_USD)
        years = self.newest
        if row.created is not None:
            years = min(self.newest, (row.created - _NEW_YEAR_2025) / _YEAR_S)
        small = max(0.0, math.log(PLAIN_SIZE_B / row.billions))
        return (
            1.0,
            math.log(min(price, self.dearest)),
            max(OLDEST_YEARS, years),
            1.0 if row.reasoning else 0.0,
            small,
        )


def by_base(rows: Sequence[Facts]) -> dict[str, Facts]:
    """One row for each model: the one without a variant, or the first."""
    out: dict[str, Facts] = {}
    for row in rows:
        if row.id == row.base or row.base not in out:
            out[row.base] = row
    return out
