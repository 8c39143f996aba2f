"""The figures of the rows a request could go to, and what each row loses by them.

The arithmetic of `terms` and the filters of `Look` once more, over whole lists: this is what a
decision costs. Tests hold the two equal.
"""

from collections.abc import Iterable
from math import exp, log
from typing import Any

from llmr.core.catalogue import Model
from llmr.core.lengths import MOST_THOUGHT
from llmr.core.look import INFINITE, Look, kept
from llmr.core.quality.ability import Skill
from llmr.core.quality.curve import Curve
from llmr.core.request import Request
from llmr.core.scoring import (
    COST_FLOOR_USD,
    COST_SPAN,
    LATENCY_SPAN,
    STREAM_TAIL,
    answer_factor,
    first_token_s,
    roomy_limit,
    thinking,
)

UNPRICED = (0.0, 0.0, 1.0)  # where a price is unknown, the score takes the answer to cost 1 USD
PER_FLOOR = 1.0 / COST_FLOOR_USD

# Seconds to the first token and per token after it; USD per prompt token, per output token and
# besides; quality where no prompt was read, and skill where one was; the context window and the
# longest answer in tokens; the row.
Figures = tuple[float, float, float, float, float, float, Skill, float, float, int]
# The same without seconds, and first how many times the usual answer each writes.
Static = tuple[float, float, float, float, float, Skill, float, float, int]
Loss = tuple[float, int]  # (−score + a constant, row)


def figures(look: Look) -> list[Figures]:
    """Those of every row whose abilities, upstream and dates fit."""
    telemetry, effort = look.telemetry, look.request.effort
    ttft = telemetry.ttft_s
    tpot = telemetry.tpot_s if look.request.stream else telemetry.whole_tpot_s
    rows = _static(look)
    if effort is None:  # the first token comes as it does usually
        return [(ttft[row[-1]], tpot[row[-1]] * row[0], *row[1:]) for row in rows]
    return [_timed(look, row) for row in rows]


def figures_of(look: Look, index: int) -> Figures | None:
    """Those of one row, None where it does not fit."""
    row = _by_row(look).get(index)
    return None if row is None else _timed(look, row)


def losses(look: Look, rows: Iterable[Figures]) -> list[Loss]:
    """What each row loses that has room for the request, but for the caller's limits."""
    request = look.request
    need, limit = look.tokens_needed(), request.max_tokens or 0
    prompt, output = request.prompt_tokens, request.output_tokens
    if request.curve is None:
        return static(rows, request, prompt, output, need, limit)
    return _on_curve(rows, request, request.curve, need, limit)


def static(
    rows: Iterable[Figures], request: Request, prompt: int, output: int, need: float, limit: int
) -> list[Loss]:
    """What each row loses where no prompt was read, for so many tokens of prompt and answer.

    Those that have room for `need` tokens in their window, and write `limit`.
    """
    by_latency, by_cost, felt = _by(request, output)
    by_quality = request.weights[2]
    return [
        (
            by_latency * log(first + felt * rate)
            + by_cost
            * (
                log(usd * PER_FLOOR)
                if (usd := prompt * per_in + output * per_out + besides) > COST_FLOOR_USD
                else 0.0
            )
            - by_quality * quality,
            index,
        )
        for first, rate, per_in, per_out, besides, quality, _, window, most, index in rows
        if need <= window and limit <= most
    ]


def without_quality(
    rows: Iterable[Figures], request: Request, prompt: int, output: int, need: float, limit: int
) -> list[Loss]:
    """The same by time and cost alone."""
    by_latency, by_cost, felt = _by(request, output)
    return [
        (
            by_latency * log(first + felt * rate)
            + by_cost
            * (
                log(usd * PER_FLOOR)
                if (usd := prompt * per_in + output * per_out + besides) > COST_FLOOR_USD
                else 0.0
            ),
            index,
        )
        for first, rate, per_in, per_out, besides, _, _, window, most, index in rows
        if need <= window and limit <= most
    ]


