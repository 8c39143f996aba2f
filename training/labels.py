"""Targets of the layers: how hard each prompt was, from the outcomes of many models at once."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data import Row

Floats = NDArray[np.float64]
SPREAD = 1.5  # how much items of one benchmark differ, in logits: what a label is shrunk by
LARGEST = 4.0
ABILITY_RIDGE = 0.5
SAME_MODEL = {
    "gpt41106preview": "gpt4turbo20240409",
    "mixtral8x7binstruct": "mixtral8x7binstructv01",
}


def outcome_matrix(rows: Sequence[Row]) -> tuple[Floats, list[str]]:
    """(scores by row and model, NaN where there is none; the models in order)."""
    models = sorted({model for row in rows for model in row.scores})
    place = {model: column for column, model in enumerate(models)}
    scores = np.full((len(rows), len(models)), np.nan)
    for number, row in enumerate(rows):
        for model, score in row.scores.items():
            scores[number, place[model]] = score
    return scores, models


def logits(shares: Floats) -> Floats:
    """Log odds, kept away from both ends."""
    kept = np.clip(shares, 0.01, 0.99)
    return np.asarray(np.log(kept / (1.0 - kept)))


def benchmark_of(row: Row) -> str:
    """What has one level of difficulty: a file, or a task where the file is a mix."""
    return f"{row.group}/{row.task}" if row.group == "uiuc" else row.group


def by_benchmark(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Row numbers by benchmark, the own prompts left out."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if not row.own:
            found[benchmark_of(row)].append(number)
    return dict(found)


def items(scores: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """(ease, its weight, gain, its weight) of each item of one benchmark, in logits.

    One Newton step of a Rasch model from the models' means; gain is the same for the slope on
    centred ability. Weights are the information of the outcomes, bounded by how items differ.
    """
    means = np.nanmean(scores, axis=0)
    seen = ~np.isnan(scores)
    missed = np.where(seen, np.nan_to_num(scores) - means, 0.0)
    information = means * (1.0 - means) * seen
    centred = logits(means) - logits(means).mean()
    ease, ease_weight = _step(missed, information)
    gain, gain_weight = _step(missed * centred, information * centred**2)
    return ease, ease_weight, gain, gain_weight


def _step(score: Floats, information: Floats) -> tuple[Floats, Floats]:
    total = information.sum(axis=1)
    step = score.sum(axis=1) / np.maximum(total, 1e-9)
    return np.clip(step, -LARGEST, LARGEST), total / (1.0 + total / SPREAD)


def levels(rows: Sequence[Row]) -> dict[str, float]:
    """Ease of each benchmark on one scale, linked by models that several of them share.

    Least squares of logit(mean) on ability + level, abilities shrunk; 0 is the mean prompt.
    """
    cells = []
    for name, members in by_benchmark(rows).items():
        scores, models = outcome_matrix([rows[number] for number in members])
        for model, value in zip(models, logits(np.nanmean(scores, axis=0)), strict=True):
            cells.append((name, _canonical(model), value))
    names = sorted({cell[0] for cell in cells})
    people = sorted({cell[1] for cell in cells})
    design = np.zeros((len(cells) + len(people), len(names) + len(people)))
    target = np.zeros(len(design))
    for number, (name, model, value) in enumerate(cells):
        design[number, names.index(name)] = design[number, len(names) + people.index(model)] = 1.0
        target[number] = value
    design[len(cells) :, len(names) :] = ABILITY_RIDGE * np.eye(len(people))
    found = np.linalg.lstsq(design, target, rcond=None)[0][: len(names)]
    sizes = np.array([len(by_benchmark(rows)[name]) for name in names])
    centre = float(found @ sizes / sizes.sum())
    return {name: float(value) - centre for name, value in zip(names, found, strict=True)}


def _canonical(model: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", model.lower())
    return SAME_MODEL.get(plain, plain)
