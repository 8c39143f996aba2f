"""A mean of things that are measured again and again, and of which little is known at first."""

import math

PRIOR_WEIGHT = 20.0  # a prior counts as much as this many samples
MEMORY = 200.0  # samples an estimate remembers
LATE = 1.645  # standard deviations to what one in twenty exceeds
PRIOR_SPREAD = math.log(2.5) / LATE  # recorded latencies: one in twenty takes 2.5 times the middle


class Mean:
    """A decayed mean in log space: one slow answer does not undo a hundred quick ones."""

    __slots__ = ("log", "square", "weight")

    def __init__(self) -> None:
        self.log = 0.0
        self.square = 0.0
        self.weight = 0.0

    def add(self, value: float) -> None:
        log = math.log(value)
        weight = self.weight = min(self.weight + 1.0, MEMORY)
        miss = log - self.log
        self.log += miss / weight
        self.square += (miss * (log - self.log) - self.square) / weight

    def blend(self, prior: float, spread: float = PRIOR_SPREAD) -> tuple[float, float]:
        """(the mean, the value one in twenty exceeds), both shrunk towards the prior.

        `spread` is the prior standard deviation of the logarithm.
        """
        share = self.weight / (self.weight + PRIOR_WEIGHT)
        log = share * self.log + (1.0 - share) * math.log(prior)
        own = math.sqrt(max(self.square, 0.0))
        spread = share * own + (1.0 - share) * spread
        return math.exp(log), math.exp(log + LATE * spread)
