"""Ways to choose: the router's own, and those it is held against."""

import random
from collections.abc import Sequence
from typing import Protocol

from llmr.core import classify
from llmr.core.board import Board
from llmr.core.catalogue import Snapshot
from llmr.core.decide import decide
from llmr.core.exploring import Explorer
from llmr.core.learner import Learner
from llmr.core.look import Now, Policy
from llmr.core.request import Request

ATTEMPTS = 3
Answer = tuple[float, float] | None  # (first-token time, time per token); None where it failed


class Chooser(Protocol):
    """One way to choose. It sees what came of its own choices and nothing else."""

    def choose(self, request: Request, rows: Snapshot, now: float) -> Sequence[int]:
        """The rows to try, in order."""

    def seen(self, rows: Snapshot, index: int, answer: Answer, now: float) -> None:
        """What came of a choice."""


class Routed:
    """The router: `decide` on what its learner knows."""

    def __init__(self, rng: random.Random, share: float = 0.03, learns: bool = True) -> None:
        """`learns` false: the static table, which only leaves failing targets alone."""
        self.learner = Learner(rng.random)
        self.explorer = Explorer(share, 1.0)
        self._rng, self._learns, self._board = rng, learns, Board()

    def choose(self, request: Request, rows: Snapshot, now: float) -> Sequence[int]:
        known = self.learner.publish(rows, now)
        policy = Policy(frozenset(m.upstream for m in rows.models))
        draw = self._rng.random() if self.explorer.may(now) else None
        found = decide(request, rows, known, policy, Now(now, now, draw), self._board)
        if found.trying:
            tried, best = (found.look().terms(i).cost_usd or 0.0 for i in found.chain[:2])
            self.explorer.tried(tried - best)
        return found.chain

    def seen(self, rows: Snapshot, index: int, answer: Answer, now: float) -> None:
        model = rows.models[index]
        if answer is None:
            self.learner.fault(model, classify.OVERLOADED, now, None, hard=True)
            return
        self.learner.well(model, now)
        if self._learns:
            self.learner.observe(model, *answer, now)


class Among:
    """Some way to choose among the rows that the static table ranks first."""

    def __init__(self, rng: random.Random, how: str) -> None:
        """`how`: random, robin, or quickest by the mean total time of all its answers."""
        self._rng, self._how, self._turn = rng, how, 0
        self._static = Routed(rng, 0.0, learns=False)
        self._sums: dict[int, list[float]] = {}

    def choose(self, request: Request, rows: Snapshot, now: float) -> Sequence[int]:
        order = list(self._static.choose(request, rows, now))
        if self._how == "random":
            self._rng.shuffle(order)
        elif self._how == "robin":
            self._turn += 1
            turn = self._turn % len(order)
            order = order[turn:] + order[:turn]
        else:
            order.sort(key=self._mean)
        return order

    def _mean(self, index: int) -> float:
        total, count = self._sums.get(index, (0.0, 0))
        return total / count if count else 0.0  # those never tried come first, one after another

    def seen(self, rows: Snapshot, index: int, answer: Answer, now: float) -> None:
        self._static.seen(rows, index, None if answer is None else (0.0, 0.0), now)
        if answer is not None:
            sums = self._sums.setdefault(index, [0.0, 0])
            sums[0] += answer[0] + 300.0 * answer[1]
            sums[1] += 1


def chooser(name: str, seed: int) -> Chooser:
    """A chooser by its name."""
    rng = random.Random(seed)
    if name == "llmr":
        return Routed(rng)
    if name == "llmr, never trying":
        return Routed(rng, 0.0)
    if name == "static table":
        return Routed(rng, 0.0, learns=False)
    return Among(rng, {"random": "random", "round robin": "robin"}.get(name, "quickest"))


NAMES = (
    *("llmr", "llmr, never trying", "static table"),
    *("lowest mean latency", "round robin", "random"),
)
