"""The decision: which models, in which order, and why.

`decide` is a pure function of its arguments. What it returns is small; the account of every
candidate and every exclusion is worked out by `explain` from the same arguments, when asked for.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from heapq import nsmallest
from itertools import pairwise
from math import inf as INFINITE
from math import log
from typing import Any

from msgspec import Struct

from llmr.core import capability
from llmr.core.catalogue import Model, Snapshot
from llmr.core.request import Request
from llmr.core.scoring import (
    COST_FLOOR_USD,
    COST_SPAN,
    LATENCY_SPAN,
    STREAM_TAIL,
    Terms,
    first_token_s,
    terms,
    thinking,
)
from llmr.core.telemetry import Telemetry
from llmr.errors import ApiError, bad_request

RANKED = 12  # candidates kept in order; attempts are far fewer
SHOWN = 8
RANKINGS_KEPT = 2048
COLUMNS_KEPT = 256  # some 10 KB each
MAY_NOT_FIT, SURELY_NOT = (
    1.3,
    0.6,
)  # spread of the token estimate, measured over texts and tokenizers

UNPRICED = (0.0, 0.0, 1.0)  # where a price is unknown, the score takes the answer to cost 1 USD
PER_FLOOR = 1.0 / COST_FLOOR_USD
NEAR = 1e-9  # scores closer than this are compared again, exactly

LIMITS = ("max_latency_ms", "max_cost_per_1k", "max_cost_usd")


class Policy(Struct, frozen=True):
    """What the configuration says about routing. `usable` upstreams have the key they need."""

    usable: frozenset[str]
    fallback_models: tuple[str, ...] = ()
    attempts: int = 3


class Now(Struct, frozen=True):
    """The instant of a decision: monotonic seconds for health, UTC for prices by the hour."""

    monotonic: float
    wall: float

    def utc(self) -> tuple[int, int, str]:
        """(HHMM, weekday with Monday = 0, ISO date)."""
        moment = datetime.fromtimestamp(self.wall, UTC)
        return moment.hour * 100 + moment.minute, moment.weekday(), moment.date().isoformat()


class Ranking(Struct, frozen=True):
    """The best of the rows that passed the filters, best first, and how many passed."""

    order: tuple[int, ...]
    passed: int


class Decision(Struct, frozen=True):
    """Rows to try, in order, and what they were chosen by.

    `chain` is what will be tried; `ranking` is the order by score, None for a pinned model.
    The rest are the inputs, from which the decision can be worked out again to the bit.
    """

    chain: tuple[int, ...]
    ranking: Ranking | None
    request: Request
    snapshot: Snapshot
    telemetry: Telemetry
    policy: Policy
    now: Now

    @property
    def model(self) -> Model:
        """The first choice."""
        return self.snapshot.models[self.chain[0]]


def decide(
    request: Request, snapshot: Snapshot, telemetry: Telemetry, policy: Policy, now: Now
) -> Decision:
    """The models to try for `request`, best first.

    Raises an `ApiError` that says which name, filter or key is in the way where none can be tried.
    """
    if request.mode == "auto":
        ranking = rank(request, snapshot, telemetry, policy, now)
        if not ranking.order:
            raise _nothing_passed(request, snapshot, telemetry, policy, now)
        chain = _auto_chain(ranking, request, snapshot, telemetry, policy, now)
    else:
        ranking = None
        chain = _named_chain(request, snapshot, telemetry, policy, now)
    return Decision(chain, ranking, request, snapshot, telemetry, policy, now)


def rank(
    request: Request, snapshot: Snapshot, telemetry: Telemetry, policy: Policy, now: Now
) -> Ranking:
    """The rows `auto` may use, by score. Remembered for requests of the same shape."""
    key = (request, policy.usable, snapshot.version, *_stretch(snapshot, now))
    found: Ranking | None = telemetry.memo.get(key)
    if found is None:
        found = _rank(request, snapshot, telemetry, policy, now)
        if len(telemetry.memo) >= RANKINGS_KEPT:
            telemetry.memo.clear()
        telemetry.memo[key] = found
    return found


def _stretch(snapshot: Snapshot, now: Now) -> tuple[Any, ...]:
    """What of the time a ranking depends on: the day, and between which price changes it lies."""
    if not snapshot.price_edges[1]:
        return (int(now.wall // 86400),)
    hhmm, day, today = now.utc()
    return today, day, bisect_right(snapshot.price_edges[1], hhmm)


def _rank(
    request: Request, snapshot: Snapshot, telemetry: Telemetry, policy: Policy, now: Now
) -> Ranking:
    look = _Look(request, snapshot, telemetry, policy, now)
    found: list[tuple[float, int]] = []
    for spread in (MAY_NOT_FIT, SURELY_NOT):
        # In the grey zone, where the estimate cannot tell, a model is used only if none surely fits.
        look.spread = spread
        found = _score(look)
        if found:
            break
    return Ranking(tuple(_best(look, found)), len(found))


def _best(look: "_Look", found: list[tuple[float, int]]) -> list[int]:
    """The first rows in the documented order: score, then cost, then latency, then name."""
    best = nsmallest(RANKED + 1, found)
    order = [index for _, index in best]
    if any(after[0] - before[0] < NEAR for before, after in pairwise(best)):
        models = look.snapshot.models
        tied = [index for loss, index in found if loss <= best[-1][0] + NEAR]
        order = sorted(tied, key=lambda i: _order(look.terms(i), models[i].target))
    return order[:RANKED]


def _score(look: "_Look") -> list[tuple[float, int]]:
    """(−score + a constant, row) of every row that passes the filters.

    The arithmetic of `terms` and the filters of `_Look` once more, over whole lists: this is what a
    decision costs when its shape was not seen before. Tests hold the two equal.
    """
    request = look.request
    rows = look.eligible()
    by_latency, by_cost = request.weights[0] / LATENCY_SPAN, request.weights[1] / COST_SPAN
    by_quality = request.weights[2]
    columns = zip(look.log_times(rows), look.log_costs(rows), rows.quality, rows.index, strict=True)
    found = [(by_latency * t + by_cost * c - by_quality * q, i) for t, c, q, i in columns]
    limit = request.max_tokens or 0
    need = request.prompt_tokens * look.spread + limit * (look.spread > 1.0)
    if need > rows.least_window or limit > rows.least_output:
        bounds = zip(found, rows.window, rows.output, strict=True)
        found = [pair for pair, window, most in bounds if need <= window and limit <= most]
    if look.limited:
        found = [pair for pair in found if look.over_limit(pair[1], look.terms(pair[1])) is None]
    return found


class _Rows(Struct, frozen=True):
    """The figures of the rows whose abilities, upstream and dates fit, column by column."""

    key: tuple[Any, ...]
    index: tuple[int, ...]
    quality: tuple[float, ...]
    window: tuple[float, ...]
    output: tuple[float, ...]
    least_window: float
    least_output: float


def _order(found: Terms, target: str) -> tuple[float, float, float, str]:
    """Best first: score, then cost, then latency, then name."""
    cost = found.cost_usd if found.cost_usd is not None else INFINITE
    return -found.score, cost, found.total_s, target


class _Look:
    """One request looking at the rows of one snapshot."""

    __slots__ = ("day", "hhmm", "policy", "request", "snapshot", "spread", "telemetry", "today")

    def __init__(
        self,
        request: Request,
        snapshot: Snapshot,
        telemetry: Telemetry,
        policy: Policy,
        now: Now,
    ) -> None:
        self.request = request
        self.snapshot = snapshot
        self.telemetry = telemetry
        self.policy = policy
        self.hhmm, self.day, self.today = now.utc()
        self.spread = SURELY_NOT

    @property
    def limited(self) -> bool:
        return any(getattr(self.request, name) is not None for name in LIMITS)

    def eligible(self) -> _Rows:
        """The rows whose abilities, upstream and dates fit."""
        never = self.request.effort == "none"
        key = (self.snapshot.version, self.request.needs, never, self.policy.usable, self.today)
        rows: _Rows = self._column(("rows", key), lambda: self._eligible(key, never))
        return rows

    def _eligible(self, key: tuple[Any, ...], never: bool) -> _Rows:
        able = [i for i in self.snapshot.routable if self._able(self.snapshot.models[i], never)]
        models = [self.snapshot.models[i] for i in able]
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

    def _column(self, key: tuple[Any, ...], work_out: Callable[[], Any]) -> Any:
        """A column of figures, kept with the telemetry it was worked out from."""
        columns = self.telemetry.columns
        found = columns.get(key)
        if found is None:
            if len(columns) >= COLUMNS_KEPT:
                columns.clear()
            found = columns[key] = work_out()
        return found

    def _able(self, model: Model, never_reasoning: bool) -> bool:
        return not (
            self.request.needs & ~model.supports
            or (never_reasoning and model.reasoning_mandatory)
            or (model.expires is not None and model.expires <= self.today)
            or model.upstream not in self.policy.usable
        )

    def log_times(self, rows: _Rows) -> list[float]:
        """Logarithm of the felt seconds of every row; requests of one output size share it."""
        request = self.request
        effort, most = request.effort, request.max_tokens or INFINITE

        def work_out() -> list[float]:
            felt = request.output_tokens * (STREAM_TAIL if request.stream else 1.0)
            models, ttft, tpot = self.snapshot.models, self.telemetry.ttft_s, self.telemetry.tpot_s
            return [
                log(first_token_s(models[i], ttft[i], tpot[i], effort, most)[0] + felt * tpot[i])
                for i in rows.index
            ]

        key = ("times", rows.key, request.output_tokens, request.stream, effort, most)
        found: list[float] = self._column(key, work_out)
        return found

    def log_costs(self, rows: _Rows) -> list[float]:
        """Logarithm of the cost of every row over the floor; an unknown price counts as 1 USD."""
        request = self.request
        effort, most = request.effort, request.max_tokens or INFINITE
        prompt, output = request.prompt_tokens, request.output_tokens

        def work_out() -> list[float]:
            return [
                log(usd * PER_FLOOR)
                if (usd := prompt * per_in + (output + thought) * per_out + fee) > COST_FLOOR_USD
                else 0.0
                for per_in, per_out, fee, thought in self._per_row(rows, effort, most)
            ]

        key = ("costs", rows.key, prompt, output, effort, most, self.regime)
        found: list[float] = self._column(key, work_out)
        return found

    def _per_row(
        self, rows: _Rows, effort: str | None, most: float
    ) -> list[tuple[float, float, float, float]]:
        """(USD per prompt token, per output token, per request, tokens thought) of every row."""

        def work_out() -> list[tuple[float, float, float, float]]:
            models, rates = self.snapshot.models, self.all_rates
            return [
                (*(rates[i] or UNPRICED), thinking(models[i], effort, most)[0]) for i in rows.index
            ]

        found: list[tuple[float, float, float, float]] = self._column(
            ("per_row", rows.key, effort, most, self.regime), work_out
        )
        return found

    @property
    def regime(self) -> tuple[int, int, int]:
        """Which stretch between the sizes and hours at which prices change this request lies in."""
        sizes, times = self.snapshot.price_edges
        size = bisect_left(sizes, self.request.prompt_tokens)
        return (size, bisect_right(times, self.hhmm), self.day) if times else (size, 0, 0)

    @property
    def all_rates(self) -> list[tuple[float, float, float] | None]:
        """The rates of every row as they apply to this request; worked out once per stretch."""
        size, models = self.request.prompt_tokens, self.snapshot.models
        found: list[tuple[float, float, float] | None] = self._column(
            ("rates", self.snapshot.version, self.regime),
            lambda: [
                _rates(model.prices.at(size, self.hhmm, self.day)) if model.prices.known else None
                for model in models
            ],
        )
        return found

    def rates(self, index: int) -> tuple[float, float, float] | None:
        """USD per prompt token, per output token and per request, as they apply to this request."""
        return self.all_rates[index]

    def terms(self, index: int) -> Terms:
        telemetry = self.telemetry
        return terms(
            self.snapshot.models[index],
            telemetry.ttft_s[index],
            telemetry.tpot_s[index],
            self.rates(index),
            self.request,
        )

    def passes(self, index: int) -> Terms | None:
        """The terms of a row that passes every filter, else None."""
        if self.unfit(self.snapshot.models[index]) is not None:
            return None
        found = self.terms(index)
        return found if self.over_limit(index, found) is None else None

    def unfit(self, model: Model, skip: str = "") -> str | None:
        """Why a row cannot do what the request needs, or None."""
        request = self.request
        missing = request.needs & ~model.supports
        if missing and skip != "capability":
            return "lacks " + ", ".join(capability.names(missing))
        if model.context_length is not None and skip != "context":
            need = request.prompt_tokens * self.spread + (request.max_tokens or 0) * (
                self.spread > 1.0
            )
            if need > model.context_length:
                return "context"
        if request.max_tokens is not None and skip != "max_tokens":
            # A few providers publish no limit of their own; the window is the limit then.
            if model.max_output is not None and request.max_tokens > model.max_output:
                return "max_tokens"
        if request.effort == "none" and model.reasoning_mandatory and skip != "reasoning":
            return "reasoning_mandatory"
        if model.expires is not None and model.expires <= self.today:
            return "expired"
        if model.upstream not in self.policy.usable and skip != "no_key":
            return "no_key"
        return None

    def over_limit(self, index: int, found: Terms, skip: str = "") -> str | None:
        """The limit of the caller that a row exceeds, or None."""
        request = self.request
        if request.max_latency_ms is not None and skip != "max_latency_ms":
            if found.ttft_s * 1000.0 > request.max_latency_ms:
                return "max_latency_ms"
        if request.max_cost_per_1k is not None and skip != "max_cost_per_1k":
            if self.usd_per_1k(index) > request.max_cost_per_1k:
                return "max_cost_per_1k"
        if request.max_cost_usd is not None and skip != "max_cost_usd":
            if found.cost_usd is None or found.cost_usd > request.max_cost_usd:
                return "max_cost_usd"
        return None

    def usd_per_1k(self, index: int) -> float:
        """Prompt plus completion price of 1,000 tokens each; infinite where it is unknown."""
        rates = self.rates(index)
        return INFINITE if rates is None else (rates[0] + rates[1]) * 1000.0

    def why_not(self, index: int, skip: str = "") -> str | None:
        """The reason that excludes a row, with one filter left out."""
        reason = self.unfit(self.snapshot.models[index], skip)
        return reason or self.over_limit(index, self.terms(index), skip)


def _rates(prices: Mapping[str, Any]) -> tuple[float, float, float]:
    return float(prices["prompt"]), float(prices["completion"]), float(prices.get("request", 0))


def _available(model: Model, telemetry: Telemetry, now: Now) -> str | None:
    """Why a target is to be left alone right now, or None."""
    cooling = telemetry.cooling
    if not cooling:
        return None
    for key in keys_of(model):
        until = cooling.get(key)
        if until is not None and until[0] > now.monotonic:
            return until[1]
    return None


def keys_of(model: Model) -> tuple[str, ...]:
    """The names under which a target, its account and its free allowance may be cooling."""
    if model.free:
        return model.target, model.upstream, f"{model.upstream}:free"
    return model.target, model.upstream


def _auto_chain(
    ranking: Ranking,
    request: Request,
    snapshot: Snapshot,
    telemetry: Telemetry,
    policy: Policy,
    now: Now,
) -> tuple[int, ...]:
    models = snapshot.models
    order: Iterable[int] = ranking.order
    if request.preferred:
        order = dict.fromkeys([*_preferred(request, snapshot, telemetry, policy, now), *order])
    if telemetry.cooling:
        well = [i for i in order if _available(models[i], telemetry, now) is None]
        order = well or order  # with everything cooling down, trying beats refusing on principle
    order = tuple(order)
    if policy.fallback_models:
        look = _Look(request, snapshot, telemetry, policy, now)
        named = [i for name in policy.fallback_models for i in snapshot.find(name)]
        fit = [i for i in named if look.why_not(i) is None]
        order = tuple(dict.fromkeys([order[0], *fit, *order[1:]]))
    return order


def _preferred(
    request: Request, snapshot: Snapshot, telemetry: Telemetry, policy: Policy, now: Now
) -> list[int]:
    """The preferred models that pass the filters, by score."""
    look = _Look(request, snapshot, telemetry, policy, now)
    rows = []
    for name in dict.fromkeys(request.preferred):
        for index in snapshot.find(name):
            if look.why_not(index) is None:
                rows.append((_order(look.terms(index), snapshot.models[index].target), index))
    return [index for _, index in sorted(rows)]


def _named_chain(
    request: Request, snapshot: Snapshot, telemetry: Telemetry, policy: Policy, now: Now
) -> tuple[int, ...]:
    """The rows of the names asked for, in the caller's order, whatever the catalogue says of them."""
    models = snapshot.models
    chain: list[int] = []
    keyless: list[Model] = []
    missing: list[str] = []
    for name in request.models:
        rows = snapshot.find(name)
        if not rows:
            missing.append(name)
        usable = [i for i in rows if models[i].upstream in policy.usable]
        keyless += [models[i] for i in rows if models[i].upstream not in policy.usable]
        well = [i for i in usable if _available(models[i], telemetry, now) is None]
        chain += well or usable
    if chain:
        return tuple(dict.fromkeys(chain))
    if keyless:
        raise no_key(sorted({model.upstream for model in keyless}))
    name = missing[0][:200]
    near = snapshot.nearest(name)
    hint = f" Did you mean {', '.join(near)}?" if near else " GET /v1/models lists them."
    raise ApiError(
        404,
        "model_not_found",
        f"There is no model {name!r} in the catalogue.{hint}",
        param="models" if len(request.models) > 1 else "model",
    )


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


