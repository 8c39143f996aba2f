"""How fast a model is before anything was measured here.

Recorded percentiles; where there are none, those of the author's other models.
"""

from collections.abc import Iterable, Mapping
from statistics import median

from msgspec import Struct

from llmr.core.catalogue import Figure

# Medians over all recorded pairs.
TTFT_S, TOKENS_PER_S = 1.1, 41.0

Percentiles = tuple[float, float, float]


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
