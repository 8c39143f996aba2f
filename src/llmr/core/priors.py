"""What to expect of a model before anything was measured here.

Quality comes from published indices, mapped by position inside one snapshot: indices are re-based
between dates, so their values do not compare, their order does. A model without a figure gets an
estimate from price, date, reasoning, the size in its name and its author's other models, with a
wider deviation. Latency comes from recorded percentiles; where there are none, from the author's
other models.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from msgspec import Struct

from llmr.core.catalogue import Figure

# Position 0 and 1 of the published order: how often a weak and a strong chat model of today
# answer an everyday prompt well. The same span in every snapshot.
QUALITY_LOW, QUALITY_HIGH = 0.30, 0.95
PUBLISHED_SD = 0.05
ESTIMATED_SD = 0.12  # never narrower without a source

# Medians over all recorded pairs.
TTFT_S, TOKENS_PER_S = 1.1, 41.0

Percentiles = tuple[float, float, float]

_SIZE = re.compile(r"(?:^|[-_/])(\d{1,5}(?:\.\d+)?)([bt])(?:[-:_]|$)")
_NEW_YEAR_2025 = 1_735_689_600
_YEAR_S = 31_557_600.0
DEAREST_USD = 1000.0  # per million tokens: above it a price says nothing of quality
NEWEST = 1.65  # years after the start of 2025

# Expected weights before any row is seen; only size has one, since few published rows are small.
_PRIOR_WEIGHTS = (0.0, 0.0, 0.0, 0.0, -0.08)
_RIDGE = 4.0


class Facts(Struct, frozen=True):
    """What is public about one model."""

    id: str
    index: float | None
    usd_per_mtok: float | None
    created: int | None
    reasoning: bool

    @property
    def author(self) -> str:
        return self.id.split("/", 1)[0]

    @property
    def base(self) -> str:
        return self.id.split(":", 1)[0]


def quality(rows: Sequence[Facts]) -> dict[str, Figure]:
    """The quality prior of every row."""
    published = {row.base: row.index for row in rows if row.index is not None}
    order = sorted(set(published.values()))
    span = max(len(order) - 1, 1)
    place = {value: position / span for position, value in enumerate(order)}
    known = {
        base: QUALITY_LOW + (QUALITY_HIGH - QUALITY_LOW) * place[value]
        for base, value in published.items()
    }
    guess = _Regression(rows, known)
    out = {}
    for row in rows:
        if row.base in known:
            out[row.id] = Figure(round(known[row.base], 4), "published", PUBLISHED_SD)
        else:
            value, sd = guess(row)
            out[row.id] = Figure(round(value, 4), "estimated", round(sd, 4))
    return out


def _features(row: Facts, base_price: Mapping[str, float]) -> list[float]:
    price = min(row.usd_per_mtok or base_price.get(row.base) or 0.05, DEAREST_USD)
    # A row without a date came with the newest part of the catalogue. Progress is not extrapolated
    # past the dates of the published rows.
    years = NEWEST if row.created is None else (row.created - _NEW_YEAR_2025) / _YEAR_S
    size = _SIZE.search(row.id.lower())
    billions = float(size[1]) * (1000.0 if size[2] == "t" else 1.0) if size else 70.0
    small = max(0.0, math.log(70.0 / billions)) if billions > 0 else 0.0
    return [
        1.0,
        math.log(price),
        min(NEWEST, max(-2.0, years)),
        1.0 if row.reasoning else 0.0,
        small,
    ]


class _Regression:
    """Ridge regression on the published rows, plus each author's shrunk mean residual."""

    def __init__(self, rows: Sequence[Facts], known: Mapping[str, float]) -> None:
        self.base_price = {
            row.base: row.usd_per_mtok for row in rows if row.usd_per_mtok and row.id == row.base
        }
        train = {row.base: row for row in rows if row.base in known and row.usd_per_mtok}
        points = [(_features(row, self.base_price), known[base]) for base, row in train.items()]
        self.weights = _least_squares(points)
        misses: dict[str, list[float]] = {}
        for (x, y), row in zip(points, train.values(), strict=True):
            misses.setdefault(row.author, []).append(y - self._line(x))
        self.author = {name: sum(m) / (len(m) + 3) for name, m in misses.items()}
        left = [m - self.author[name] for name, group in misses.items() for m in group]
        spread = math.sqrt(sum(m * m for m in left) / len(left)) if left else 0.2
        self.sd = max(ESTIMATED_SD, spread)

    def _line(self, x: Sequence[float]) -> float:
        return sum(w * v for w, v in zip(self.weights, x, strict=True))

    def __call__(self, row: Facts) -> tuple[float, float]:
        value = self._line(_features(row, self.base_price)) + self.author.get(row.author, 0.0)
        sd = self.sd if row.author in self.author else self.sd * 1.25
        return min(QUALITY_HIGH, max(0.2, value)), sd


