"""The order of the candidates: every row that passes the filters, by score.

What depends only on the shape of a request (its size, its output, its effort) is worked out once
and kept as columns: a request of a shape seen before costs a look-up, a new one a pass over lists.
"""

from heapq import nsmallest
from itertools import pairwise
from math import log
from typing import Any

from msgspec import Struct

from llmr.core.catalogue import Model
from llmr.core.look import INFINITE, MAY_NOT_FIT, SURELY_NOT, Look, kept
from llmr.core.scoring import (
    COST_FLOOR_USD,
    COST_SPAN,
    LATENCY_SPAN,
    STREAM_TAIL,
    Terms,
    first_token_s,
    thinking,
)

RANKED = 12  # candidates kept in order; attempts are far fewer
RANKINGS_KEPT = 2048
NEAR = 1e-9  # scores closer than this are compared again, exactly
UNPRICED = (0.0, 0.0, 1.0)  # where a price is unknown, the score takes the answer to cost 1 USD
PER_FLOOR = 1.0 / COST_FLOOR_USD


class Ranking(Struct, frozen=True):
    """The best of the rows that passed the filters, best first, and how many passed.

    `spread` is that of the token estimate at which they passed.
    """

    order: tuple[int, ...]
    passed: int
    spread: float


class _Rows(Struct, frozen=True):
    """The figures of the rows whose abilities, upstream and dates fit, column by column."""

    key: tuple[Any, ...]
    index: tuple[int, ...]
    quality: tuple[float, ...]
    window: tuple[float, ...]
    output: tuple[float, ...]
    least_window: float
    least_output: float


def rank(look: Look) -> Ranking:
    """The rows `auto` may use, by score. Remembered for requests of the same shape.

    Leaves `look` at the spread of the token estimate that the ranking was made at.
    """
    memo = look.telemetry.memo
    key = _shape(look)
    found: Ranking | None = memo.get(key)
    if found is None:
        found = _rank(look)
        if len(memo) >= RANKINGS_KEPT:
            memo.clear()
        memo[key] = found
    look.spread = found.spread
    return found


