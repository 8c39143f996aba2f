"""Every row of a catalogue placed: its ability from what is public about it.

Each board's equated score is an observation of a model's small vector of abilities. Its belief
before any board is a regression on public facts, corrected by the nearest relative: the last model
of the same line that boards tell of, else the author's others. Equating needs abilities and
abilities need equated boards, so the two take turns, a fixed number of times.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from llmr.core.quality.ability import ESTIMATED_SD, PUBLISHED_SD, Ability, logit, sigmoid
from llmr.core.quality.boards import QUALITY_HIGH, Board, Source, equated, places, sources
from llmr.core.quality.expecting import Expectation, by_base
from llmr.core.quality.facts import Facts
from llmr.core.quality.gaussian import Belief, observed, spread
from llmr.core.quality.measures import (
    ADDED,
    CODE_WITH_AGENT,
    DIMENSIONS,
    MEASURES,
    NOISE,
    SPECIAL_SD,
)
from llmr.core.quality.relatives import Relatives

TURNS = 2
LEAST, LEAST_GUESS = 0.02, 0.2  # of a probability: with boards, and without
INHERITED, INHERITED_SPECIAL = 0.7, 0.6  # of a like model's residual and specialities
KIN_SD = 0.8  # a relative's residual makes the deviation this much smaller
NEVER_S = 4e9  # later than any date of a row: one without a date is of the newest
STRANGER_SD = 1.25  # an author with no known model makes it this much larger

Evidence = dict[str, list[tuple[Source, float]]]


def place(rows: Sequence[Facts], boards: Iterable[Board] = ()) -> dict[str, Ability]:
    """The ability of every row by id. The same facts give the same abilities, to the bit."""
    bases = by_base(rows)
    found = sources(rows, boards)
    anchor = _anchor(found)
    known: Mapping[str, float] = places(anchor.scores) if anchor else {}
    expectation = Expectation(bases, known)
    evidence: Evidence = {}
    beliefs: dict[str, Belief] = {}
    for _ in range(TURNS):
        general = {base: known.get(base, expectation.line(base)) for base in bases}
        evidence = _evidence(found, anchor, general)
        beliefs = _beliefs(bases, expectation, evidence)
        known = {base: beliefs[base].mean[0] for base in evidence}
        expectation = Expectation(bases, known)
    placed = {base: _ability(beliefs[base], evidence.get(base, ())) for base in bases}
    return {row.id: placed[row.base] for row in rows}


def _anchor(found: Sequence[Source]) -> Source | None:
    """The source whose scale the others are brought to: the first with many models."""
    return max(found, key=lambda s: min(len(s.scores), 20), default=None)


def _evidence(
    found: Sequence[Source], anchor: Source | None, general: Mapping[str, float]
) -> Evidence:
    """Every model's scores on the scale of quality, by source."""
    out: Evidence = {}
    for source in found:
        scores = places(source.scores) if source is anchor else equated(source, general)
        for base, score in scores.items():
            out.setdefault(base, []).append((source, score))
    return out


def _beliefs(
    bases: Mapping[str, Facts], expectation: Expectation, evidence: Evidence
) -> dict[str, Belief]:
    """The belief about every model: those with boards from the oldest on, then all others."""
    out: dict[str, Belief] = {}
    relatives = Relatives()

    def dated(base: str) -> float:
        return bases[base].created or NEVER_S

    def before(base: str) -> Belief:
        stranger = _stranger(base, bases[base], expectation)
        found = relatives.nearest(base, dated(base))
        if found is None:
            return stranger
        kin, likeness = found
        return _heir(base, kin, out[kin], stranger, expectation, likeness)

    for base in sorted(evidence, key=lambda b: (dated(b), b)):
        out[base] = before(base)
        for source, score in evidence[base]:
            loading, noise = MEASURES[source.measures], NOISE[source.measures]
            out[base] = observed(out[base], loading, score, noise**2)
        relatives.add(base, dated(base))
    return out | {base: before(base) for base in bases if base not in evidence}


def _stranger(base: str, row: Facts, expectation: Expectation) -> Belief:
    """The belief about a model without a relative of its line."""
    miss = expectation.author.get(row.author)
    sd = expectation.sd if miss is not None else expectation.sd * STRANGER_SD
    mean = [expectation.line(base) + (miss or 0.0), *(0.0 for _ in SPECIAL_SD)]
    return Belief(mean, _covariance(sd, 1.0))


def _heir(
    base: str,
    kin: str,
    of_kin: Belief,
    stranger: Belief,
    expectation: Expectation,
    likeness: float,
) -> Belief:
    """The belief about a model that is like a known one."""
    own = stranger.mean[0] - expectation.line(base)
    residual = of_kin.mean[0] - expectation.line(kin)
    passed, special = INHERITED * likeness, INHERITED_SPECIAL * likeness
    general = expectation.line(base) + passed * residual + (1.0 - passed) * own
    narrowed = 1.0 - (1.0 - KIN_SD) * likeness
    covariance = _covariance(expectation.sd * narrowed, 1.0 - special**2)
    for i in range(1, len(DIMENSIONS)):
        for j in range(1, len(DIMENSIONS)):
            covariance[i][j] += special**2 * of_kin.covariance[i][j]
    return Belief([general, *(special * m for m in of_kin.mean[1:])], covariance)


def _covariance(general_sd: float, share: float) -> list[list[float]]:
    size = len(DIMENSIONS)
    out = [[0.0] * size for _ in range(size)]
    out[0][0] = general_sd**2
    for at, sd in enumerate(SPECIAL_SD, 1):
        out[at][at] = share * sd**2
    out[1][2] = out[2][1] = share * CODE_WITH_AGENT * SPECIAL_SD[0] * SPECIAL_SD[1]
    return out


def _ability(belief: Belief, evidence: Sequence[tuple[Source, float]]) -> Ability:
    added = [sum(w * belief.mean[d] for d, w in loading) for loading in ADDED]
    level = sum(added) / len(added)
    overall = belief.mean[0] + level
    sd = math.sqrt(belief.covariance[0][0])
    ability = Ability(
        round(overall, 4),
        tuple([round(a - level, 4) for a in added]),
        sd,
        tuple([source.name for source, _ in evidence]),
        tuple([spread(belief, ((0, 1.0), *loading)) for loading in ADDED]),
    )
    return _sure(ability)


def _sure(ability: Ability) -> Ability:
    """The ability with deviations no narrower than its sources allow."""
    low, high = (LEAST, 1.0 - LEAST) if ability.sources else (LEAST_GUESS, QUALITY_HIGH)
    overall = round(min(logit(high), max(logit(low), ability.overall)), 4)
    quality = sigmoid(overall)
    least = PUBLISHED_SD if ability.sources else ESTIMATED_SD
    sd = max(ability.sd, least / (quality * (1.0 - quality)))
    more = sd**2 - ability.sd**2
    return replace(
        ability,
        overall=overall,
        sd=math.ceil(sd * 1e4) / 1e4,
        kind_sd=tuple([round(math.sqrt(own**2 + more), 4) for own in ability.kind_sd]),
    )