def _least_squares(points: Sequence[tuple[list[float], float]]) -> list[float]:
    """Weights of a ridge regression, by elimination: five unknowns need no library."""
    size = 5
    if not points:
        return [0.6] + [0.0] * (size - 1)
    a = [[sum(x[i] * x[j] for x, _ in points) for j in range(size)] for i in range(size)]
    b = [sum(x[i] * y for x, y in points) for i in range(size)]
    for i in range(1, size):
        a[i][i] += _RIDGE
        b[i] += _RIDGE * _PRIOR_WEIGHTS[i]
    for i in range(size):
        for j in range(i + 1, size):
            factor = a[j][i] / a[i][i]
            a[j] = [v - factor * w for v, w in zip(a[j], a[i], strict=True)]
            b[j] -= factor * b[i]
    out = [0.0] * size
    for i in reversed(range(size)):
        out[i] = (b[i] - sum(a[i][j] * out[j] for j in range(i + 1, size))) / a[i][i]
    return out


class Recorded(Struct, frozen=True):
    """Recorded percentiles [p10, p50, p90] of one model."""

    ttft_s: Percentiles
    tokens_per_s: Percentiles


def latency(
    ids: Iterable[str], recorded: Mapping[str, Recorded]
) -> dict[str, tuple[Figure, Figure]]:
    """(seconds to the first token, seconds per output token) of every id."""
    by_author: dict[str, list[Recorded]] = {}
    for model_id, row in recorded.items():
        if not model_id.endswith(":free"):
            by_author.setdefault(model_id.split("/", 1)[0], []).append(row)
    slower, slacker = _free_ratios(recorded)
    out = {}
    for model_id in ids:
        if own := recorded.get(model_id):
            out[model_id] = _figures(own.ttft_s[1], own.tokens_per_s[1], "recorded")
            continue
        base = recorded.get(model_id.split(":", 1)[0])
        peers = [base] if base else by_author.get(model_id.split("/", 1)[0], [])
        ttft = median([p.ttft_s[1] for p in peers]) if peers else TTFT_S
        speed = median([p.tokens_per_s[1] for p in peers]) if peers else TOKENS_PER_S
        free = model_id.endswith(":free")
        if free:
            ttft, speed = ttft * slower, speed * slacker
        out[model_id] = _figures(ttft, speed, "recorded" if base and not free else "estimated")
    return out


def _free_ratios(recorded: Mapping[str, Recorded]) -> tuple[float, float]:
    """How many times later free rows start than their paid twins, and the speed they keep."""
    pairs = [
        (row, twin)
        for model_id, row in recorded.items()
        if model_id.endswith(":free") and (twin := recorded.get(model_id[: -len(":free")]))
    ]
    if not pairs:
        return 1.0, 1.0
    return (
        median([row.ttft_s[1] / twin.ttft_s[1] for row, twin in pairs]),
        median([row.tokens_per_s[1] / twin.tokens_per_s[1] for row, twin in pairs]),
    )


def _figures(ttft_s: float, tokens_per_s: float, source: str) -> tuple[Figure, Figure]:
    return Figure(round(ttft_s, 4), source), Figure(1.0 / tokens_per_s, source)
