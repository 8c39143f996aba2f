"""How the quality of an answer to one prompt follows from what a model can."""

from collections.abc import Sequence
from math import exp

from msgspec import Struct


class Curve(Struct, frozen=True):
    """A response curve: sigma(base + slope · overall + Σ kinds · by_kind), all in logits.

    One curve holds for all models. `slope` is above 0. `kinds` are (position in `KINDS`,
    probability) of the three that the prompt is of most likely. `ease` is how much easier than
    usual it is, and `coverage` how far, 0..1, what is read off it was known to training: both are
    in `base` already, and here to be shown. `doubt` is the deviation of what was read, in logits.
    """

    base: float
    slope: float
    kinds: tuple[tuple[int, float], tuple[int, float], tuple[int, float]]
    ease: float = 0.0
    coverage: float = 0.0
    doubt: float = 0.0

    def quality(self, skill: tuple[float, Sequence[float]]) -> float:
        """The probability of a good answer of a model: its ability on the whole, and by kind."""
        overall, by_kind = skill
        value = self.base + self.slope * overall
        for kind, share in self.kinds:
            value += share * by_kind[kind]
        return 1.0 / (1.0 + exp(-value))
