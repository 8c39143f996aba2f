"""What was seen of the speed and reliability of each target; one for each row, at most."""

import math

from msgspec import Struct

from llmr.core.catalogue import Model
from llmr.core.mean import MINUTE_S, PRIOR_SPREAD, Estimate
from llmr.core.scoring import first_token_s
from llmr.core.sourced import Figure

GOOD_PRIOR, BAD_PRIOR = 19.5, 0.5  # a target of which nothing is known answers 39 times in 40
OUTCOMES_KEPT = 40.0
LEAST_SUCCESS = 0.2
FADED = 0.02  # samples: what counts less changes nothing


class Expected(Struct, frozen=True):
    """What is expected of one target: seconds, and the deviation of the first of them in logs.

    `ttft_s` counts the sends that will fail; `slow_s` is exceeded by one answer in twenty.
    """

    ttft_s: float
    tpot_s: float
    whole_tpot_s: float
    slow_s: float
    doubt: float
    efforts: tuple[tuple[str, float], ...] = ()

    def under(self, times: float, wait_s: float) -> "Expected":
        """The same of a target that is so many times slower than usual, after a wait."""
        if times == 1.0 and not wait_s:
            return self
        return Expected(
            self.ttft_s * times + wait_s,
            self.tpot_s,
            self.whole_tpot_s * times,
            self.slow_s * times + wait_s,
            self.doubt,
            tuple((effort, seconds * times + wait_s) for effort, seconds in self.efforts),
        )

    @property
    def figures(self) -> tuple[float, ...]:
        return (self.ttft_s, self.tpot_s, self.whole_tpot_s, self.slow_s, self.doubt)


class Outcomes:
    """Decayed counts of sends that ended well and badly."""

    __slots__ = ("at", "bad", "good")

    def __init__(self) -> None:
        self.good = self.bad = 0.0
        self.at = 0.0

    def add(self, good: bool, now: float) -> None:
        """Take one."""
        left = _left(now - self.at)
        left *= 1.0 - (self.good + self.bad) * left / OUTCOMES_KEPT / (1.0 + OUTCOMES_KEPT)
        self.good = self.good * left + good
        self.bad = self.bad * left + (not good)
        self.at = max(now, self.at)

    def weight_at(self, now: float) -> float:
        """How many sends it counts as."""
        return (self.good + self.bad) * _left(now - self.at)

    def success(self, now: float) -> float:
        """The share of sends that end well."""
        left = _left(now - self.at)
        good = GOOD_PRIOR + self.good * left
        return max(good / (good + BAD_PRIOR + self.bad * left), LEAST_SUCCESS)


def _left(seconds: float) -> float:
    return math.exp2(-max(seconds, 0.0) / MINUTE_S)


class Seen:
    """What was seen of one target; `answers` it gave."""

    __slots__ = ("answers", "efforts", "outcomes", "tpot", "ttft", "whole_tpot")

    def __init__(self) -> None:
        self.ttft = Estimate()
        self.tpot = Estimate()
        self.whole_tpot = Estimate()
        self.outcomes = Outcomes()
        self.efforts: dict[str, Estimate] = {}
        self.answers = 0

    def counts_still(self, now: float) -> bool:
        """Whether what was seen in the last minutes still changes what is expected."""
        estimates = (self.ttft, self.tpot, self.whole_tpot, *self.efforts.values())
        recent = max(one.fast.weight_at(now) for one in estimates)
        return max(recent, self.outcomes.weight_at(now)) > FADED

    def expected(self, model: Model, now: float) -> Expected:
        """All of it together, over what is recorded of the model."""
        log, spread, doubt = self.ttft.at(model.ttft_s, now)
        first, tpot = math.exp(log), math.exp(self.tpot.at(model.tpot_s, now)[0])
        efforts = []
        for effort, estimate in self.efforts.items():
            prior = _guessed(first_token_s(model, first, tpot, effort, math.inf)[0])
            efforts.append((effort, math.exp(estimate.at(prior, now)[0])))
        failing = 1.0 / self.outcomes.success(now) - 1.0
        usual = BAD_PRIOR / GOOD_PRIOR
        return Expected(
            first * (1.0 + max(failing - usual, 0.0)),
            tpot,
            math.exp(self.whole_tpot.at(Figure(tpot, "measured"), now)[0]),
            math.exp(log + 1.645 * spread),
            doubt,
            tuple(efforts),
        )

    def at_effort(self, model: Model, effort: str, now: float) -> tuple[Estimate, Figure]:
        """(the estimate of the first token at an effort, what is expected without it)."""
        log, _, _ = self.ttft.at(model.ttft_s, now)
        tpot = math.exp(self.tpot.at(model.tpot_s, now)[0])
        prior, _ = first_token_s(model, math.exp(log), tpot, effort, math.inf)
        found = self.efforts.get(effort)
        if found is None:
            found = self.efforts[effort] = Estimate()
        return found, _guessed(prior)


def _guessed(seconds: float) -> Figure:
    return Figure(seconds, "estimated")


def recorded(model: Model) -> Expected:
    """What is expected of a target that nothing was seen of."""
    ttft, tpot = model.ttft_s.value, model.tpot_s.value
    doubt = PRIOR_SPREAD / math.sqrt(model.ttft_s.weight)
    return Expected(ttft, tpot, tpot, ttft * 2.5, doubt)
