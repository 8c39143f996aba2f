"""Small Gaussian arithmetic: a belief over a few numbers, and what an observation does to it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

Vector = tuple[float, ...]
Loading = tuple[tuple[int, float], ...]  # (dimension, weight) of what an observation measures


class Belief(NamedTuple):
    """Mean and covariance of a few jointly Gaussian numbers."""

    mean: list[float]
    covariance: list[list[float]]


def observed(belief: Belief, loading: Loading, value: float, variance: float) -> Belief:
    """The belief after seeing `value`, a weighted sum of its numbers, off by `variance`."""
    mean, covariance = belief
    along = [sum(weight * row[at] for at, weight in loading) for row in covariance]
    total = variance + sum(weight * along[at] for at, weight in loading)
    miss = value - sum(weight * mean[at] for at, weight in loading)
    gain = [a / total for a in along]
    return Belief(
        [m + g * miss for m, g in zip(mean, gain, strict=True)],
        [
            [c - g * a for c, a in zip(row, along, strict=True)]
            for row, g in zip(covariance, gain, strict=True)
        ],
    )


def spread(belief: Belief, loading: Loading) -> float:
    """The standard deviation of a weighted sum."""
    variance = sum(u * v * belief.covariance[i][j] for i, u in loading for j, v in loading)
    return math.sqrt(max(variance, 0.0))


def ridge(points: Sequence[tuple[Vector, float]], penalty: float, towards: Vector) -> list[float]:
    """Weights of a ridge regression, by elimination; the first feature is 1 and goes free.

    `towards` are the weights expected before any point is seen.
    """
    size = len(towards)
    a = [[sum(x[i] * x[j] for x, _ in points) for j in range(size)] for i in range(size)]
    b = [sum(x[i] * y for x, y in points) for i in range(size)]
    for i in range(size):
        own = penalty if i else 1e-3
        a[i][i] += own
        b[i] += own * towards[i]
    for i in range(size):
        for j in range(i + 1, size):
            factor = a[j][i] / a[i][i]
            a[j] = [v - factor * w for v, w in zip(a[j], a[i], strict=True)]
            b[j] -= factor * b[i]
    out = [0.0] * size
    for i in reversed(range(size)):
        out[i] = (b[i] - sum(a[i][j] * out[j] for j in range(i + 1, size))) / a[i][i]
    return out
