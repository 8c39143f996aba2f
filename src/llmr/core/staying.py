"""A conversation stays where it was answered last, unless moving clearly pays.

What a provider has cached of it costs less to read again there, which counts in the score; whoever
moves pays for all of it anew.
"""

from math import log

from msgspec import Struct

from llmr.core.look import Look
from llmr.core.scoring import COST_FLOOR_USD, COST_SPAN

MARGIN = 0.01  # of the score: a gain of less is no reason to move


class Stay(Struct, frozen=True):
    """Where a conversation was answered last: at which target, and how much may be cached there."""

    target: str
    cached_tokens: int = 0


def staying(look: Look, order: tuple[int, ...], stay: Stay) -> int | None:
    """The row that a conversation stays at, None where it has to move or moving clearly pays."""
    index = _row(look, stay.target)
    if index is None or index == order[0]:
        return index
    if look.snapshot.models[index].barred is not None or look.why_not(index) is not None:
        return None
    if look.resting(look.snapshot.models[index]) is not None:
        return None
    score = look.terms(index).score + saved(look, index, stay.cached_tokens)
    return index if score + MARGIN >= look.terms(order[0]).score else None


def saved(look: Look, index: int, cached_tokens: int) -> float:
    """What the score of a row gains by what its provider has cached."""
    cost, rates = look.terms(index).cost_usd, look.rates[index]
    read = look.snapshot.models[index].prices.base.get("input_cache_read")
    if not cost or rates is None or read is None:
        return 0.0
    tokens = min(cached_tokens, look.request.prompt_tokens)
    less = cost - tokens * max(rates[0] - float(read), 0.0)
    before, after = max(cost, COST_FLOOR_USD), max(less, COST_FLOOR_USD)
    return look.request.weights[1] * log(before / after) / COST_SPAN


def _row(look: Look, target: str) -> int | None:
    upstream, _, name = target.partition("/")
    for index in look.snapshot.by_id.get(name, ()):
        if look.snapshot.models[index].upstream == upstream:
            return index
    return None
