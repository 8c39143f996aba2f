"""The health of one target, or of one account, as a reducer: (state, event, now) → state.

A target cools down after its first hard fault and is probed again, by one request at a time; while
probes fail the wait doubles. Many soft faults in a short time cool it down as well. Only faults of
its own count; time and the draw for jitter are parameters.
"""

from msgspec import Struct
from msgspec.structs import replace

FIRST_S, LONGEST_S = 5.0, 30.0  # the longest wait, jitter and all
HINT_LONGEST_S = 300.0
JITTER = 0.1
DOUBLINGS = 10  # more than the bound needs; a float has no room for a thousand
PROBE_LEASE_S = 30.0  # a probe that never came back does not keep the door shut

SLOT_S, SLOTS = 5.0, 6  # the window: 30 s in slots of 5
LEAST_SEEN, FAILING_SHARE = 10, 0.5

Slot = tuple[int, int, int]  # number of the slot, good outcomes, bad ones


class Health(Struct, frozen=True):
    """State of one target. `until`: left alone before; `probe`: since when one is under way."""

    strikes: int = 0
    until: float = 0.0
    reason: str = ""
    probe: float | None = None
    slots: tuple[Slot, ...] = ()


WELL = Health()


def failed(
    state: Health, reason: str, now: float, draw: float, *, hard: bool, hint_s: float | None = None
) -> Health:
    """After a fault of the target's own.

    `hard`: it cools down at once. `hint_s`: the wait the upstream asked for, in seconds. `draw`, in
    0..1, spreads the wait by a tenth either way.
    """
    slots = _counted(state.slots, now, good=False)
    if not hard and hint_s is None and not _failing(slots, now):
        return replace(state, probe=None, slots=slots)
    strikes = state.strikes + 1
    # Bounded before the jitter, so that targets at the longest wait are spread as well.
    wait = min(FIRST_S * 2.0 ** min(strikes - 1, DOUBLINGS), LONGEST_S / (1.0 + JITTER))
    wait = min(wait * (1.0 + JITTER * (2.0 * draw - 1.0)), LONGEST_S)
    if hint_s is not None:
        wait = min(hint_s, HINT_LONGEST_S)
    until = max(now + wait, state.until)
    return Health(strikes, until, reason, None, slots)


def succeeded(state: Health, now: float) -> Health:
    """After a whole answer: the target is well."""
    return Health(slots=_counted(state.slots, now, good=True))


def counted(state: Health, now: float, *, good: bool, count: int = 1) -> Health:
    """With more outcomes in the window, and nothing else changed."""
    return replace(state, slots=_counted(state.slots, now, good=good, count=count))


def let_go(state: Health) -> Health:
    """After an attempt that tells nothing: the caller left, or the fault was the request's."""
    return replace(state, probe=None) if state.probe is not None else state


def admit(state: Health, now: float) -> tuple[bool, Health]:
    """Whether an attempt may go to the target now, and the state if it does.

    A target that was cooling lets one attempt through at a time until one succeeds.
    """
    if now < state.until:
        return False, state
    if not state.strikes:
        return True, state
    if state.probe is not None and now - state.probe < PROBE_LEASE_S:
        return False, state
    return True, replace(state, probe=now)


def opens(state: Health) -> float:
    """The instant from which an attempt may go to the target, as far as is known."""
    return state.until if state.probe is None else max(state.until, state.probe + PROBE_LEASE_S)


def failing(state: Health, now: float) -> bool:
    """Whether half of at least ten outcomes of the last 30 s were bad."""
    return _failing(state.slots, now)


def _failing(slots: tuple[Slot, ...], now: float) -> bool:
    oldest = int(now // SLOT_S) - SLOTS
    good = sum(slot[1] for slot in slots if slot[0] > oldest)
    bad = sum(slot[2] for slot in slots if slot[0] > oldest)
    return good + bad >= LEAST_SEEN and bad >= FAILING_SHARE * (good + bad)


def _counted(
    slots: tuple[Slot, ...], now: float, *, good: bool, count: int = 1
) -> tuple[Slot, ...]:
    number = int(now // SLOT_S)
    kept = [slot for slot in slots if slot[0] > number - SLOTS]
    last = kept.pop() if kept and kept[-1][0] == number else (number, 0, 0)
    return (*kept, (number, last[1] + count * good, last[2] + count * (not good)))
