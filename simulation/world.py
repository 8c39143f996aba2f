"""Models whose speed drifts, breaks and changes its price, while what they are worth is known.

Everything is a function of the seed. Time is in seconds; a request is one draw.
"""

import math
import random
from dataclasses import dataclass, field
from decimal import Decimal

from msgspec.structs import replace

from llmr.core.catalogue import Model, Snapshot
from llmr.core.price import Prices
from llmr.core.sourced import Figure

# Deviations in logs: of what was recorded, what was guessed, of drift, and how fast that goes.
RECORDED_BIAS, GUESSED_BIAS, DRIFT, DRIFT_HALF_S = 0.3, 0.55, 0.25, 1800.0
NOISE = 0.35  # of one answer around what its model takes on the mean
SLOW_TIMES, SLOW_EVERY_S, SLOW_FOR_S = 5.0, 20_000.0, 600.0
DOWN_EVERY_S, DOWN_FOR_S, DOWN_ANSWER_S = 60_000.0, 120.0, 0.2
REPRICED_EVERY_S, REPRICED_BY = 100_000.0, (0.5, 2.0)


@dataclass
class State:
    """How one model really is: logs of its factors, and until when it is slow or down."""

    bias: float
    rate_bias: float
    drift: float = 0.0
    at: float = 0.0
    slow_until: float = 0.0
    down_until: float = 0.0
    price: float = 1.0


@dataclass
class World:
    """The models of a snapshot as they really are. `now` moves on with `advance`."""

    rows: Snapshot
    seed: int
    now: float = 0.0
    states: list[State] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.first = self.rows.models
        self.states = [
            State(self._bias(model.ttft_s), self._bias(model.tpot_s)) for model in self.rows.models
        ]

    def _bias(self, known: Figure) -> float:
        guessed = known.source == "estimated"
        return self.rng.gauss(0.0, GUESSED_BIAS if guessed else RECORDED_BIAS)

    def advance(self, seconds: float) -> bool:
        """Let time pass; whether a price has changed."""
        self.now += seconds
        repriced = False
        for index in self.rows.routable:
            state, rng = self.states[index], self.rng
            left = math.exp2(-seconds / DRIFT_HALF_S)
            state.drift = state.drift * left + rng.gauss(0.0, DRIFT) * math.sqrt(1.0 - left * left)
            if rng.random() < seconds / SLOW_EVERY_S:
                state.slow_until = self.now + rng.expovariate(1.0 / SLOW_FOR_S)
            if rng.random() < seconds / DOWN_EVERY_S:
                state.down_until = self.now + rng.expovariate(1.0 / DOWN_FOR_S)
            if rng.random() < seconds / REPRICED_EVERY_S:
                state.price *= rng.choice(REPRICED_BY)
                repriced = True
        if repriced:
            self.rows = replace(self.rows, models=tuple(map(self._priced, range(len(self.states)))))
        return repriced

    def _priced(self, index: int) -> Model:
        model, factor = self.first[index], Decimal(repr(self.states[index].price))
        base = {name: usd * factor for name, usd in model.prices.base.items()}
        return replace(model, prices=Prices(base))

    def takes(self, index: int) -> tuple[float, float]:
        """(mean first-token time, mean time per token) of a model right now."""
        model, state = self.rows.models[index], self.states[index]
        factor = math.exp(state.bias + state.drift)
        if state.slow_until > self.now:
            factor *= SLOW_TIMES
        return model.ttft_s.value * factor, model.tpot_s.value * math.exp(state.rate_bias)

    def down(self, index: int) -> bool:
        """Whether a model fails every request right now."""
        return self.states[index].down_until > self.now

    def answer(self, index: int) -> tuple[float, float]:
        """(first-token time, time per token) of one answer."""
        first, rate = self.takes(index)
        return (
            first * math.exp(self.rng.gauss(0.0, NOISE)),
            rate * math.exp(self.rng.gauss(0.0, NOISE / 2.0)),
        )
