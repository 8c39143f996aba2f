"""Rows to the artefact: targets, vocabulary, the two layers, whole numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sparse

from llmr.core.quality.artefact import VERSION, Artefact, Form, Group, Vocabulary, Weights
from llmr.core.quality.kinds import KINDS
from llmr.core.quality.scan import OPTIONS_STEP, SIZES, STEM
from llmr.core.quality.table import ZERO
from training import labels
from training.data import Row
from training.ease import ease_layer
from training.known import Fitted, Goal, known_layer
from training.labels import Floats
from training.matrix import STEM_SHARE, features, matrix, of_steps, vocabulary
from training.solve import classes, ridge

LEAST_PROMPTS = 4
ENTRIES = 12_000
PENALTY = 5.0
CLASS_PENALTY = 0.5
OWN_EASE = 0.02  # their ease is in their level; more would flatten what length does
OWN_GAIN = 0.5
CLIP = 99.95  # percentile of the weights of a column that the largest byte stands for


@dataclass(frozen=True)
class Targets:
    """What the heads are fitted to, with weights: prompts by (level, ease, gain, tokens)."""

    kinds: Floats
    kind_weights: Floats
    values: Floats
    weights: Floats
    benchmark: Floats

    def goal(self, words: int) -> Goal:
        """What ease is fitted to, for a vocabulary of this size."""
        return Goal(words, self.values[:, 1], self.weights[:, 1], self.benchmark)


def targets(rows: Sequence[Row]) -> Targets:
    """Targets of all rows; what nobody measured has the level and gain written beside it."""
    kinds = np.array([[row.kind == kind for kind in KINDS] for row in rows], float)
    values = np.zeros((len(rows), 4))
    weights = np.zeros((len(rows), 4))
    level = labels.levels(rows)
    benchmark = np.full(len(rows), -1.0)
    for place, (name, members) in enumerate(labels.by_benchmark(rows).items()):
        benchmark[members] = place
        scores, _ = labels.outcome_matrix([rows[number] for number in members])
        ease, ease_weight, gain, gain_weight = labels.items(scores)
        values[members, :3] = np.c_[np.full(len(members), level[name]), ease, gain]
        weights[members, :3] = np.c_[np.ones(len(members)), ease_weight, gain_weight]
    for number, row in enumerate(rows):
        if row.own:
            values[number, :3] = row.level, 0.0, row.gain
            weights[number, :3] = 1.0, OWN_EASE, OWN_GAIN
        if row.tokens:
            values[number, 3], weights[number, 3] = np.log(row.tokens), 1.0
    sizes = kinds.sum(0)
    balanced = kinds @ (np.sqrt(sizes.mean() / np.maximum(sizes, 1.0)))
    return Targets(kinds, balanced, values, weights, benchmark)


def fit(rows: Sequence[Row], form: Form, slopes: dict[str, float] | None = None) -> Artefact:
    """The artefact of these rows. Deterministic: the same rows, in order, give the same bytes."""
    found = [features(row.prompt) for row in rows]
    goal = targets(rows)
    whole = vocabulary(found, LEAST_PROMPTS)
    design = matrix(found, whole)
    kept = _kept(design, whole, _heads(design, goal, len(whole))[0])
    design = matrix(found, kept)
    known = known_layer(rows, design, goal.goal(len(kept)))
    weights, bias = _heads(design, goal, len(kept))
    usual = design @ weights + bias
    outcomes = np.array([not row.own for row in rows])
    options = np.array([one[2][OPTIONS_STEP] > 0 for one in found])
    own = usual[:, len(KINDS) + 1] + options * (usual[:, -1] - usual[:, len(KINDS) + 1])
    ease = (usual[:, len(KINDS)] + own)[outcomes]
    return Artefact(
        version=VERSION,
        kinds=list(KINDS),
        vocabulary=kept,
        heads=packed(weights, bias, kept),
        known=packed(known.weights, known.bias, kept),
        form=_centred(form, ease, usual[outcomes, len(KINDS) + 2]),
        groups=_groups(known, slopes or {}),
    )


def _heads(design: sparse.csr_array, goal: Targets, words: int) -> tuple[Floats, Floats]:
    kinds = classes(design, goal.kinds, goal.kind_weights, CLASS_PENALTY)
    values = ridge(design, goal.values, goal.weights, PENALTY)
    ease = goal.goal(words)
    form = ease_layer(design, words, ease.ease, ease.weights, ease.benchmark)
    blocks = [kinds, _column(values, 0), form, _column(values, 2), _column(values, 3)]
    blocks.append(_column(values, 1))
    return np.hstack([block[0] for block in blocks]), np.concatenate([block[1] for block in blocks])


def _column(layer: tuple[Floats, Floats], number: int) -> tuple[Floats, Floats]:
    return layer[0][:, number : number + 1], layer[1][number : number + 1]


def _kept(design: sparse.csr_array, whole: Vocabulary, weights: Floats) -> Vocabulary:
    """The entries that move the outputs most over all prompts."""
    size = len(whole)
    if size <= ENTRIES:
        return whole
    spread = np.maximum((design @ weights).std(0), 1e-9)
    often = np.asarray(design.multiply(design).sum(axis=0)).ravel()[:size]
    moves = often * ((weights[:size] / spread) ** 2).sum(1)
    chosen = np.zeros(size, bool)
    chosen[np.argsort(-moves, kind="stable")[:ENTRIES]] = True
    names = [*whole.words, *whole.stems, *whole.pairs]
    ends = np.cumsum([0, len(whole.words), len(whole.stems), len(whole.pairs)])
    lists = [[names[n] for n in range(start, end) if chosen[n]] for start, end in pairwise(ends)]
    return Vocabulary(*lists)


def packed(weights: Floats, bias: Floats, known: Vocabulary) -> Weights:
    """A layer as whole numbers, the share of its stem already added to each word."""
    folded = _folded(weights[: len(known)], known)
    rows, scales = _bytes(folded)
    counts, count_scales = _bytes(of_steps(weights[len(known) :]))
    assert len(counts) == sum(SIZES) * len(bias)
    return Weights(len(bias), rows, scales, counts, count_scales, [float(b) for b in bias])


def _folded(weights: Floats, known: Vocabulary) -> Floats:
    folded = weights.copy()
    first = len(known.words)
    folded[first : first + len(known.stems)] *= STEM_SHARE
    place = {stem: first + number for number, stem in enumerate(known.stems)}
    for number, word in enumerate(known.words):
        if word[:STEM] in place:
            folded[number] += folded[place[word[:STEM]]]
    return folded


def _bytes(values: Floats) -> tuple[bytes, list[float]]:
    """(a byte each with ZERO for zero, what one step is worth by column)."""
    top = np.maximum(np.percentile(np.abs(values), CLIP, axis=0), 1e-6)
    scales = top / (ZERO - 1)
    whole = np.clip(np.rint(values / scales), 1 - ZERO, ZERO - 1) + ZERO
    return whole.astype(np.uint8).tobytes(), [float(scale) for scale in scales]


def _centred(form: Form, ease: Floats, gain: Floats) -> Form:
    return Form(
        form.ease,
        form.gain,
        form.pivot,
        form.full_coverage,
        form.item_sd,
        float(ease.mean()),
        float(gain.mean()),
        float((form.ease * ease).var()),
    )


def _groups(known: Fitted, slopes: dict[str, float]) -> list[Group]:
    return [
        Group(name, tasks, factors, models, slopes.get(name, 1.0))
        for name, tasks, factors, models in known.groups
    ]