def _nothing_passed(
    request: Request, snapshot: Snapshot, telemetry: Telemetry, policy: Policy, now: Now
) -> ApiError:
    """A clear refusal that names the filter which emptied the set and the nearest value that would not."""
    models = snapshot.models
    if not snapshot.routable:
        return ApiError(
            503, "empty_catalogue", "No routable model is known yet. See /health.", retryable=True
        )
    if not any(models[i].upstream in policy.usable for i in snapshot.routable):
        return no_key(sorted({models[i].upstream for i in snapshot.routable}))
    look = _Look(request, snapshot, telemetry, policy, now)
    for name in (*LIMITS, "max_tokens", "context", "capability", "reasoning"):
        rows = [i for i in snapshot.routable if look.why_not(i, skip=name) is None]
        if rows:
            return _emptied(name, rows, look)
    counts: dict[str, int] = {}
    for index in snapshot.routable:
        reason = look.why_not(index) or "nothing"
        counts[reason] = counts.get(reason, 0) + 1
    worst = sorted(counts.items(), key=lambda item: -item[1])
    told = "; ".join(f"{reason}: {count} models" for reason, count in worst[:5])
    return bad_request(
        "no_candidates", f"No model meets all the constraints together. Excluded by {told}."
    )


def _emptied(name: str, rows: list[int], look: _Look) -> ApiError:
    """The refusal for a filter without which `rows` would have passed."""
    request, models = look.request, look.snapshot.models
    nearest: Mapping[str, Callable[[int], float]] = {
        "max_latency_ms": lambda i: look.terms(i).ttft_s * 1000.0,
        "max_cost_per_1k": look.usd_per_1k,
        "max_cost_usd": lambda i: look.terms(i).cost_usd or INFINITE,
    }
    if name in nearest:
        value, index = min((nearest[name](i), i) for i in rows)
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
    lacking = ", ".join(capability.names(request.needs))
    return bad_request(
        "no_candidates", f"No routable model supports all that the request needs: {lacking}."
    )


