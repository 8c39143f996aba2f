"""Why nothing can be tried, in words a caller can act on. Never a silent relaxation."""

from collections.abc import Callable, Mapping, Sequence

from llmr.core import capability
from llmr.core.look import INFINITE, LIMITS, Look
from llmr.errors import ApiError, bad_request

FILTERS = (*LIMITS, "max_tokens", "context", "capability", "reasoning")


def no_key(upstreams: list[str]) -> ApiError:
    """A 503: the router has no key for the upstreams that would be needed."""
    first = upstreams[0] if upstreams else "openrouter"
    variable = "OPENROUTER_API_KEY" if first == "openrouter" else f"upstreams.{first}.api_key"
    return ApiError(
        503,
        "no_upstream_key",
        f"The router has no key for upstream {first!r}: set {variable} and restart llmr, or start "
        "it with --sandbox to try it without a key.",
    )


def unknown_model(look: Look, name: str, param: str) -> ApiError:
    """A 404 with the nearest names."""
    near = look.snapshot.nearest(name)
    hint = f" Did you mean {', '.join(near)}?" if near else " GET /v1/models lists them."
    text = f"There is no model {name[:200]!r} in the catalogue.{hint}"
    return ApiError(404, "model_not_found", text, param=param)


def forbidden(look: Look, rows: Sequence[int]) -> ApiError:
    """A 400: of the models that were named, each lacks what the caller relies on."""
    models = look.snapshot.models
    private = [i for i in rows if look.request.needs & capability.BINDING & ~models[i].supports]
    if len(private) < len(rows):
        affordable = [i for i in rows if i not in private]
        return _emptied("max_cost_usd", affordable, look)
    row = models[private[0]]
    lacking = capability.names(look.request.needs & capability.BINDING & ~row.supports)
    return bad_request("no_candidates", _not_vouched(row.id, row.upstream, lacking))


def _not_vouched(model: str, upstream: str, lacking: Sequence[str]) -> str:
    settings = [
        f"region: {name.removeprefix('region_')}" if name.startswith("region_") else f"{name}: true"
        for name in lacking
    ]
    return (
        f"{model} is served by upstream {upstream!r}, which nobody vouches for: "
        f"{', '.join(lacking)}. If it is so, set {' and '.join(settings)} for the upstream."
    )


def nothing_passed(look: Look) -> ApiError:
    """The filter that emptied the set, and the nearest value that would not have."""
    routable, models = look.snapshot.routable, look.snapshot.models
    if not routable:
        text = "No routable model is known yet. GET /health says why."
        return ApiError(503, "empty_catalogue", text, retryable=True)
    if not any(models[i].upstream in look.policy.usable for i in routable):
        return no_key(sorted({models[i].upstream for i in routable}))
    for name in FILTERS:
        rows = [i for i in routable if look.why_not(i, skip=name) is None]
        if rows:
            return _emptied(name, rows, look)
    counts: dict[str, int] = {}
    for index in routable:
        reason = look.why_not(index) or "nothing"
        counts[reason] = counts.get(reason, 0) + 1
    worst = sorted(counts.items(), key=lambda item: -item[1])
    told = "; ".join(f"{reason}: {count} models" for reason, count in worst[:5])
    return bad_request(
        "no_candidates", f"No model meets all the constraints together. Excluded by {told}."
    )


def _emptied(name: str, rows: list[int], look: Look) -> ApiError:
    """The refusal for a filter without which `rows` would have passed."""
    request, models = look.request, look.snapshot.models
    nearest: Mapping[str, Callable[[int], float]] = {
        "max_latency_ms": lambda i: look.terms(i).ttft_s * 1000.0,
        "max_cost_per_1k": look.usd_per_1k,
        "max_cost_usd": look.least_usd,
    }
    if name in nearest:
        value, index = min((nearest[name](i), i) for i in rows)
        if value == INFINITE:
            text = f"{name} cannot be kept: the price of every model that would do is unknown."
            return bad_request("no_candidates", text, name)
        text = (
            f"{name}={getattr(request, name):g} leaves no model; the nearest value that does is "
            f"{_round_up(value):g} ({models[index].id})."
        )
        return bad_request("no_candidates", text, name)
    if name == "max_tokens":
        most = max(models[i].max_output or 0 for i in rows)
        text = f"max_tokens={request.max_tokens} is more than any model gives; the most is {most}."
        return bad_request("no_candidates", text, "max_tokens")
    if name == "context":
        most = max(models[i].context_length or 0 for i in rows)
        text = (
            f"The prompt is about {request.prompt_tokens} tokens; the largest context window of a "
            f"model that meets the other constraints is {most}."
        )
        return bad_request("context_length_exceeded", text, "messages")
    if name == "reasoning":
        text = (
            "Every model that meets the other constraints always reasons: leave effort 'none' out."
        )
        return bad_request("no_candidates", text, "reasoning_effort")
    binding = request.needs & capability.BINDING
    if binding and not any(models[i].supports & binding == binding for i in rows):
        row = models[rows[0]]
        names = capability.names(binding & ~row.supports)
        return bad_request("no_candidates", _not_vouched(row.id, row.upstream, names))
    lacking = ", ".join(capability.names(request.needs))
    return bad_request(
        "no_candidates", f"No routable model supports all that the request needs: {lacking}."
    )


def _round_up(value: float) -> float:
    """The next number of four digits that is not smaller, so that using it passes."""
    rounded = float(f"{value:.4g}")
    return rounded if rounded >= value else float(f"{value * 1.0005:.4g}")