def _on_curve(
    rows: Iterable[Figures], request: Request, curve: Curve, need: float, limit: int
) -> list[Loss]:
    """The same and what they lose by quality on a curve, in one go: `Curve.quality` written out."""
    by_latency, by_cost, felt = _by(request, request.output_tokens)
    by_quality = request.weights[2]
    prompt, output = request.prompt_tokens, request.output_tokens
    base, slope = curve.base, curve.slope
    (one, first_share), (two, second_share), (three, third_share) = curve.kinds
    return [
        (
            by_latency * log(first + felt * rate)
            + by_cost
            * (
                log(usd * PER_FLOOR)
                if (usd := prompt * per_in + output * per_out + besides) > COST_FLOOR_USD
                else 0.0
            )
            - by_quality
            / (
                1.0
                + exp(
                    -base
                    - slope * overall
                    - first_share * kinds[one]
                    - second_share * kinds[two]
                    - third_share * kinds[three]
                )
            ),
            index,
        )
        for first, rate, per_in, per_out, besides, _, (overall, kinds), window, most, index in rows
        if need <= window and limit <= most
    ]


def _by(request: Request, output: int) -> tuple[float, float, float]:
    """(weight of ln seconds, weight of ln USD, output tokens that are felt)."""
    felt = output * (STREAM_TAIL if request.stream else 1.0)
    return request.weights[0] / LATENCY_SPAN, request.weights[1] / COST_SPAN, felt


def roomy(look: Look) -> int:
    """How many rows pass the filters, but for the caller's limits."""
    need, limit = look.tokens_needed(), look.request.max_tokens or 0
    return sum(need <= window and limit <= most for *_, window, most, _ in _static(look))


def thought_cap(request: Request) -> int:
    """Tokens beyond which `max_tokens` does not shorten what a model thinks."""
    most = request.max_tokens
    return MOST_THOUGHT if most is None else min(most, MOST_THOUGHT)


def _timed(look: Look, row: Static) -> Figures:
    index = row[-1]
    telemetry, model, request = look.telemetry, look.snapshot.models[index], look.request
    ttft = telemetry.ttft_s[index]
    tpot = (telemetry.tpot_s if request.stream else telemetry.whole_tpot_s)[index]
    seen = telemetry.efforts.get((index, request.effort)) if request.effort else None
    first, _ = first_token_s(model, ttft, tpot, request.effort, thought_cap(request), seen)
    return (first, tpot * row[0], *row[1:])


def _key(look: Look) -> tuple[Any, ...]:
    request = look.request
    day = int(look.now.wall // 86400)
    cap, free = thought_cap(request), roomy_limit(request)
    return request.needs, request.effort, look.policy.usable, day, cap, free, look.regime


def _static(look: Look) -> list[Static]:
    def work_out() -> list[Static]:
        models, rates = look.snapshot.models, look.rates
        effort, cap = look.request.effort, thought_cap(look.request)
        found = []
        for index in look.snapshot.routable:
            model = models[index]
            if _able(look, model):
                per_in, per_out, fee = rates[index] or UNPRICED
                besides = thinking(model, effort, cap)[0] * per_out + fee
                window, most = model.context_length or INFINITE, model.max_output or INFINITE
                able = model.believed, model.skill
                factor = answer_factor(model, look.request)
                per_in *= model.lengths.prompt
                found.append(
                    (factor, per_in, per_out * factor, besides, *able, window, most, index)
                )
        return found

    rows: list[Static] = kept(look.snapshot.columns, "static", _key(look), work_out)
    return rows


def _by_row(look: Look) -> dict[int, Static]:
    def work_out() -> dict[int, Static]:
        return {row[-1]: row for row in _static(look)}

    rows: dict[int, Static] = kept(look.snapshot.columns, "by row", _key(look), work_out)
    return rows


def _able(look: Look, model: Model) -> bool:
    """Whether a row passes the filters that do not depend on sizes and limits."""
    return not (
        look.request.needs & ~model.supports
        or (look.request.effort == "none" and model.reasoning_mandatory)
        or (model.expires is not None and model.expires <= look.utc[2])
        or model.upstream not in look.policy.usable
    )
