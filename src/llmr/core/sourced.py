"""A number with where it comes from."""

from msgspec import Struct

# In logs one answer is some 0.56 off what its model takes on the mean; what is live some 0.2, what
# was recorded over weeks 0.28, what is guessed from kin 0.55.
WEIGHTS = {"estimated": 1.0, "recorded": 4.0, "live": 8.0}


class Figure(Struct, frozen=True):
    """A number with where it comes from and, where that is known, its standard deviation."""

    value: float
    source: str
    sd: float | None = None

    @property
    def weight(self) -> float:
        """How many measurements of one's own it counts as."""
        return WEIGHTS.get(self.source, 4.0)

    @property
    def cautious(self) -> float:
        """The value to choose by: a guess counts one deviation less than it says.

        Of three hundred guesses the highest is the luckiest, not the best.
        """
        return self.value - (self.sd or 0.0) if self.source == "estimated" else self.value
