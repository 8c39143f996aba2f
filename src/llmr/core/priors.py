"""How fast a model is before anything was measured here.

Recorded percentiles; where there are none, what those of its kin suggest: models of the same
author, of about the same price, that think or do not. Each of 210 left out in turn was missed by a
factor of 1.54 (first token) and 1.48 (speed) in the mean, by the median of its author by 1.74 and
1.62.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from msgspec import Struct

from llmr.core.quality.facts import Facts
from llmr.core.sourced import Figure

# Medians over all recorded pairs.
TTFT_S, TOKENS_PER_S = 1.1, 41.0

# How much a recorded model tells of another, chosen by leaving each out in turn.
SAME_AUTHOR, OTHER_KIND, ANYBODY = 100.0, 0.3, 0.02
PRICE_WIDTH = 0.7  # in logs of USD per token

Percentiles = tuple[float, float, float]


class Recorded(Struct, frozen=True):
    """Recorded percentiles [p10, p50, p90] of one model."""

    ttft_s: Percentiles
    tokens_per_s: Percentiles


UNKNOWN = Figure(TTFT_S, "estimated"), Figure(1.0 / TOKENS_PER_S, "estimated")


def latency(
    facts: Mapping[str, Facts], recorded: Mapping[str, Recorded]
) -> dict[str, tuple[Figure, Figure]]:
    """(seconds to the first token, seconds per output token) of every id."""
    kin = [
        (name, facts.get(name), math.log(row.ttft_s[1]), math.log(row.tokens_per_s[1]))
        for name, row in recorded.items()
        if not name.endswith(":free")
    ]
    slower, slacker = _free_ratios(recorded)
    out = {}
    for model_id in facts:
        if own := recorded.get(model_id):
            out[model_id] = _figures(own.ttft_s[1], own.tokens_per_s[1], "recorded")
            continue
        twin = model_id.split(":", 1)[0]
        free = model_id.endswith(":free")
        if base := recorded.get(twin):
            ttft, speed = base.ttft_s[1], base.tokens_per_s[1]
        else:
            ttft, speed = _like(model_id, facts.get(twin, facts[model_id]), kin)
        if free:
            ttft, speed = ttft * slower, speed * slacker
        out[model_id] = _figures(ttft, speed, "recorded" if base and not free else "estimated")
    return out


def _like(
    name: str, facts: Facts, kin: Sequence[tuple[str, Facts | None, float, float]]
) -> tuple[float, float]:
    """(seconds to the first token, tokens per second) of a model like its recorded kin."""
    author = name.split("/", 1)[0] + "/"
    total = first = speed = 0.0
    for other, known, log_ttft, log_speed in kin:
        weight = ANYBODY
        if known is not None and known.usd_per_mtok and facts.usd_per_mtok:
            far = math.log(known.usd_per_mtok / facts.usd_per_mtok) / PRICE_WIDTH
            weight += math.exp(-0.5 * far * far)
        if known is not None and known.reasoning != facts.reasoning:
            weight *= OTHER_KIND
        if other.startswith(author):
            weight *= SAME_AUTHOR
        total += weight
        first += weight * log_ttft
        speed += weight * log_speed
    if not total:
        return TTFT_S, TOKENS_PER_S
    return math.exp(first / total), math.exp(speed / total)


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
