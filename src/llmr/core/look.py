"""One request looking at the catalogue: the filters, and the estimates, row by row."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from llmr.core import capability, ceiling
from llmr.core.catalogue import Model, Snapshot
from llmr.core.ceiling import Moment, Worst
from llmr.core.request import Request
from llmr.core.scoring import Terms, terms
from llmr.core.telemetry import Telemetry

ANSWER_S = 600.0  # an answer is over by then
COLUMNS_KEPT = 256  # some 10 KB each

# Spread of the token estimate, measured over kinds of text and tokenizers.
MAY_NOT_FIT, SURELY_NOT = 1.3, 0.6

LIMITS = ("max_latency_ms", "max_cost_per_1k", "max_cost_usd")
INFINITE = math.inf

Rates = tuple[float, float, float]  # USD per prompt token, per output token, per request


class Policy(Struct, frozen=True):
    """What the configuration says about routing. `usable` upstreams have the key they need."""

    usable: frozenset[str]
    fallback_models: tuple[str, ...] = ()
    attempts: int = 3


class Now(Struct, frozen=True):
    """The instant of a decision: monotonic seconds for health, UTC for prices by the hour.

    `draw`, in 0..1, is the luck of a request that may try another than the best; None: it may not.
    """

    monotonic: float
    wall: float
    draw: float | None = None

    def utc(self) -> tuple[int, int, str]:
        """(HHMM, weekday with Monday = 0, ISO date)."""
        moment = datetime.fromtimestamp(self.wall, UTC)
        return moment.hour * 100 + moment.minute, moment.weekday(), moment.date().isoformat()


class Look:
    """One request looking at the rows of one snapshot: what each would cost, and why not.

    Times are read from `now` only when something depends on them.
    """

    __slots__ = ("_rates", "_utc", "now", "policy", "request", "snapshot", "spread", "telemetry")

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
        self.now = now
        self.spread = SURELY_NOT
        self._utc: tuple[int, int, str] | None = None
        self._rates: list[Rates | None] | None = None

    @property
    def utc(self) -> tuple[int, int, str]:
        """(HHMM, weekday with Monday = 0, ISO date) of this moment."""
        if self._utc is None:
            self._utc = self.now.utc()
        return self._utc

    @property
    def limited(self) -> bool:
        """Whether the caller set a limit on latency or cost."""
        return any(getattr(self.request, name) is not None for name in LIMITS)

    @property
    def regime(self) -> tuple[int, int, int]:
        """Which stretch between the sizes and hours at which prices change this request lies in."""
        sizes, times = self.snapshot.price_edges
        size = bisect_left(sizes, self.request.prompt_tokens)
        if not times:
            return size, 0, 0
        hhmm, day, _ = self.utc
        return size, bisect_right(times, hhmm), day

    @property
    def rates(self) -> list[Rates | None]:
        """The rates of every row as they apply to this request; worked out once per stretch."""
        size, models = self.request.prompt_tokens, self.snapshot.models

        def work_out() -> list[Rates | None]:
            hhmm, day, _ = self.utc
            return [
                _floats(model.prices.at(size, hhmm, day)) if model.prices.known else None
                for model in models
            ]

        if self._rates is None:
            self._rates = kept(self.snapshot.columns, "rates", self.regime, work_out)
        assert self._rates is not None
        return self._rates

    def terms(self, index: int) -> Terms:
        """The terms of the request on one row."""
        telemetry = self.telemetry
        return terms(
            self.snapshot.models[index],
            telemetry.ttft_s[index],
            (telemetry.tpot_s if self.request.stream else telemetry.whole_tpot_s)[index],
            self.rates[index],
            self.request,
            telemetry.efforts.get((index, self.request.effort)) if self.request.effort else None,
        )

    def worst(self, index: int, more: int = 0) -> Worst | None:
        """What the request costs at worst on one row, with so many prompt tokens more."""
        return ceiling.worst(self.snapshot.models[index], self.request, self.moments, more)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """This moment, and a later one at which an answer would be over: prices may change."""
        if not self.snapshot.price_edges[1]:
            return ((0, 0),)
        later = Now(0.0, self.now.wall + ANSWER_S).utc()
        return self.utc[:2], later[:2]

    def least_usd(self, index: int) -> float:
        """The smallest ceiling in USD that a row can be held to; infinite where there is none."""
        bound = self.worst(index)
        return INFINITE if bound is None or bound.least is None else float(bound.least)

    def forbidden(self, index: int) -> str | None:
        """Why a row must not be sent this request though its caller named it, or None."""
        request = self.request
        missing = request.needs & capability.BINDING & ~self.snapshot.models[index].supports
        if missing:
            return "lacks " + ", ".join(capability.names(missing))
        most = request.max_cost_usd
        return "max_cost_usd" if most is not None and self.least_usd(index) > most else None

    def unfit(self, model: Model, skip: str = "") -> str | None:
        """Why a row cannot do what the request needs, or None; `skip` leaves one filter out."""
        request = self.request
        missing = request.needs & ~model.supports
        if missing and skip != "capability":
            return "lacks " + ", ".join(capability.names(missing))
        if skip != "context" and self.tokens_needed() > (model.context_length or INFINITE):
            return "context"
        if skip != "max_tokens" and (request.max_tokens or 0) > (model.max_output or INFINITE):
            return "max_tokens"
        if request.effort == "none" and model.reasoning_mandatory and skip != "reasoning":
            return "reasoning_mandatory"
        if model.expires is not None and model.expires <= self.utc[2]:
            return "expired"
        if model.upstream not in self.policy.usable:
            return "no_key"
        return None

    def tokens_needed(self) -> float:
        """Tokens a context window must hold, at the spread of the estimate now in force."""
        room = (self.request.max_tokens or 0) if self.spread > 1.0 else 0
        return self.request.prompt_tokens * self.spread + room

    def over_limit(self, index: int, found: Terms, skip: str = "") -> str | None:
        """The limit of the caller that a row exceeds, or None."""
        request = self.request
        for name, limit in (
            ("max_latency_ms", request.max_latency_ms),
            ("max_cost_per_1k", request.max_cost_per_1k),
            ("max_cost_usd", request.max_cost_usd),
        ):
            if limit is not None and name != skip and self._measured(name, index, found) > limit:
                return name
        return None

    def _measured(self, name: str, index: int, found: Terms) -> float:
        """What a limit of the caller is held against."""
        if name == "max_latency_ms":
            return found.ttft_s * 1000.0
        return self.usd_per_1k(index) if name == "max_cost_per_1k" else self.least_usd(index)

    def usd_per_1k(self, index: int) -> float:
        """Prompt plus completion price of 1,000 tokens each; infinite where it is unknown."""
        rates = self.rates[index]
        return INFINITE if rates is None else (rates[0] + rates[1]) * 1000.0

    def why_not(self, index: int, skip: str = "") -> str | None:
        """The reason that excludes a row, with one filter left out."""
        reason = self.unfit(self.snapshot.models[index], skip)
        return reason or self.over_limit(index, self.terms(index), skip)

    def resting(self, model: Model) -> str | None:
        """Why a target is to be left alone right now, or None."""
        cooling = self.telemetry.cooling
        if not cooling:
            return None
        for key in model.health_keys:
            until = cooling.get(key)
            if until is not None and until[0] > self.now.monotonic:
                return until[1]
        return None

    def rests_until(self, model: Model) -> float:
        """The monotonic instant until which a target is to be left alone."""
        cooling = self.telemetry.cooling
        return max(cooling.get(key, (0.0, ""))[0] for key in model.health_keys)


def kept(
    columns: dict[Any, Any], name: str, key: tuple[Any, ...], work_out: Callable[[], Any]
) -> Any:
    """A column of figures, kept beside what it was worked out from; so many of each name."""
    shelf = columns.get(name)
    if shelf is None:
        shelf = columns[name] = {}
    found = shelf.get(key)
    if found is None:
        if len(shelf) >= COLUMNS_KEPT:
            shelf.clear()
        found = shelf[key] = work_out()
    return found


def _floats(prices: Mapping[str, Any]) -> Rates:
    return float(prices["prompt"]), float(prices["completion"]), float(prices.get("request", 0))
