"""What one send is billed, as far as that is known when it is over."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from llmr.core import price
from llmr.core.look import Now
from llmr.execution.types import Attempt

NOTHING = Decimal(0)
# How attempts end that may have been billed although no usage came; any other was refused, or was
# never sent.
CUT_OFF = frozenset(
    (
        *("ok", "cut", "timeout", "deadline", "reset", "invalid_answer", "departed"),
        *("client_closed", "internal_error", "running", "outrun"),
    )
)


def cost_of(attempt: Attempt, wall: float) -> tuple[Decimal | None, str]:
    """(USD, source): what the upstream reported, else what its prices say, else unknown."""
    usage = attempt.usage
    if usage is None:
        # Providers bill neither refusals nor what was never sent; of silence nobody can tell.
        refused = attempt.status is not None and attempt.status >= 300
        free = refused or attempt.outcome not in CUT_OFF
        return (NOTHING, "free") if free else (None, "unknown")
    reported = price.amount(usage.get("cost"))
    if reported is not None:
        details = usage.get("cost_details")
        if usage.get("is_byok") and isinstance(details, dict):
            reported += price.amount(details.get("upstream_inference_cost")) or Decimal(0)
        return reported, "reported"
    prices = attempt.row.prices
    base = prices.base
    if prices.overrides:
        hhmm, day, _ = Now(0.0, wall).utc()
        base = prices.at(tokens_in(usage, "prompt_tokens"), hhmm, day)
    found = price.cost(base, usage)
    if found is None:
        return None, "unknown"
    return found, "estimated" if attempt.estimated else "computed"


def tokens_in(usage: Mapping[str, Any], key: str) -> int:
    """A count of a usage object; 0 where it has none that can be one."""
    value = usage.get(key)
    return value if isinstance(value, int) and value > 0 else 0