def _round_up(value: float) -> float:
    """The next number of four digits that is not smaller, so that using it passes."""
    rounded = float(f"{value:.4g}")
    return rounded if rounded >= value else float(f"{value * 1.0005:.4g}")


# --- the account of a decision, worked out when asked for ---


def shown(found: Terms, model: Model) -> dict[str, Any]:
    """One candidate as the outside sees it."""
    return {
        "model": model.id,
        "upstream": model.upstream,
        "latency_score": round(found.latency_score, 6),
        "cost_score": round(found.cost_score, 6),
        "quality_score": round(found.quality, 6),
        "composite_score": round(found.score, 6),
        "estimated_latency_ms": round(found.ttft_s * 1000.0, 1),
        "estimated_total_ms": round(found.total_s * 1000.0, 1),
        "estimated_cost_usd": found.cost_usd
        if found.cost_usd is None
        else round(found.cost_usd, 9),
    }


def top(decision: Decision, count: int = SHOWN) -> list[dict[str, Any]]:
    """The first candidates in the order in which they would be tried, with their terms."""
    look = _Look(
        decision.request, decision.snapshot, decision.telemetry, decision.policy, decision.now
    )
    models = decision.snapshot.models
    return [shown(look.terms(i), models[i]) for i in decision.chain[:count]]


