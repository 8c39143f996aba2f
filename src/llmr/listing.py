"""Models as `/models` and `llmr models` show them."""

from collections.abc import Mapping
from typing import Any

from llmr.core import capability
from llmr.core.catalogue import Model, Snapshot
from llmr.core.estimates import Seen
from llmr.core.mean import Estimate
from llmr.core.quality.kinds import KINDS
from llmr.core.sourced import Figure
from llmr.core.telemetry import Telemetry

TOTAL_TOKENS = 300


def model_rows(
    snapshot: Snapshot, telemetry: Telemetry, seen: Mapping[str, Seen], now: float
) -> list[dict[str, Any]]:
    """Every routable model with its figures and where each comes from.

    `seen`: what was seen of targets, up to `now` on the monotonic clock.
    """
    rows = snapshot.models
    return [_row(rows[i], i, telemetry, seen.get(rows[i].target), now) for i in snapshot.routable]


def _row(
    model: Model, index: int, telemetry: Telemetry, seen: Seen | None, now: float
) -> dict[str, Any]:
    ttft, tpot = telemetry.ttft_s[index], telemetry.tpot_s[index]
    measured = telemetry.measured.get(model.target, 0)
    base = model.prices.base
    return {
        "id": model.id,
        "upstream": model.upstream,
        "avg_latency_ms": round(ttft * 1000, 1),
        "avg_total_ms": round((ttft + TOTAL_TOKENS * tpot) * 1000, 1),
        "prompt_cost_per_1k": _per_1k(base.get("prompt")),
        "completion_cost_per_1k": _per_1k(base.get("completion")),
        "quality_score": model.quality.value,
        "quality_sd": model.quality.sd,
        "quality_by_kind": {kind: round(model.ability.at(i), 4) for i, kind in enumerate(KINDS)},
        "quality_sources": [*model.ability.sources, *(["feedback"] if model.learned else [])],
        "context_length": model.context_length,
        "max_output_tokens": model.max_output,
        "supports": capability.names(model.supports),
        "moderated": model.moderated,
        "uptime": model.uptime,
        "expires": model.expires,
        "sources": {
            "latency": "measured" if measured else model.ttft_s.source,
            "speed": "measured" if measured else model.tpot_s.source,
            "price": model.price_source,
            "quality": model.quality.source,
        },
        "tokens": {
            "prompt": round(model.lengths.prompt, 3),
            "prompt_late": round(model.lengths.prompt_late, 3),
            "answer": round(model.lengths.answer, 3),
            "answer_late": round(model.lengths.answer_late, 3),
            "thought": {effort or "usual": round(n) for effort, n in model.lengths.thought},
        },
        "measurements": measured,
        "first_token_s": _blend(model.ttft_s, seen.ttft if seen else None, ttft, now),
        "token_s": _blend(model.tpot_s, seen.tpot if seen else None, tpot, now),
    }


def _blend(prior: Figure, own: Estimate | None, blend: float, now: float) -> dict[str, Any]:
    """What was known before, what was seen, what is expected of the two, and how often seen."""
    found = own.own(now) if own is not None else None
    return {
        "prior": round(prior.value, 5),
        "own": found if found is None else round(found, 5),
        "blend": round(blend, 5),
        "n": own.count if own is not None else 0,
    }


def _per_1k(price: Any) -> float | None:
    return None if price is None else float(price * 1000)
