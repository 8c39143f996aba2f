"""How fast a simulated model is, request by request."""

import math
import random
from typing import NamedTuple

from llmr.sandbox.catalogue import Latency, Percentiles
from llmr.sandbox.settings import Settings

_UNKNOWN = Latency(Percentiles(1.1, 1.1, 1.1), Percentiles(41.0, 41.0, 41.0))


class Pace(NamedTuple):
    """Seconds before the first token, and between one token and the next."""

    first_s: float
    token_s: float


def draw(latency: Latency | None, model: str, attempt: int, settings: Settings) -> Pace:
    """The pace of one attempt: drawn from the record, the same for the same seed and attempt."""
    source = random.Random(f"{settings.seed}|{model}|{attempt}")
    known = latency or _UNKNOWN
    first_s = quantile(known.first_token_s, source.random())
    rate = quantile(known.tokens_per_s, source.random())
    first_s = first_s if settings.first_token_s is None else settings.first_token_s
    rate = settings.tokens_per_s or rate
    return Pace(first_s * settings.speed, settings.speed / rate)


def scenario_pace(settings: Settings) -> Pace:
    """The even pace of the `fb-` models."""
    return Pace(settings.fb_first_token_s * settings.speed, settings.fb_token_s * settings.speed)


def quantile(known: Percentiles, share: float) -> float:
    """The value at `share` (0..1): log-linear between the three points, clipped outside them."""
    share = min(max(share, 0.1), 0.9)
    if share < 0.5:
        low, high, along = known.p10, known.p50, (share - 0.1) / 0.4
    else:
        low, high, along = known.p50, known.p90, (share - 0.5) / 0.4
    return math.exp(math.log(low) * (1 - along) + math.log(high) * along)
