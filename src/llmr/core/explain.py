"""The account of a decision, worked out when asked for, from the inputs it was made of."""

from datetime import UTC, datetime
from math import hypot
from typing import Any

from llmr.core import capability
from llmr.core.catalogue import Model
from llmr.core.decide import Decision
from llmr.core.figures import roomy
from llmr.core.look import LIMITS
from llmr.core.quality.ability import EVEN
from llmr.core.quality.curve import Curve
from llmr.core.quality.kinds import KINDS
from llmr.core.ranking import place
from llmr.core.request import Request
from llmr.core.scoring import Terms

SHOWN = 8


def shown(found: Terms, model: Model, curve: Curve | None) -> dict[str, Any]:
    """One candidate as the outside sees it."""
    return {
        "model": model.id,
        "upstream": model.upstream,
        "latency_score": round(found.latency_score, 6),
        "cost_score": round(found.cost_score, 6),
        "quality_score": round(found.quality, 6),
        "quality_sd": _deviation(found.quality, model, curve),
        "composite_score": round(found.score, 6),
        "estimated_latency_ms": round(found.ttft_s * 1000.0, 1),
        "estimated_total_ms": round(found.total_s * 1000.0, 1),
        "estimated_cost_usd": found.cost_usd
        if found.cost_usd is None
        else round(found.cost_usd, 9),
    }


def _deviation(quality: float, model: Model, curve: Curve | None) -> float | None:
    if curve is None:
        return model.quality.sd
    return round(quality * (1.0 - quality) * hypot(model.ability.sd, curve.doubt), 6)


def prompt_account(curve: Curve | None) -> dict[str, Any] | None:
    """What was read off the prompt; None where it was not read.

    `difficulty` is the probability that a model which is right half of the time on the usual prompt
    is wrong on this one. `coverage` is the share of its words that training knew.
    """
    if curve is None:
        return None
    return {
        "kind": KINDS[curve.kinds[0][0]],
        "kinds": {KINDS[kind]: round(share, 3) for kind, share in curve.kinds},
        "difficulty": round(1.0 - curve.quality((0.0, EVEN)), 3),
        "coverage": round(curve.coverage, 3),
    }


def top(decision: Decision, count: int = SHOWN) -> list[dict[str, Any]]:
    """The first candidates in the order in which they would be tried, with their terms."""
    look = decision.look()
    models = decision.snapshot.models
    curve = decision.request.curve
    return [shown(look.terms(i), models[i], curve) for i in decision.chain[:count]]


def weights_used(request: Request) -> dict[str, float]:
    """The weights by name; they add up to 1."""
    return dict(zip(("latency", "cost", "quality"), request.weights, strict=True))


def reason(decision: Decision) -> str:
    """One sentence: why the first choice is the first choice."""
    model, request = decision.model, decision.request
    if request.mode == "pinned":
        return f"{model.id} was asked for by name."
    if request.mode == "list":
        return f"{model.id} is the first usable of the listed models."
    first, *rest = top(decision, 2)
    ranking = decision.ranking
    look = decision.look()
    among = "within the limits" if look.limited else f"of {roomy(look)}"
    parts = " + ".join(
        f"{weight:.2f}·{name} {first[f'{name}_score']:.3f}"
        for name, weight in weights_used(request).items()
    )
    text = f"Best {among} for {request.priority}: {parts} = {first['composite_score']:.3f}"
    if ranking and ranking.order[0] != decision.chain[0]:
        best = decision.snapshot.models[ranking.order[0]]
        why = look.resting(best)
        text += f"; {best.id} scores higher but " + (
            f"is left alone ({why})"
            if why
            else "this one is tried to learn more of it"
            if decision.trying
            else "the conversation stays where it is"
            if decision.stay is not None and decision.stay.target == model.target
            else "is not preferred"
        )
    elif rest:
        text += f", ahead of {rest[0]['model']} ({rest[0]['composite_score']:.3f})"
    read = prompt_account(request.curve)
    if read is None:
        return text + "."
    return f"{text}. The prompt reads as {read['kind']}, difficulty {read['difficulty']:.2f}."


def explain(decision: Decision) -> dict[str, Any]:
    """Every candidate with its terms, every exclusion with its reason."""
    request, snapshot = decision.request, decision.snapshot
    look = decision.look()
    placed: list[tuple[tuple[float, float, float, str], dict[str, Any]]] = []
    excluded = []
    rows = range(len(snapshot.models)) if request.mode == "auto" else decision.chain
    for index in rows:
        model = snapshot.models[index]
        why = model.barred or look.why_not(index) if request.mode == "auto" else None
        if why is not None:
            excluded.append({"model": model.id, "upstream": model.upstream, "reason": why})
            continue
        found, resting = look.terms(index), look.resting(model)
        entry = shown(found, model, request.curve)
        placed.append((place(found, model), entry | {"cooling": resting} if resting else entry))
    placed.sort(key=lambda pair: pair[0])
    candidates = [entry for _, entry in placed]
    return {
        "selected_model": decision.model.id,
        "mode": request.mode,
        "priority": request.priority,
        "weights_used": weights_used(request),
        "reason": reason(decision),
        "request": {
            "prompt_tokens": request.prompt_tokens,
            "output_tokens": request.output_tokens,
            "max_tokens": request.max_tokens,
            "needs": capability.names(request.needs),
            "effort": request.effort,
            "stream": request.stream,
            **{name: getattr(request, name) for name in (*LIMITS, "deadline_ms")},
            "preferred_models": list(request.preferred),
        },
        "prompt": prompt_account(request.curve),
        "chain": [snapshot.models[i].id for i in decision.chain[:SHOWN]],
        "candidates": candidates,
        "excluded": excluded,
        "state": {
            "snapshot": snapshot.version,
            "captured": dict(snapshot.captured),
            "telemetry": decision.telemetry.version,
            "decided_at": datetime.fromtimestamp(decision.now.wall, UTC).isoformat(),
        },
    }
