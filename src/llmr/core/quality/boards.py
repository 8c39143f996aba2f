"""Published boards, put on one scale.

A board tells how models compare on what it measures, on a scale of its own. Its scores are brought
to the logits of quality by linear equating: the mean and the spread over its models become those of
the same models' general ability. Indices are re-based between dates, so of them only the order
within one snapshot counts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, pstdev

from msgspec import Struct

from llmr.core.quality.ability import logit
from llmr.core.quality.facts import Facts

# The least and the greatest place of a published order: how often a weak and a strong chat model
# of today answer an everyday prompt well. The same span in every snapshot.
QUALITY_LOW, QUALITY_HIGH = 0.30, 0.95
ELO_PER_LOGIT = 400.0 / math.log(10.0)
LEAST_MODELS = 3
INDICES = ("intelligence", "coding", "agentic")  # of Artificial Analysis

Scores = Mapping[str, float]


class Board(Struct, frozen=True):
    """A packed board: what it measures, its scale (`elo` or `percent`), its scores.

    A score is (id, figure, reasoning effort or an empty string).
    """

    name: str
    measures: str
    scale: str
    scores: tuple[tuple[str, float, str], ...]


class Source(Struct, frozen=True):
    """One source's scores by model, in logits of its own."""

    name: str
    measures: str
    scores: Scores


def sources(rows: Sequence[Facts], boards: Iterable[Board]) -> list[Source]:
    """Every source that says something of these rows, in a fixed order."""
    found = [
        Source(f"artificial_analysis_{name}", name, places(_index(rows, name))) for name in INDICES
    ]
    found += [
        Source(f"design_arena_{arena}", measures, _arena(rows, arena))
        for arena, measures in (("models", "frontend"), ("agents", "apps"))
    ]
    known = {row.base for row in rows}
    found += [Source(b.name, b.measures, _packed(b, known)) for b in boards]
    return [source for source in found if source.scores]


def equated(source: Source, ability: Scores) -> Scores:
    """The scores in logits of quality: mean and spread are those of its models' abilities."""
    shared = [(y, ability[base]) for base, y in source.scores.items()]
    if len(shared) < LEAST_MODELS:
        return {}
    own, theirs = [y for y, _ in shared], [t for _, t in shared]
    spread = pstdev(own)
    if spread <= 0.0:
        return {}
    middle, centre, scale = fmean(own), fmean(theirs), pstdev(theirs) / spread
    return {base: centre + scale * (y - middle) for base, y in source.scores.items()}


def _index(rows: Sequence[Facts], name: str) -> dict[str, float]:
    return {row.base: row.indices[name] for row in rows if name in row.indices}


def places(scores: Scores) -> Scores:
    """Scores by their place among the distinct ones, from the lowest to the highest, as logits."""
    order = sorted(set(scores.values()))
    if len(order) == 1:
        return dict.fromkeys(scores, logit((QUALITY_LOW + QUALITY_HIGH) / 2))
    span = (QUALITY_HIGH - QUALITY_LOW) / max(len(order) - 1, 1)
    place = {value: logit(QUALITY_LOW + span * at) for at, value in enumerate(order)}
    return {base: place[value] for base, value in scores.items()}


def _arena(rows: Sequence[Facts], arena: str) -> Scores:
    """Each model's mean rating over an arena's categories, with their levels taken out."""
    ratings = {
        row.base: {c: elo / ELO_PER_LOGIT for (a, c), elo in row.arenas.items() if a == arena}
        for row in rows
    }
    ratings = {base: own for base, own in ratings.items() if own}
    level: dict[str, float] = {}
    strength = {base: fmean(own.values()) for base, own in ratings.items()}
    for _ in range(3):
        above: dict[str, list[float]] = {}
        for base, own in ratings.items():
            for category, rating in own.items():
                above.setdefault(category, []).append(rating - strength[base])
        level = {category: fmean(values) for category, values in above.items()}
        strength = {
            base: fmean([rating - level[c] for c, rating in own.items()])
            for base, own in ratings.items()
        }
    return strength


def _packed(board: Board, known: set[str]) -> Scores:
    """A packed board's scores, the mean over reasoning efforts."""
    by_model: dict[str, list[float]] = {}
    for base, score, _ in board.scores:
        if base in known:
            by_model.setdefault(base, []).append(_logits(score, board.scale))
    return {base: fmean(values) for base, values in by_model.items()}


def _logits(score: float, scale: str) -> float:
    return score / ELO_PER_LOGIT if scale == "elo" else logit(min(max(score, 1.0), 99.0) / 100.0)
