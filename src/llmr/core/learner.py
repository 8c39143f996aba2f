"""The owner of all observations: what was seen of each target, and how well it is.

It publishes an immutable vector from time to time; readers hold one reference. Single-threaded;
every call is O(1) but `publish`.
"""

from collections.abc import Callable

from msgspec.structs import replace

from llmr.core import health
from llmr.core.allowance import Allowance
from llmr.core.budget import RetryBudget
from llmr.core.catalogue import Model, Snapshot
from llmr.core.classify import Kind
from llmr.core.health import Health
from llmr.core.lengths import LengthBook
from llmr.core.mean import Mean
from llmr.core.telemetry import Telemetry

MOVES_KEPT = 64  # versions of the vector whose changes are known


class Learner:
    """Observations and health of every target. `draw` gives numbers in 0..1, for jitter."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self.draw = draw
        self._ttft: dict[str, Mean] = {}
        self._tpot: dict[str, Mean] = {}
        self._count: dict[str, int] = {}
        self._health: dict[str, Health] = {}
        # Good outcomes of those that are well, by slot of the window: not yet in their state.
        self._tallies: dict[str, list[int]] = {}
        self._free_until: dict[str, float] = {}
        self._version = 0
        self._seen: set[str] = set()  # targets observed since the last vector
        self._published: tuple[Snapshot, dict[str, int], Telemetry] | None = None
        self.lengths = LengthBook()
        self.allowances: dict[str, Allowance] = {}
        self.budget = RetryBudget()
        self.changed = True

    # --- what was seen ---

    def observe(self, model: Model, ttft_s: float | None, tpot_s: float | None) -> None:
        """Of a whole answer: seconds to the first content token, seconds per token after it."""
        target = model.target
        if ttft_s is not None and ttft_s > 0:
            _add(self._ttft, target, ttft_s)
        if tpot_s is not None and tpot_s > 0:
            _add(self._tpot, target, tpot_s)
        self._count[target] = self._count.get(target, 0) + 1
        self._seen.add(target)
        self.changed = True

    def well(self, model: Model, now: float) -> None:
        """A target gave a whole answer: it is well, and so is its account."""
        slot = int(now // health.SLOT_S)
        for key in (model.target, model.upstream):
            tally = self._tallies.get(key)
            if tally is None or tally[0] != slot:
                self._health[key] = health.succeeded(self._of(key), now)
                self._tallies[key] = [slot, 0]
            else:
                tally[1] += 1

    def fault(
        self, model: Model, kind: Kind, now: float, hint_s: float | None, *, hard: bool
    ) -> None:
        """An attempt failed. Only a fault of the target, or of its account, counts against it.

        `hard`: it cools down at once; `hint_s`: the wait its upstream asked for, in seconds.
        """
        if kind.cool == "account":
            wait = hint_s if hint_s is not None else health.HINT_LONGEST_S
            self._fail(model.upstream, kind.name, now, wait, hard)
        elif kind.cool == "free":
            self._fail(f"{model.upstream}:free", kind.name, now, hint_s, hard)
        elif kind.cool is not None:
            self._fail(model.target, kind.name, now, hint_s, hard)
            # The account cools only when told so; its window tells whether it is failing.
            account = self._of(model.upstream)
            self._health[model.upstream] = health.counted(account, now, good=False)
        else:
            self.let_go(model)

    def _fail(self, key: str, why: str, now: float, hint_s: float | None, hard: bool) -> None:
        state = self._of(key)
        self._health[key] = health.failed(state, why, now, self.draw(), hard=hard, hint_s=hint_s)

    def let_go(self, model: Model) -> None:
        """An attempt ended without telling anything of its target."""
        for key in model.health_keys:
            if key in self._health:
                self._health[key] = health.let_go(self._health[key])

    # --- who may be sent to ---

    def admit(self, model: Model, now: float) -> bool:
        """Whether an attempt may go to this target now; a probe is taken where one is due."""
        states = self._health
        found = [(key, states[key]) for key in model.health_keys if key in states]
        if not any(state.strikes for _, state in found):
            return True
        judged = [(key, *health.admit(state, now)) for key, state in found]
        if not all(admitted for _, admitted, _ in judged):
            return False
        for key, _, state in judged:
            states[key] = state
        return True

    def rests_s(self, model: Model, now: float) -> float:
        """Seconds until an attempt may go to this target, as far as is known; 0 where one may."""
        keys, free = model.health_keys, self._free_until
        until = max(max(health.opens(self._of(key)), free.get(key, 0.0)) for key in keys)
        return max(0.0, until - now)

    def failing(self, upstream: str, now: float) -> bool:
        """Whether an account as a whole is failing."""
        return health.failing(self._of(upstream), now)

    def sent_free(self, upstream: str, now: float) -> bool:
        """Count a request to a free row; True where that used the allowance up for now."""
        until = self.allowances.setdefault(upstream, Allowance()).take(now)
        if until is not None:
            self._free_until[f"{upstream}:free"] = until
        return until is not None

    def cooling(self, now: float) -> dict[str, tuple[float, str]]:
        """The targets and accounts that are to be left alone at `now`."""
        out = {k: (until, "free_limit") for k, until in self._free_until.items() if until > now}
        for key, state in self._health.items():
            if state.until > now:
                out[key] = (max(state.until, out.get(key, (0.0, ""))[0]), state.reason)
            elif state.probe is not None and now - state.probe < health.PROBE_LEASE_S:
                out[key] = (state.probe + health.PROBE_LEASE_S, "probing")
        return out

    def _of(self, key: str) -> Health:
        """The state of a target or an account, with everything counted into it."""
        state = self._health.get(key, health.WELL)
        tally = self._tallies.pop(key, None)
        if tally is None or not tally[1]:
            return state
        slot, count = tally
        state = health.counted(state, slot * health.SLOT_S, good=True, count=count)
        self._health[key] = state
        return state

    # --- publishing ---

    def counted(self, snapshot: Snapshot) -> Snapshot:
        """The rows with what was counted of their answers; the same where that is nothing."""
        of = self.lengths.of
        lengths = [of(row.target, row.lengths) for row in snapshot.models]
        pairs = zip(snapshot.models, lengths, strict=True)
        rows = tuple(row if now is row.lengths else replace(row, lengths=now) for row, now in pairs)
        return snapshot if rows == snapshot.models else replace(snapshot, models=rows)

    def publish(self, snapshot: Snapshot, now: float) -> Telemetry:
        """The vector for `snapshot` as of now: the one before, but for what was seen since."""
        before, seen = self._published, self._seen
        moved: tuple[int, ...] = ()
        if before is None or before[0] is not snapshot:
            rows = {model.target: index for index, model in enumerate(snapshot.models)}
            first = [self._expected(model) for model in snapshot.models]
            ttft, tpot, slow = ([row[n] for row in first] for n in range(3))
            moves: tuple[tuple[int, ...], ...] = ()
        else:
            _, rows, last = before
            ttft, tpot, slow = list(last.ttft_s), list(last.tpot_s), list(last.slow_s)
            moved = tuple(rows[target] for target in seen if target in rows)
            for index in moved:
                ttft[index], tpot[index], slow[index] = self._expected(snapshot.models[index])
            moves = (*last.moves[-MOVES_KEPT:], moved)
        self._version += 1
        self._seen = set()
        self.changed = False
        cooling = self.cooling(now)
        found = Telemetry(
            self._version, tuple(ttft), tuple(tpot), tuple(slow), dict(self._count), cooling, moves
        )
        self._published = snapshot, rows, found
        return found

    def _expected(self, model: Model) -> tuple[float, float, float]:
        """(first token, each after it, a late first token) in seconds."""
        first, rate = self._ttft.get(model.target), self._tpot.get(model.target)
        middle, late = (first or _NOTHING).blend(model.ttft_s.value)
        return (
            middle if first else model.ttft_s.value,
            rate.blend(model.tpot_s.value)[0] if rate else model.tpot_s.value,
            late,
        )


_NOTHING = Mean()


def _add(means: dict[str, Mean], target: str, value: float) -> None:
    mean = means.get(target)
    if mean is None:
        mean = means[target] = Mean()
    mean.add(value)
