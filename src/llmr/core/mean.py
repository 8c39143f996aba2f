"""Means of what is measured again and again while it drifts, in logarithms and with time decayed.

Every call is O(1); time is a parameter, in seconds of one clock.
"""

import math

from llmr.core.sourced import Figure

RECENT_WEIGHT = 4.0  # what the hours say counts as this many samples of the last minutes
LONG_WEIGHT = 8.0  # samples of hours ago say no more of now than so many
LATE = 1.645  # standard deviations to what one in twenty exceeds
PRIOR_SPREAD = math.log(2.5) / LATE  # recorded latencies: one in twenty takes 2.5 times the middle

MINUTE_S, HOUR_S = 60.0, 3600.0
# (half-life in seconds, samples remembered), chosen in the simulator.
FAST, SLOW = (3.0 * MINUTE_S, 10.0), (6.0 * HOUR_S, 200.0)
SURPRISE = math.log(4.0)  # one sample moves a mean no further than if it were so many times off
CLIP = 3.0  # or so many deviations


class Mean:
    """A decayed mean of logarithms: after `half_life_s` without samples it counts half.

    `memory` samples are remembered at most. `log` is the mean, `square` the variance around it.
    """

    __slots__ = ("at", "half_life_s", "log", "memory", "square", "weight")

    def __init__(self, half_life_s: float, memory: float) -> None:
        self.half_life_s = half_life_s
        self.memory = memory
        self.log = 0.0
        self.square = 0.0
        self.weight = 0.0
        self.at = 0.0

    def weight_at(self, now: float) -> float:
        """How many samples it counts as."""
        gone = now - self.at
        return self.weight * math.exp2(-gone / self.half_life_s) if gone > 0.0 else self.weight

    def add(self, log: float, now: float) -> None:
        """Take the logarithm of a sample."""
        weight = self.weight_at(now) * (1.0 - 1.0 / self.memory) + 1.0
        miss = log - self.log if self.weight else 0.0
        share = 1.0 / weight
        self.log = self.log + share * miss if self.weight else log
        self.square = (1.0 - share) * (self.square + share * miss * miss)
        self.weight, self.at = weight, max(now, self.at)

    def merge(self, other: "Mean", now: float) -> None:
        """Count what another one has seen as well."""
        own, more = self.weight_at(now), other.weight_at(now)
        if not own + more:
            return
        share = more / (own + more)
        miss = other.log - self.log
        spread = (1.0 - share) * self.square + share * other.square
        self.square = spread + share * (1.0 - share) * miss * miss
        self.log += share * miss
        self.weight, self.at = min(own + more, self.memory), max(now, self.at)

    def over(
        self, log: float, spread: float, now: float, prior_weight: float
    ) -> tuple[float, float, float]:
        """(mean log, spread, weight) of this over what was expected before."""
        weight = self.weight_at(now)
        share = weight / (weight + prior_weight)
        own = math.sqrt(max(self.square, 0.0))
        return log + share * (self.log - log), spread + share * (own - spread), weight


class Estimate:
    """A quantity that drifts: what it has been for hours, and what it is these minutes.

    The last minutes count before the hours, these before the prior. A sample far off counts as one
    at the edge of what was to be expected: one slow answer does not undo a hundred quick ones.
    """

    __slots__ = ("count", "fast", "slow")

    def __init__(self) -> None:
        self.fast = Mean(*FAST)
        self.slow = Mean(*SLOW)
        self.count = 0

    def add(self, value: float, prior: Figure, now: float) -> bool:
        """Take a sample above 0; whether it was far off what was expected."""
        middle, spread, _ = self.at(prior, now)
        most = max(CLIP * spread, SURPRISE)
        miss = math.log(value) - middle
        log = middle + min(max(miss, -most), most)
        self.fast.add(log, now)
        self.slow.add(log, now)
        self.count += 1
        return abs(miss) > spread * CLIP

    def add_above(self, value: float, prior: Figure, now: float) -> bool:
        """Take a sample of which only a lower bound is known: it was given up then."""
        middle, spread, _ = self.at(prior, now)
        z = (math.log(value) - middle) / spread
        return self.add(math.exp(middle + spread * _beyond(z)), prior, now)

    def at(self, prior: Figure, now: float) -> tuple[float, float, float]:
        """(mean log, spread, doubt): the doubt is the deviation of the mean itself."""
        weight = prior.weight
        log, spread, long = self.slow.over(math.log(prior.value), PRIOR_SPREAD, now, weight)
        log, spread, short = self.fast.over(log, spread, now, RECENT_WEIGHT)
        doubt = spread / math.sqrt(weight + short + min(long, LONG_WEIGHT))
        return log, max(spread, 0.05), doubt

    def own(self, now: float) -> float | None:
        """What was seen, without the prior; None where that was nothing."""
        if not self.count:
            return None
        log, _, _ = self.fast.over(self.slow.log, 0.0, now, RECENT_WEIGHT)
        return math.exp(log)

    def merge(self, other: "Estimate", now: float) -> None:
        """Count what another one has seen as well."""
        self.fast.merge(other.fast, now)
        self.slow.merge(other.slow, now)
        self.count += other.count


def _beyond(z: float) -> float:
    """The mean of a standard normal variable, given that it is above `z`."""
    if z > 8.0:
        return z + 1.0 / z
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return density / (0.5 * math.erfc(z / math.sqrt(2.0)))
