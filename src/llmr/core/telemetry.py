"""What decisions know of the world: expectations per row, and which targets are to be left alone.

`Telemetry` is an immutable vector over one snapshot's rows. `Learner` owns the observations and
publishes a new vector from time to time; readers hold one reference.
"""

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from llmr.core.allowance import Allowance
from llmr.core.catalogue import Snapshot

PRIOR_WEIGHT = 20.0  # a prior counts as much as this many samples
MEMORY = 200.0  # samples an estimate remembers


class Telemetry(Struct, frozen=True):
    """Expectations for each row of a snapshot, in its order, and targets that cool down.

    `cooling` maps a target to (until, reason), on the monotonic clock. `memo` holds rankings
    already worked out from this vector, `columns` the figures behind them: pure results, kept
    because they are asked for again.
    """

    version: int
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    measured: Mapping[str, int]
    cooling: Mapping[str, tuple[float, str]]
    memo: dict[Any, Any] = field(default_factory=dict)
    columns: dict[Any, Any] = field(default_factory=dict)


class _Mean:
    """A decayed mean in log space: one slow answer does not undo a hundred quick ones."""

    __slots__ = ("log", "weight")

    def __init__(self) -> None:
        self.log = 0.0
        self.weight = 0.0

    def add(self, value: float) -> None:
        self.weight = min(self.weight + 1.0, MEMORY)
        self.log += (math.log(value) - self.log) / self.weight

    def blend(self, prior: float) -> float:
        """The mean shrunk towards the prior."""
        if not self.weight:
            return prior
        share = self.weight / (self.weight + PRIOR_WEIGHT)
        return math.exp(share * self.log + (1.0 - share) * math.log(prior))


class Learner:
    """The owner of all observations. Single-threaded; every call is O(1) but `publish`."""

    def __init__(self) -> None:
        self._ttft: dict[str, _Mean] = {}
        self._tpot: dict[str, _Mean] = {}
        self._count: dict[str, int] = {}
        self._cooling: dict[str, tuple[float, str]] = {}
        self._strikes: dict[str, int] = {}
        self._version = 0
        self.allowances: dict[str, Allowance] = {}
        self.changed = True

    def observe(self, target: str, ttft_s: float | None, tpot_s: float | None) -> None:
        """A whole answer of `target`: seconds to the first token, seconds per token after it."""
        if ttft_s is not None and ttft_s > 0:
            self._ttft.setdefault(target, _Mean()).add(ttft_s)
        if tpot_s is not None and tpot_s > 0:
            self._tpot.setdefault(target, _Mean()).add(tpot_s)
        self._count[target] = self._count.get(target, 0) + 1
        self._strikes.pop(target, None)
        self._cooling.pop(target, None)
        self.changed = True

    def cool(self, key: str, reason: str, now: float, seconds: float | None) -> None:
        """Leave a target or an account alone: for `seconds`, else 5 s, doubling up to 30 s."""
        strikes = self._strikes[key] = self._strikes.get(key, 0) + 1
        length = min(5.0 * 2.0 ** (strikes - 1), 30.0) if seconds is None else min(seconds, 300.0)
        until = max(now + length, self._cooling.get(key, (0.0, ""))[0])
        self._cooling[key] = (until, reason)
        self.changed = True

    def cooling(self, now: float) -> dict[str, tuple[float, str]]:
        """The targets and accounts that are to be left alone at `now`."""
        self._cooling = {k: v for k, v in self._cooling.items() if v[0] > now}
        return dict(self._cooling)

    def sent_free(self, upstream: str, now: float) -> bool:
        """Count a request to a free row; True where that used the allowance up for now."""
        until = self.allowances.setdefault(upstream, Allowance()).take(now)
        if until is not None:
            self._cooling[f"{upstream}:free"] = (until, "free_limit")
        return until is not None

    def publish(self, snapshot: Snapshot, now: float) -> Telemetry:
        """The vector for `snapshot` as of now."""
        self._version += 1
        self.changed = False
        ttft, tpot = [], []
        for model in snapshot.models:
            t, p = self._ttft.get(model.target), self._tpot.get(model.target)
            ttft.append(t.blend(model.ttft_s.value) if t else model.ttft_s.value)
            tpot.append(p.blend(model.tpot_s.value) if p else model.tpot_s.value)
        return Telemetry(
            self._version, tuple(ttft), tuple(tpot), dict(self._count), self.cooling(now)
        )
