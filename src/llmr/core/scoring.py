"""What one request would cost and how fast it would be on one model, and what that is worth.

    score = w_latency · (1 − norm_latency) + w_cost · (1 − norm_cost) + w_quality · quality

    norm_latency = ln(t / 0.1 s) / ln 1000        norm_cost = ln(max(c, 1 µUSD) / 1 µUSD) / ln 10⁶

Fixed constants, never clamped and never taken from the other candidates: a ratio of two counts the
same everywhere, so adding a model cannot reorder the rest.
"""

import math
from typing import NamedTuple

from llmr.core.catalogue import Model
from llmr.core.lengths import EFFORT_TOKENS, MOST_ANSWER, USUAL_THOUGHT
from llmr.core.request import Request

LATENCY_FLOOR_S, LATENCY_SPAN = 0.1, math.log(1000.0)
COST_FLOOR_USD, COST_SPAN = 1e-6, math.log(1e6)

# However much less a model thinks than usual, this share of its first-token time stays.
LEAST_SHARE = 0.1

# For a stream the rest of the answer is read while it comes: it counts, but less.
STREAM_TAIL = 0.3


class Terms(NamedTuple):
    """One candidate's estimates and the parts of its score.

    `cost_usd` is None where a price is unknown; such a row scores as if it cost 1 USD.
    """

    score: float
    latency_score: float
    cost_score: float
    quality: float
    ttft_s: float
    total_s: float
    cost_usd: float | None


def thinking(model: Model, effort: str | None, most: float) -> tuple[float, float]:
    """(tokens thought for this request, tokens more or fewer than the first-token time counts).

    `most` bounds them: a model cannot think longer than it may write. A model that hides its
    thoughts is not known to start earlier when it thinks less than usual.
    """
    usual = usual_thinking(model)
    asked = usual if effort is None else _thought(model, effort)
    change = asked - usual
    if change < 0 and not model.thinks_aloud:
        change = 0
    return min(asked, most), min(change, most)


def first_token_s(
    model: Model,
    ttft_s: float,
    tpot_s: float,
    effort: str | None,
    most: float,
    seen_s: float | None = None,
) -> tuple[float, float]:
    """(seconds to the first content token, tokens thought before it).

    `seen_s`: what was measured at this effort, where something was.
    """
    if effort is None:
        return ttft_s, min(usual_thinking(model), most)
    thought, change = thinking(model, effort, most)
    if seen_s is not None:
        return seen_s, thought
    return max(ttft_s + change * tpot_s, LEAST_SHARE * ttft_s), thought


def usual_thinking(model: Model) -> float:
    """Tokens a model thinks when the request says nothing of it."""
    seen = model.lengths.thoughts(None)
    if seen is not None:
        return seen
    if not (model.reasoning_mandatory or model.reasoning_default):
        return 0
    return _thought(model, model.default_effort or "medium")


def _thought(model: Model, effort: str) -> float:
    seen = model.lengths.thoughts(effort)
    return EFFORT_TOKENS.get(effort, USUAL_THOUGHT) if seen is None else seen


def answer_factor(model: Model, request: Request) -> float:
    """How many times the tokens that are expected of every model alike this one writes.

    1 where a limit near to those leaves it little room to differ.
    """
    return model.lengths.answer if roomy_limit(request) else 1.0


def roomy_limit(request: Request) -> bool:
    """Whether an answer may be as long as the wordiest model makes it."""
    most = request.max_tokens
    return most is None or most * request.choices >= MOST_ANSWER * request.output_tokens


def terms(
    model: Model,
    ttft_s: float,
    tpot_s: float,
    rates: tuple[float, float, float] | None,
    request: Request,
    seen_s: float | None = None,
) -> Terms:
    """The terms of `request` on `model`.

    `rates` are USD per prompt token, per output token and per request; `seen_s` the first-token
    time that was measured at the effort asked for.
    """
    output = request.output_tokens * answer_factor(model, request)
    most = math.inf if request.max_tokens is None else request.max_tokens
    first, thought = first_token_s(model, ttft_s, tpot_s, request.effort, most, seen_s)
    tail = output * tpot_s
    felt = first + (STREAM_TAIL * tail if request.stream else tail)
    latency_score = 1.0 - math.log(felt / LATENCY_FLOOR_S) / LATENCY_SPAN
    if rates is None:
        cost, cost_score = None, 0.0
    else:
        prompt = request.prompt_tokens * model.lengths.prompt
        cost = prompt * rates[0] + (output + thought) * rates[1] + rates[2]
        over = cost if cost > COST_FLOOR_USD else COST_FLOOR_USD
        cost_score = 1.0 - math.log(over / COST_FLOOR_USD) / COST_SPAN
    quality = model.believed
    if request.curve is not None:
        quality = request.curve.quality(model.skill)
    w = request.weights
    score = w[0] * latency_score + w[1] * cost_score + w[2] * quality
    return Terms(score, latency_score, cost_score, quality, first, first + tail, cost)
