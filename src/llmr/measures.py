"""Measures of a quality predictor, as the papers define them. Plain lists, no dependency.

Outcomes and predictions are lists by prompt; where there are several models, each entry maps a
model to a number in 0..1.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from random import Random

Table = Sequence[Mapping[str, float]]
BINS = 10
RESAMPLES = 200
LEVEL = 0.95
WILLINGNESS = [0.0, *(10.0 ** (step / 4.0) for step in range(-12, 13))]


def recovered(
    scores: Sequence[float], strong: Sequence[float], weak: Sequence[float]
) -> list[float]:
    """Share of the gap between two models that is got back, by prompts sent to the strong one.

    The prompts with the highest scores go first; of equal scores, those that come first. Where the
    two are equally good there is no gap: each share is that of the prompts.
    """
    order = sorted(range(len(scores)), key=lambda n: -scores[n])
    gap = sum(strong) - sum(weak)
    if not gap:
        return [n / max(len(order), 1) for n in range(len(order) + 1)]
    total, shares = 0.0, [0.0]
    for n in order:
        total += strong[n] - weak[n]
        shares.append(total / gap)
    return shares


def apgr(scores: Sequence[float], strong: Sequence[float], weak: Sequence[float]) -> float:
    """Mean performance gap recovered over all shares of strong calls (RouteLLM); random is 0.5."""
    shares = recovered(scores, strong, weak)
    return (sum(shares) - (shares[0] + shares[-1]) / 2.0) / (len(shares) - 1)


def cpt(
    share: float, scores: Sequence[float], strong: Sequence[float], weak: Sequence[float]
) -> float:
    """Percent of calls the strong model must have for `share` of the gap (RouteLLM's CPT)."""
    shares = recovered(scores, strong, weak)
    first = next(n for n, value in enumerate(shares) if value >= share - 1e-12)
    return 100.0 * first / (len(shares) - 1)


def auc(scores: Sequence[float], good: Sequence[float]) -> float:
    """Probability that a good answer was scored above a bad one; ties count half."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ordered = [scores[n] for n in order]
    ranks = positives = 0.0
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and ordered[end] == ordered[start]:
            end += 1
        hits = sum(1.0 for n in order[start:end] if good[n] > 0.5)
        ranks += hits * (start + end + 1) / 2.0
        positives += hits
        start = end
    negatives = len(order) - positives
    if not positives or not negatives:
        return 0.5
    return (ranks - positives * (positives + 1.0) / 2.0) / (positives * negatives)


def brier(scores: Sequence[float], good: Sequence[float]) -> float:
    """Mean squared miss."""
    return sum((s - g) ** 2 for s, g in zip(scores, good, strict=True)) / len(scores)


def ece(scores: Sequence[float], good: Sequence[float]) -> float:
    """Expected calibration error over ten bins of equal width."""
    sums = [[0.0, 0.0, 0.0] for _ in range(BINS)]
    for score, value in zip(scores, good, strict=True):
        cell = sums[min(int(score * BINS), BINS - 1)]
        cell[0] += score
        cell[1] += value
    return sum(abs(said - was) for said, was, _ in sums) / len(scores)


def pairs(predicted: Table, outcomes: Table) -> tuple[list[float], list[float]]:
    """(predictions, outcomes) of every prompt and model that there is an outcome of."""
    said, was = [], []
    for row, truth in zip(predicted, outcomes, strict=True):
        for model, value in truth.items():
            if model in row:
                said.append(row[model])
                was.append(value)
    return said, was


def routed(predicted: Table, outcomes: Table) -> list[float]:
    """Quality of the model with the highest prediction, by prompt; of equal ones the first name."""
    return [
        truth[min(truth, key=lambda model: (-row[model], model))]
        for row, truth in zip(predicted, outcomes, strict=True)
    ]


def best_single(outcomes: Table) -> str:
    """The model with the highest mean."""
    means = singles(outcomes)
    return max(sorted(means), key=means.__getitem__)


def singles(outcomes: Table) -> dict[str, float]:
    """Mean quality by model, over the prompts it has an outcome of."""
    found: dict[str, list[float]] = {}
    for row in outcomes:
        for model, value in row.items():
            found.setdefault(model, []).append(value)
    return {model: sum(values) / len(values) for model, values in found.items()}


def aiq(points: Sequence[tuple[float, float]], least: float, most: float) -> float:
    """Area under the upper hull of (cost, quality) points from `least` to `most`, over its width.

    A point may always be bettered by paying more: the hull does not fall (RouterBench's AIQ).
    """
    hull = _hull([*points, (most, max(quality for _, quality in points))])
    costs = [cost for cost, _ in hull]
    edges = sorted({least, most, *(cost for cost in costs if least < cost < most)})
    heights = [_height(hull, costs, edge) for edge in edges]
    area = sum(
        (b - a) * (p + q) / 2.0
        for a, b, p, q in zip(edges, edges[1:], heights, heights[1:], strict=False)
    )
    return area / (most - least)


def _hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    hull: list[tuple[float, float]] = []
    for cost, quality in sorted(points):
        if hull and hull[-1][0] == cost:
            hull.pop()
        while len(hull) > 1 and _below(hull[-2], hull[-1], (cost, quality)):
            hull.pop()
        hull.append((cost, quality))
    return hull


def _below(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def _height(hull: Sequence[tuple[float, float]], costs: Sequence[float], cost: float) -> float:
    place = bisect_left(costs, cost)
    if place == 0:
        return hull[0][1]
    if place == len(hull):
        return hull[-1][1]
    (a, p), (b, q) = hull[place - 1], hull[place]
    return p + (q - p) * (cost - a) / (b - a)


def trade_offs(
    predicted: Table, outcomes: Table, costs: Mapping[str, float]
) -> list[tuple[float, float]]:
    """(mean cost, mean quality) of the router at each willingness to pay."""
    dearest = max(costs.values())
    points = []
    for price in WILLINGNESS:
        spent = gained = 0.0
        for row, truth in zip(predicted, outcomes, strict=True):
            pick = max(sorted(truth), key=lambda m: row[m] - price * costs[m] / dearest)
            spent += costs[pick]
            gained += truth[pick]
        points.append((spent / len(outcomes), gained / len(outcomes)))
    return points


def interval(
    count: int, measure: Callable[[Sequence[int]], float], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a measure over prompt numbers."""
    draw = Random(seed)
    found = sorted(measure(draw.choices(range(count), k=count)) for _ in range(resamples))
    cut = round((1.0 - LEVEL) / 2.0 * resamples)
    return found[cut], found[-1 - cut]
