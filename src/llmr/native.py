"""The answer of `/route` and of the library: the completion, and how it came about."""

import time
from typing import Any

import msgspec

from llmr.core.decide import Decision
from llmr.core.explain import reason, top, weights_used
from llmr.execution.types import Outcome
from llmr.ticket import Ticket

_encode = msgspec.json.encode


class _Answer(msgspec.Struct):
    """What of a completion goes into a `/route` answer, undecoded."""

    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    choices: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def native(ticket: Ticket, completion: bytes, wall: float) -> bytes:
    """The answer of `/route`: the upstream's id, choices and usage, and how it came about."""
    answer = msgspec.json.decode(completion, type=_Answer)
    out: dict[str, Any] = {"id": answer.id, "model": _model(ticket, answer)}
    out["choices"] = answer.choices
    if answer.usage is not msgspec.UNSET:
        out["usage"] = answer.usage
    out["routing_decision"] = routing_decision(ticket)
    out["latency_ms"] = round((time.monotonic() - ticket.received) * 1000, 3)
    out["cached"] = ticket.cache in ("hit", "joined")
    out["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))
    return _encode({key: value for key, value in out.items() if value is not msgspec.UNSET})


def _model(ticket: Ticket, answer: _Answer) -> Any:
    return ticket.model.id if ticket.model is not None else answer.model


def routing_decision(ticket: Ticket) -> dict[str, Any]:
    """The decision of a request as `/route` shows it."""
    assert ticket.decision is not None
    outcome = ticket.outcome if ticket.cache not in ("hit", "joined") else None
    return summarised(ticket.decision, ticket.kept.id if ticket.kept is not None else None, outcome)


def summarised(
    decision: Decision, decision_id: str | None, outcome: Outcome | None = None
) -> dict[str, Any]:
    """A decision with its top candidates, and the attempts made for it so far."""
    candidates = top(decision)
    first = candidates[0]
    return {
        "id": decision_id,
        "selected_model": decision.model.id,
        "priority": decision.request.priority,
        "weights_used": weights_used(decision.request),
        "reason": reason(decision),
        "estimated_latency_ms": first["estimated_latency_ms"],
        "estimated_cost_usd": first["estimated_cost_usd"],
        "candidates": candidates,
        "attempts": [a.shown() for a in outcome.attempts] if outcome else [],
    }
