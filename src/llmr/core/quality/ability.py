"""What a model can do, as one small vector: how good it is on the whole and by kind of task."""

import math

from msgspec import Struct

from llmr.core.quality.kinds import KINDS

EVEN = (0.0,) * len(KINDS)
Skill = tuple[float, tuple[float, ...]]  # on the whole, and what each kind adds, in logits
# Deviations of a probability: never narrower without a source; never narrower with some; and the
# widest with which a figure still passes for published.
ESTIMATED_SD, PUBLISHED_SD, KNOWN_SD = 0.12, 0.05, 0.06


class Ability(Struct, frozen=True):
    """How well a model answers.

    `overall` is the logit of its mean quality, `by_kind` what each kind of `KINDS` adds to it in
    logits, `sd` the standard deviation of `overall` in logits and `kind_sd` that of each kind.
    `sources` names the published facts behind it; without any it is a guess.
    """

    overall: float
    by_kind: tuple[float, ...] = EVEN
    sd: float = 0.5
    sources: tuple[str, ...] = ()
    kind_sd: tuple[float, ...] = ()

    @property
    def probability(self) -> float:
        """The mean quality, 0..1."""
        return sigmoid(self.overall)

    @property
    def probability_sd(self) -> float:
        """The deviation of `probability`, to first order."""
        quality = sigmoid(self.overall)
        return quality * (1.0 - quality) * self.sd

    def at(self, kind: int) -> float:
        """The quality on the kind at a position of `KINDS`, 0..1."""
        return sigmoid(self.overall + self.by_kind[kind])


def of_probability(value: float, sd: float | None, sources: tuple[str, ...] = ()) -> Ability:
    """The ability of a model of which only a mean quality is known, and perhaps its deviation."""
    value = min(max(value, 0.01), 0.99)
    slope = value * (1.0 - value)
    return Ability(logit(value), sd=(0.05 if sd is None else sd) / slope, sources=sources)


def sigmoid(x: float) -> float:
    """The probability of a logit; of any finite one."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    exp = math.exp(max(x, -700.0))
    return exp / (1.0 + exp)


def logit(p: float) -> float:
    """The logit of a probability, 0 < p < 1."""
    return math.log(p / (1.0 - p))