def weights_used(request: Request) -> dict[str, float]:
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
    passed = ranking.passed if ranking else 0
    parts = " + ".join(
        f"{weight:.2f}·{name} {first[f'{name}_score']:.3f}"
        for name, weight in weights_used(request).items()
    )
    text = f"Best of {passed} for {request.priority}: {parts} = {first['composite_score']:.3f}"
    if ranking and ranking.order[0] != decision.chain[0]:
        best = decision.snapshot.models[ranking.order[0]]
        why = _available(best, decision.telemetry, decision.now)
        text += f"; {best.id} scores higher but " + (
            f"is left alone ({why})" if why else "is not preferred"
        )
    elif rest:
        text += f", ahead of {rest[0]['model']} ({rest[0]['composite_score']:.3f})"
    return text + "."


def explain(decision: Decision) -> dict[str, Any]:
    """Every candidate with its terms, every exclusion with its reason."""
    request, snapshot = decision.request, decision.snapshot
    look = _Look(request, snapshot, decision.telemetry, decision.policy, decision.now)
    candidates, excluded = [], []
    rows = range(len(snapshot.models)) if request.mode == "auto" else decision.chain
    tight = request.mode == "auto" and any(
        look_fit(look, i, MAY_NOT_FIT) for i in snapshot.routable
    )
    look.spread = MAY_NOT_FIT if tight else SURELY_NOT
    for index in rows:
        model = snapshot.models[index]
        why = model.barred or look.why_not(index) if request.mode == "auto" else None
        if why is not None:
            excluded.append({"model": model.id, "upstream": model.upstream, "reason": why})
            continue
        entry = shown(look.terms(index), model)
        resting = _available(model, decision.telemetry, decision.now)
        candidates.append(entry | {"cooling": resting} if resting else entry)
    candidates.sort(key=lambda c: -c["composite_score"])
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


def look_fit(look: _Look, index: int, spread: float) -> bool:
    """Whether a row passes every filter at that spread of the token estimate."""
    look.spread = spread
    return look.passes(index) is not None
