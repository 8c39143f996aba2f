"""The second layer: what models that outcomes exist of do on prompts like these.

For each file of outcomes: which tasks it has, and a few factors that its models share. A model is
its mean, its mean by task, and its weight on each factor; few numbers, so that the best of many
models is not the one that was measured worst.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from training import labels
from training.data import FILES, OWN, Row
from training.ease import ease_layer
from training.labels import Floats
from training.solve import classes, ridge

FACTORS = {"mmlu_pro": 4, "routellm_mmlu": 2, "uiuc": 9, "zeroeval_math_l5": 2, "zeroeval_crux": 2}
PENALTY = {"routellm_mmlu": 16.0, "uiuc": 10.0}
USUAL_PENALTY = 4.0
CLASS_PENALTY = 0.3
TASK_PSEUDO_COUNT = 5.0
BY_TASK = ("uiuc", "routellm_mmlu")
OWN_SLOPE = {"routellm_mmlu": 1.0}  # of many models, the best on easy prompts is picked too often
RESIDUAL_SHARE = {"uiuc": 0.4}  # of what factors say beside the tasks
Span = tuple[int, int]
Block = tuple[Floats, Floats]
Models = dict[str, tuple[float, list[float], list[float]]]


@dataclass(frozen=True)
class Goal:
    """What ease is fitted to: by row its ease in logits, weight, number of its benchmark.

    `words` is how many columns of the design are the vocabulary's.
    """

    words: int
    ease: Floats
    weights: Floats
    benchmark: Floats


@dataclass(frozen=True)
class _Group:
    blocks: list[Block]
    models: Models
    tasks: int


@dataclass(frozen=True)
class Fitted:
    """Weights and bias of the layer, and what its columns are: (name, tasks, factors, models)."""

    weights: Floats
    bias: Floats
    groups: list[tuple[str, Span, Span, Models]]


def known_layer(rows: Sequence[Row], design: sparse.csr_array, goal: Goal) -> Fitted:
    """Columns: one logit for each file and the own prompts; then tasks and factors of each file."""
    names = [name for name in FILES if any(row.group == name for row in rows)]
    member = np.array([[row.group == name for name in (*names, OWN)] for row in rows], float)
    blocks = [classes(design, member, _balanced(member), CLASS_PENALTY)]
    groups = []
    column = len(names) + 1
    for number, name in enumerate(names):
        inside = member[:, number] > 0.0
        general = _from_others(design, goal, inside)
        group = _group(name, [row for row in rows if row.group == name], design[inside], general)
        blocks += group.blocks
        middle = column + group.tasks
        end = column + sum(block[0].shape[1] for block in group.blocks)
        groups.append((name, (column, middle), (middle, end), group.models))
        column = end
    weights = np.hstack([block[0] for block in blocks])
    return Fitted(weights, np.concatenate([block[1] for block in blocks]), groups)


def _balanced(member: Floats) -> Floats:
    """Weights that make every class as large, so that a router may set their sizes itself."""
    sizes = member.sum(0)
    return np.asarray(member @ (sizes.mean() / sizes))


def _from_others(design: sparse.csr_array, goal: Goal, inside: NDArray[np.bool_]) -> Block:
    """Ease as everything outside a group tells it: what its own models are fitted beside."""
    weights = np.where(inside, 0.0, goal.weights)
    layer, _ = ease_layer(design, goal.words, goal.ease, weights, goal.benchmark)
    return layer, -np.mean(design[inside] @ layer, axis=0)


def _group(name: str, rows: list[Row], design: sparse.csr_array, general: Block) -> _Group:
    scores, models = labels.outcome_matrix(rows)
    means = np.nanmean(scores, axis=0)
    left = np.nan_to_num(scores - means)
    ease = design @ general[0] + general[1]
    slopes = ease.T @ left / (ease.T @ ease)
    common = slopes.mean()
    slopes = common + OWN_SLOPE.get(name, 0.0) * (slopes - common)
    left = left - ease @ slopes
    blocks: list[Block] = []
    tables = np.zeros((0, len(models)))
    if name in BY_TASK:
        tasks = sorted({row.task for row in rows})
        member = np.array([[row.task == task for task in tasks] for row in rows], float)
        blocks.append(classes(design, member, np.ones(len(rows)), CLASS_PENALTY))
        tables = member.T @ left / (member.sum(0)[:, None] + TASK_PSEUDO_COUNT)
        left = left - member @ tables
    axes = np.linalg.svd(left, full_matrices=False)[2][: FACTORS[name]].T
    axes *= np.sign(axes.sum(0) + 1e-9)
    penalty = PENALTY.get(name, USUAL_PENALTY)
    blocks += [general, ridge(design, left @ axes, np.ones(len(rows)), penalty)]
    factors = np.hstack([slopes.T, axes * RESIDUAL_SHARE.get(name, 1.0)])
    people: Models = {
        model: (float(means[n]), [float(x) for x in tables[:, n]], [float(x) for x in factors[n]])
        for n, model in enumerate(models)
    }
    return _Group(blocks, people, len(tables))
