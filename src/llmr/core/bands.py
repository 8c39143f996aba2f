"""Rows in bands of about equal ability, and the best that a band could do."""

from collections.abc import Sequence
from itertools import pairwise
from math import exp

from msgspec import Struct

from llmr.core.quality.ability import EVEN, Skill
from llmr.core.quality.curve import Curve

BANDS = 16


class Able(Struct, frozen=True):
    """A row: its position, its quality where no prompt was read, and its skill."""

    index: int
    quality: float
    skill: Skill


class Bands:
    """`of` gives the band of a row, `count` how many there are."""

    def __init__(self, rows: Sequence[Able], count: int = BANDS) -> None:
        ordered = sorted(rows, key=lambda row: row.skill[0])
        share = len(ordered) / count
        cuts = [round(share * n) for n in range(count + 1)]
        bands = [ordered[a:b] for a, b in pairwise(cuts)]
        self.count = count
        self.of = {row.index: n for n, band in enumerate(bands) for row in band}
        self._quality = [max((row.quality for row in band), default=0.0) for band in bands]
        self._skill = [_most([row.skill for row in band]) for band in bands]

    def best(self, curve: Curve | None) -> list[float]:
        """What no row of each band exceeds in quality for a prompt with this curve."""
        if curve is None:
            return self._quality
        base, slope = curve.base, curve.slope
        (one, first), (two, second), (three, third) = curve.kinds
        return [  # `Curve.quality`, written out
            1.0
            / (
                1.0
                + exp(
                    -base
                    - slope * overall
                    - first * kinds[one]
                    - second * kinds[two]
                    - third * kinds[three]
                )
            )
            for overall, kinds in self._skill
        ]


def _most(skills: Sequence[Skill]) -> Skill:
    if not skills:
        return 0.0, EVEN
    by_kind = zip(*(kinds for _, kinds in skills), strict=True)
    return max(overall for overall, _ in skills), tuple(max(column) for column in by_kind)
