"""The owner of all observations: what was seen of each target, and how well it is.

It publishes an immutable vector from time to time; readers hold one reference. Single-threaded;
every call is O(1) but `publish`.
"""

import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from msgspec.structs import replace

from llmr.core import health
from llmr.core.allowance import Allowance
from llmr.core.budget import RetryBudget
from llmr.core.catalogue import Model, Snapshot
from llmr.core.classify import CREDENTIALS, CREDIT, FREE_LIMIT, RATE_LIMITED, Kind
from llmr.core.estimates import Expected, Seen, recorded
from llmr.core.health import Health
from llmr.core.lengths import LengthBook
from llmr.core.load import Load
from llmr.core.mean import Estimate
from llmr.core.request import Request
from llmr.core.sourced import Figure
from llmr.core.telemetry import Telemetry

MOVES_KEPT = 64  # versions of the vector whose changes are known
FADE_S = 600.0
LOOKS = 4  # at most so many targets fade a little with each vector
NO_HINT = (0.0, "")
SHARED = frozenset(k.name for k in (RATE_LIMITED, FREE_LIMIT, CREDENTIALS, CREDIT))  # by one key
NOTICED = 0.002  # figures that changed by less stay as they are


class Learner:
    """Observations and health of every target. `draw` gives numbers in 0..1, for jitter."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self.draw = draw
        self.targets: dict[str, Seen] = {}
        self.loads: dict[str, Load] = {}
        self._health: dict[str, Health] = {}
        # Good outcomes of those that are well, by slot of the window: not yet in their state.
        self._tallies: dict[str, list[int]] = {}
        self._free_until: dict[str, float] = {}
        self._hints: Mapping[str, tuple[float, str]] = {}  # what other routers leave alone
        self._version = 0
        self._fresh: set[str] = set()  # targets observed since the last vector
        self.unsaved: set[str] = set()  # those that nobody has put away yet
        self._live: dict[str, None] = {}  # those whose last minutes still count, in turn
        self._fades_at = 0.0  # when those are looked at again that only hours count of
        self._published: tuple[Snapshot, dict[str, int], list[Expected], Telemetry] | None = None
        self.lengths = LengthBook()
        self.allowances: dict[str, Allowance] = {}
        self.budget = RetryBudget()
        self.changed = True
        self.surprised = False  # something was far off what was expected

    # --- what was seen ---

    def observe(
        self,
        model: Model,
        ttft_s: float | None,
        tpot_s: float | None,
        now: float,
        *,
        effort: str | None = None,
        whole: bool = False,
        flying: int = 0,
    ) -> None:
        """Of a whole answer: seconds to the first content token, seconds per token after it.

        `effort`: what the request asked for; `whole`: it came in one piece, not as a stream;
        `flying`: how many requests the target had when this one was sent, itself included.
        """
        seen = self._seen_of(model)
        seen.outcomes.add(True, now)
        if ttft_s is not None and ttft_s > 0:
            estimate, prior = seen.ttft, model.ttft_s
            if effort is not None:
                estimate, prior = seen.at_effort(model, effort, now)
            ttft_s = self._at_usual_load(model, flying, ttft_s, estimate, prior, now)
            self.surprised |= estimate.add(ttft_s, prior, now)
        if tpot_s is not None and tpot_s > 0:
            rate = seen.whole_tpot if whole else seen.tpot
            if whole:
                tpot_s = self._at_usual_load(model, flying, tpot_s, rate, model.tpot_s, now)
            self.surprised |= rate.add(tpot_s, model.tpot_s, now)
        seen.answers += 1

    def _at_usual_load(
        self,
        model: Model,
        flying: int,
        seconds: float,
        estimate: Estimate,
        prior: Figure,
        now: float,
    ) -> float:
        """What it had taken at usual load; what it took tells how much load matters."""
        load = self.loads.get(model.target)
        if load is None or not flying:
            return seconds
        load.learn(flying, math.log(seconds) - estimate.at(prior, now)[0], now)
        return seconds / load.times(flying)

    def sent(self, model: Model) -> int:
        """A request goes to a target; how many it has now. To be followed by `over`, once."""
        load = self.loads.get(model.target)
        if load is None:
            load = self.loads[model.target] = Load()
        if load.begun():
            self._look_again(model.target)
        return load.flying

    def over(self, model: Model) -> None:
        """A request that was sent is over, however it ended."""
        self.loads[model.target].ended()

    def headroom(self, model: Model, left: int, reset_s: float, now: float) -> None:
        """The upstream said how many requests its limit still lets through, and for how long."""
        if self.loads[model.target].told(left, reset_s, now):
            self._look_again(model.target)

    def _look_again(self, target: str) -> None:
        self._fresh.add(target)
        self.changed = self.surprised = True

    def waited(self, model: Model, seconds: float, now: float, effort: str | None) -> None:
        """The first content had not come after so long, and nobody waited any longer."""
        seen = self._seen_of(model)
        estimate, prior = seen.ttft, model.ttft_s
        if effort is not None:
            estimate, prior = seen.at_effort(model, effort, now)
        self.surprised |= estimate.add_above(max(seconds, 0.001), prior, now)

    def count_tokens(
        self, model: Model, usage: Mapping[str, Any], request: Request, whole: bool, now: float
    ) -> None:
        """Take the usage object of an answer; `whole`: it ended by itself."""
        self.lengths.add(
            *(model.target, usage, request.prompt_tokens, request.output_tokens),
            *(request.effort, whole, now),
        )
        self.unsaved.add(model.target)

    def restored(self, now: float) -> None:
        """What was seen of targets was put back: all of it counts from now on."""
        self._published, self.changed, self._fades_at = None, True, now
        self.lengths.changed = True

    def _seen_of(self, model: Model) -> Seen:
        target = model.target
        seen = self.targets.get(target)
        if seen is None:
            seen = self.targets[target] = Seen()
        self._fresh.add(target)
        self.unsaved.add(target)
        self.changed = True
        return seen

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
            self._seen_of(model).outcomes.add(False, now)
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
        states, hints = self._health, self._hints
        if hints and any(hints.get(key, NO_HINT)[0] > now for key in model.health_keys):
            return False
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
        hinted = max(self._hints.get(key, NO_HINT)[0] for key in keys)
        return max(0.0, until - now, hinted - now)

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
        out = self.resting(now)
        for key, state in self._health.items():
            probing = state.probe is not None and now - state.probe < health.PROBE_LEASE_S
            if probing and key not in out:
                out[key] = (health.opens(state), "probing")
        for key, hint in self._hints.items():
            if hint[0] > now:
                out[key] = max(hint, out.get(key, NO_HINT))
        return out

    def resting(self, now: float) -> dict[str, tuple[float, str]]:
        """Those that are left alone at `now` for what was seen of them here."""
        out = {k: (until, "free_limit") for k, until in self._free_until.items() if until > now}
        for key, state in self._health.items():
            if state.until > now:
                out[key] = max((state.until, state.reason), out.get(key, NO_HINT))
        return out

    def hinted(self, hints: Mapping[str, tuple[float, str]], now: float) -> bool:
        """Leave alone what other routers do, as far as nothing speaks against it here.

        What answered here in the last seconds is not given up for what another saw, unless it is
        a matter of the account they share. True where `cooling` may differ for it.
        """
        before = bool(self._hints)
        self._hints = {
            key: (until, why)
            for key, (until, why) in hints.items()
            if why in SHARED or not self._answered(key, now)
        }
        return before or bool(self._hints)

    def _answered(self, key: str, now: float) -> bool:
        """Whether a target gave an answer here in this or the last slot of the window."""
        tally, slot = self._tallies.get(key), int(now // health.SLOT_S)
        if tally is not None and tally[0] >= slot - 1:
            return True
        return any(s[0] >= slot - 1 and s[1] for s in self._health.get(key, health.WELL).slots)

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

    def counted(self, snapshot: Snapshot, now: float) -> Snapshot:
        """The rows with what was counted of their answers; the same where that is nothing."""
        of = self.lengths.of
        lengths = [of(row.target, row.lengths, now) for row in snapshot.models]
        pairs = zip(snapshot.models, lengths, strict=True)
        rows = tuple(row if new is row.lengths else replace(row, lengths=new) for row, new in pairs)
        return snapshot if rows == snapshot.models else replace(snapshot, models=rows)

    def publish(self, snapshot: Snapshot, now: float) -> Telemetry:
        """The vector for `snapshot` as of now: the one before, but for what has changed since."""
        before, looked_at = self._published, self._looked_at(now)
        if before is None or before[0] is not snapshot:
            rows = {model.target: index for index, model in enumerate(snapshot.models)}
            found = [self._expected(model, now) for model in snapshot.models]
            moves: tuple[tuple[int, ...], ...] = ()
        else:
            _, rows, found, last = before
            found, moved = list(found), []
            for target in looked_at:
                index = rows.get(target)
                if index is not None:
                    one = self._expected(snapshot.models[index], now)
                    if _differs(one, found[index]):
                        found[index] = one
                        moved.append(index)
            moves = (*last.moves[-MOVES_KEPT:], tuple(moved))
        for target in looked_at:  # those that were looked at come last
            self._live.pop(target, None)
            if self._counts_still(target, now):
                self._live[target] = None
        if now >= self._fades_at:
            self._fades_at = now + FADE_S
        self._fresh = {target for target in looked_at if self._moves(target)}
        self._version += 1
        self.changed, self.surprised = bool(self._live or self._fresh), False
        result = Telemetry(
            self._version,
            tuple([one.ttft_s for one in found]),
            tuple([one.tpot_s for one in found]),
            tuple([one.slow_s for one in found]),
            {target: seen.answers for target, seen in self.targets.items() if seen.answers},
            self.cooling(now),
            moves,
            tuple([one.whole_tpot_s for one in found]),
            tuple([one.doubt for one in found]),
            {(i, e): s for i, one in enumerate(found) if one.efforts for e, s in one.efforts},
        )
        self._published = snapshot, rows, found, result
        return result

    def _expected(self, model: Model, now: float) -> Expected:
        seen, load = self.targets.get(model.target), self.loads.get(model.target)
        found = recorded(model) if seen is None else seen.expected(model, now)
        return found if load is None else found.under(load.look(), load.wait_s(now))

    def due(self, now: float) -> bool:
        """Whether a new vector would differ from the last."""
        return self.changed or now >= self._fades_at

    def _looked_at(self, now: float) -> set[str]:
        """Targets whose expectations may have changed; from time to time all that were seen."""
        if now >= self._fades_at:
            return set(self.targets)
        return self._fresh.union(islice(self._live, LOOKS))

    def _moves(self, target: str) -> bool:
        load = self.loads.get(target)
        return load is not None and load.moves

    def _counts_still(self, target: str, now: float) -> bool:
        seen = self.targets.get(target)
        return seen is not None and seen.counts_still(now)


def _differs(one: Expected, other: Expected) -> bool:
    """Whether expectations are so far apart that anybody could notice."""
    if one.efforts != other.efforts:
        return True
    pairs = zip(one.figures, other.figures, strict=True)
    return any(abs(a - b) > NOTICED * b for a, b in pairs)
