"""The second layer: what models that outcomes exist of do on prompts like these.

For each file of outcomes: which tasks it has, and a few factors that its models share. A model is its
mean, its mean by task, and its weight on each factor; few numbers, so that the best of many models is
not the one that was measured worst.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from training import labels
from training.data import FILES, OWN, Row
from training.labels import Floats
from training.solve import classes, ridge

FACTORS = {"mmlu_pro": 4, "routellm_mmlu": 2, "uiuc": 4, "zeroeval_math_l5": 2, "zeroeval_crux": 2}
PENALTY = {"mmlu_pro": 4.0, "routellm_mmlu": 8.0}
USUAL_PENALTY = 4.0
CLASS_PENALTY = 0.5
BY_TASK = ("uiuc",)
TASK_PSEUDO_COUNT = 2.0
RESIDUAL_SHARE = {"uiuc": 0.5}  # of what factors say beside the tasks
Span = tuple[int, int]
Models = dict[str, tuple[float, list[float], list[float]]]


@dataclass(frozen=True)
class Fitted:
    """Weights and bias of the layer, and what its columns are: (name, tasks, factors, models)."""

    weights: Floats
    bias: Floats
    groups: list[tuple[str, Span, Span, Models]]


def known_layer(rows: Sequence[Row], design: sparse.csr_array) -> Fitted:
    """Columns: one logit for each file and the own prompts; then tasks and factors of each file."""
    names = [name for name in FILES if any(row.group == name for row in rows)]
    labels_ = np.array([[row.group == name for name in (*names, OWN)] for row in rows], float)
    blocks = [classes(design, labels_, np.ones(len(rows)), CLASS_PENALTY)]
    groups = []
    column = len(names) + 1
    for name in names:
        members = [number for number, row in enumerate(rows) if row.group == name]
        found, models, tasks = _group(name, [rows[n] for n in members], design[members])
        blocks += found
        middle, end = column + tasks, column + sum(block[0].shape[1] for block in found)
        groups.append((name, (column, middle), (middle, end), models))
        column = end
    weights = np.hstack([block[0] for block in blocks])
    return Fitted(weights, np.concatenate([block[1] for block in blocks]), groups)


def _group(
    name: str, rows: list[Row], design: sparse.csr_array
) -> tuple[list[tuple[Floats, Floats]], Models, int]:
    scores, models = labels.outcome_matrix(rows)
    means = np.nanmean(scores, axis=0)
    left = np.nan_to_num(scores - means)
    blocks = []
    tables = np.zeros((0, len(models)))
    if name in BY_TASK:
        tasks = sorted({row.task for row in rows})
        member = np.array([[row.task == task for task in tasks] for row in rows], float)
        blocks.append(classes(design, member, np.ones(len(rows)), CLASS_PENALTY))
        sizes = member.sum(0)[:, None]
        tables = member.T @ left / (sizes + TASK_PSEUDO_COUNT)
        left = left - member @ tables
    axes = np.linalg.svd(left, full_matrices=False)[2][: FACTORS[name]].T
    axes *= np.sign(axes.sum(0) + 1e-9)
    penalty = PENALTY.get(name, USUAL_PENALTY)
    blocks.append(ridge(design, left @ axes, np.ones(len(rows)), penalty))
    kept = axes * RESIDUAL_SHARE.get(name, 1.0)
    people: Models = {
        model: (float(means[n]), [float(x) for x in tables[:, n]], [float(x) for x in kept[n]])
        for n, model in enumerate(models)
    }
    return blocks, people, len(tables)