def _shape(look: Look) -> tuple[Any, ...]:
    """All of a request, and of its moment, that a ranking depends on."""
    request = look.request
    return (
        int(look.now.wall // 86400),
        look.regime if look.snapshot.price_edges[1] else None,
        request.needs,
        request.prompt_tokens,
        request.output_tokens,
        request.max_tokens,
        request.effort,
        request.stream,
        request.weights,
        request.max_latency_ms,
        request.max_cost_per_1k,
        request.max_cost_usd,
        look.policy.usable,
        look.snapshot.version,
    )


def rank_well(look: Look) -> tuple[int, ...]:
    """The best rows among those not cooling down, for when the best of all are: often none."""
    now = look.now.monotonic
    cold = tuple(sorted(key for key, (until, _) in look.telemetry.cooling.items() if until > now))

    def work_out() -> tuple[int, ...]:
        models = look.snapshot.models
        found = [pair for pair in losses(look) if look.resting(models[pair[1]]) is None]
        return tuple(_best(look, found))

    key = (*_shape(look), look.spread, cold)
    order: tuple[int, ...] = kept(look.telemetry.columns, "well", key, work_out)
    return order


def _rank(look: Look) -> Ranking:
    found: list[tuple[float, int]] = []
    for spread in (MAY_NOT_FIT, SURELY_NOT):
        # Where the token estimate cannot tell, a model is used only if none surely fits.
        look.spread = spread
        found = losses(look)
        if found:
            break
    return Ranking(tuple(_best(look, found)), len(found), look.spread)


def _best(look: Look, found: list[tuple[float, int]]) -> list[int]:
    """The first rows in the documented order."""
    best = nsmallest(RANKED + 1, found)
    order = [index for _, index in best]
    if any(after[0] - before[0] < NEAR for before, after in pairwise(best)):
        models = look.snapshot.models
        tied = [index for loss, index in found if loss <= best[-1][0] + NEAR]
        order = sorted(tied, key=lambda i: place(look.terms(i), models[i]))
    return order[:RANKED]


def place(found: Terms, model: Model) -> tuple[float, float, float, str]:
    """Sorts best first: score, then cost, then latency, then name."""
    cost = found.cost_usd if found.cost_usd is not None else INFINITE
    return -found.score, cost, found.total_s, model.target


def losses(look: Look) -> list[tuple[float, int]]:
    """(−score + a constant, row) of every row that passes the filters.

    The arithmetic of `terms` and the filters of `Look` once more, over whole lists: this is what a
    decision costs when its shape was not seen before. Tests hold the two equal.
    """
    request = look.request
    rows = _eligible(look)
    by_latency, by_cost = request.weights[0] / LATENCY_SPAN, request.weights[1] / COST_SPAN
    by_quality = request.weights[2]
    times, costs = _log_times(look, rows), _log_costs(look, rows)
    columns = zip(times, costs, rows.quality, rows.index, strict=True)
    found = [(by_latency * t + by_cost * c - by_quality * q, i) for t, c, q, i in columns]
    limit, need = request.max_tokens or 0, look.tokens_needed()
    if need > rows.least_window or limit > rows.least_output:
        bounds = zip(found, rows.window, rows.output, strict=True)
        found = [pair for pair, window, most in bounds if need <= window and limit <= most]
    if look.limited:
        found = [pair for pair in found if look.over_limit(pair[1], look.terms(pair[1])) is None]
    return found


def _eligible(look: Look) -> _Rows:
    """The rows whose abilities, upstream and dates fit."""
    request, snapshot = look.request, look.snapshot
    day = int(look.now.wall // 86400)
    key = (request.needs, request.effort == "none", look.policy.usable, day)

    def work_out() -> _Rows:
        able = [i for i in snapshot.routable if _able(look, snapshot.models[i])]
        models = [snapshot.models[i] for i in able]
        windows = tuple(m.context_length or INFINITE for m in models)
        outputs = tuple(m.max_output or INFINITE for m in models)
        return _Rows(
            key,
            tuple(able),
            tuple(m.quality.cautious for m in models),
            windows,
            outputs,
            min(windows, default=INFINITE),
            min(outputs, default=INFINITE),
        )

    rows: _Rows = kept(snapshot.columns, "rows", key, work_out)
    return rows


def _able(look: Look, model: Model) -> bool:
    """Whether a row passes the filters that do not depend on sizes and limits."""
    return not (
        look.request.needs & ~model.supports
        or (look.request.effort == "none" and model.reasoning_mandatory)
        or (model.expires is not None and model.expires <= look.utc[2])
        or model.upstream not in look.policy.usable
    )


def _log_times(look: Look, rows: _Rows) -> list[float]:
    """Logarithm of the felt seconds of every row; requests of one output size share it."""
    request, telemetry, models = look.request, look.telemetry, look.snapshot.models
    effort, most = request.effort, request.max_tokens or INFINITE

    def work_out() -> list[float]:
        felt = request.output_tokens * (STREAM_TAIL if request.stream else 1.0)
        ttft, tpot = telemetry.ttft_s, telemetry.tpot_s
        if effort is None:  # the first token comes as it does usually
            return [log(ttft[i] + felt * tpot[i]) for i in rows.index]
        return [
            log(first_token_s(models[i], ttft[i], tpot[i], effort, most)[0] + felt * tpot[i])
            for i in rows.index
        ]

    key = (rows.key, request.output_tokens, request.stream, effort, most)
    found: list[float] = kept(telemetry.columns, "times", key, work_out)
    return found


def _log_costs(look: Look, rows: _Rows) -> list[float]:
    """Logarithm of the cost of every row over the floor; an unknown price counts as 1 USD."""
    request = look.request
    effort, most = request.effort, request.max_tokens or INFINITE
    prompt, output = request.prompt_tokens, request.output_tokens

    def work_out() -> list[float]:
        return [
            log(usd * PER_FLOOR)
            if (usd := prompt * per_in + (output + thought) * per_out + fee) > COST_FLOOR_USD
            else 0.0
            for per_in, per_out, fee, thought in _per_row(look, rows, effort, most)
        ]

    key = (rows.key, prompt, output, effort, most, look.regime)
    found: list[float] = kept(look.snapshot.columns, "costs", key, work_out)
    return found


def _per_row(
    look: Look, rows: _Rows, effort: str | None, most: float
) -> list[tuple[float, float, float, float]]:
    """(USD per prompt token, per output token, per request, tokens thought) of every row."""

    def work_out() -> list[tuple[float, float, float, float]]:
        models, rates = look.snapshot.models, look.rates
        return [(*(rates[i] or UNPRICED), thinking(models[i], effort, most)[0]) for i in rows.index]

    key = (rows.key, effort, most, look.regime)
    found: list[tuple[float, float, float, float]] = kept(
        look.snapshot.columns, "per_row", key, work_out
    )
    return found
