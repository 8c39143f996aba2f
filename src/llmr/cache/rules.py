"""What may be looked up, and what may be kept."""

import msgspec
from msgspec import Struct

from llmr.core.decide import Decision
from llmr.execution.types import Outcome

STORED_FINISHES = frozenset(("stop", "tool_calls", "function_call"))


class CacheRules(Struct, frozen=True):
    """What a caller's `Cache-Control` allows."""

    lookup: bool = True
    store: bool = True
    max_age_s: float | None = None


NO_RULES = CacheRules()  # of a caller who says nothing


def cache_rules(header: str | None) -> CacheRules:
    """The caller's `Cache-Control`: no-store, no-cache and max-age are obeyed."""
    if not header:
        return NO_RULES
    words = [word.strip().lower() for word in header.split(",")]
    max_age = None
    for word in words:
        name, _, value = word.partition("=")
        age = value.strip('"')
        if name == "max-age" and age.isascii() and age.isdigit():
            max_age = float(age[:12])
    store = "no-store" not in words
    lookup = store and "no-cache" not in words and max_age != 0
    return CacheRules(lookup, store, max_age)


def storable(outcome: Outcome, decision: Decision) -> bool:
    """Whether an answer may stand for the next identical request: whole, and the first choice's.

    The first of the names a caller gave is theirs, well or not; where the router chose, its choice.
    """
    auto = decision.request.mode == "auto"
    first = decision.snapshot.models[decision.chain[0] if auto else decision.first]
    if (
        outcome.error is not None
        or outcome.degraded
        or outcome.continued
        or outcome.model is not first
    ):
        return False
    completion = outcome.completion or msgspec.json.decode(outcome.body)
    choices = completion.get("choices") or ()
    return bool(choices) and all(
        choice.get("finish_reason") in STORED_FINISHES
        and not (choice.get("message") or {}).get("refusal")
        for choice in choices
    )
