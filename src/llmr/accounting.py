"""What a finished request cost, and its record."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from llmr.core.request import Request
from llmr.errors import ApiError, bad_request
from llmr.execution.billing import NOTHING, cost_of, tokens_in
from llmr.execution.types import Attempt, Outcome
from llmr.observe.record import Record
from llmr.ticket import Ticket

LONGEST_TAG = 64
NAMED = (b"open", b"library")  # callers without a key


def record(
    ticket: Ticket, request: Request | None, error: ApiError | None, gone: bool, now: float
) -> Record:
    """The record of a request that ended at monotonic time `now`; `gone`: its caller left."""
    outcome, model, cost = ticket.outcome, ticket.model, ticket.cost_usd
    if error is None and outcome is not None:
        error = outcome.error
    own = outcome is not None and ticket.accounts
    usage = outcome.usage if outcome is not None and own else None
    return Record(
        ticket.surface,
        _word(outcome, error, gone),
        ticket.cache,
        model.id if model is not None else None,
        model.upstream if model is not None else None,
        error.status if error is not None else 499 if gone else 200,
        request is not None and request.stream,
        now - ticket.received,
        outcome.ttft_s if outcome is not None else None,
        (ticket.sent or now) - ticket.received,
        outcome.attempts if outcome is not None and own else (),
        tokens_in(usage, "prompt_tokens") if usage else 0,
        tokens_in(usage, "completion_tokens") if usage else 0,
        cost,
        ticket.cost_source,
        error.label if error is not None else None,
        outcome.degraded if outcome is not None and own else 0,
        outcome.ignored if outcome is not None and own else 0,
        now,
        name_of(ticket.tenant),
        ticket.tag,
    )


@lru_cache(maxsize=4096)
def name_of(tenant: bytes) -> str:
    """The name of a caller in accounts: nothing of its key can be told from it."""
    return tenant.decode() if tenant in NAMED else f"key-{tenant.hex()[:12]}"


def tag_of(headers: Mapping[str, str]) -> str:
    """The tag of a request; a 400 where it is none."""
    tag = headers.get("x-llmr-tag")
    if tag is None:
        return ""
    if not 0 < len(tag) <= LONGEST_TAG or not tag.isascii() or not tag.isprintable():
        text = f"'x-llmr-tag' takes up to {LONGEST_TAG} printable ASCII characters."
        raise bad_request("invalid_tag", text, "x-llmr-tag")
    return tag


def _word(outcome: Outcome | None, error: ApiError | None, gone: bool) -> str:
    if gone:
        return "client_closed"
    if error is None:
        return "ok"
    return "cut" if outcome is not None and outcome.committed else "error"


def bill(outcome: Outcome, wall: float) -> tuple[Decimal | None, str]:
    """(USD, source) of all that was sent for an answer; each attempt is written its own.

    The source is that of the answer. None where nothing is known of it; what is not known of the
    attempts before is not in the sum, and shown with them.
    """
    for attempt in outcome.attempts:
        if attempt.cost_source in (None, "unknown"):
            attempt.cost_usd, attempt.cost_source = cost_of(attempt, wall)
    priced = [attempt for attempt in outcome.attempts if attempt.cost_usd is not None]
    answered = [attempt for attempt in outcome.attempts if attempt.outcome == "ok"]
    if not priced or (answered and answered[-1].cost_usd is None):
        return None, "unknown"
    total = sum((attempt.cost_usd or NOTHING for attempt in priced), NOTHING)
    return total, (answered or priced)[-1].cost_source or "unknown"


def told(record: Record, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """What a kept decision says of its end: kinds and counts, no words of prompt or answer."""
    return {
        "outcome": record.outcome,
        "status": record.status,
        "model": record.model,
        "cache": record.cache,
        "attempts": [{**a.shown(), "message": None} for a in attempts],
        "total_ms": round(record.total_s * 1000, 3),
        "first_token_ms": None if record.ttft_s is None else round(record.ttft_s * 1000, 3),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cost_usd": None if record.cost_usd is None else float(record.cost_usd),
        "cost_source": record.cost_source,
        "degraded": record.degraded,
        "error": record.error,
    }
