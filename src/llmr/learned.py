"""What survives a restart: speeds, lengths, reliability and opinions, as rows of plain numbers.

Clocks of processes differ, so instants are kept in seconds since 1970. A row that cannot be read,
or is of another version, is as good as none.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llmr.core.estimates import Outcomes, Seen
from llmr.core.learner import Learner
from llmr.core.lengths import Counted
from llmr.core.mean import Estimate, Mean
from llmr.core.quality.feedback import Feedback

log = logging.getLogger("llmr")

VERSION = 1
SPEED, LENGTHS, OPINIONS = "speed", "lengths", "opinions"
MOST_EFFORTS = 16

Rows = dict[tuple[str, str], bytes]
Numbers = list[float]


def fresh(learner: Learner, feedback: Feedback, now: float, wall: float) -> Rows:
    """The rows of everything that was learned since the last time, by (kind, name)."""
    rows: Rows = {}
    shift = wall - now
    for target in learner.unsaved:
        if (seen := learner.targets.get(target)) is not None:
            rows[SPEED, target] = _packed(_speed(seen, shift))
        if (counted := learner.lengths.targets.get(target)) is not None:
            rows[LENGTHS, target] = _packed(_lengths(counted, shift))
    learner.unsaved.clear()
    for target in feedback.unsaved:
        rows[OPINIONS, target] = _packed(feedback.state(target))
    feedback.unsaved.clear()
    return rows


def restore(
    rows: Iterable[tuple[str, str, bytes]],
    learner: Learner,
    feedback: Feedback,
    now: float,
    wall: float,
) -> int:
    """Take up what was kept; how many rows could be used."""
    shift, used = wall - now, 0
    for kind, name, data in rows:
        try:
            state = _unpacked(data)
            if kind == SPEED:
                learner.targets[name] = _seen(state, shift, now)
            elif kind == LENGTHS:
                learner.lengths.targets[name] = _counted(state, shift, now)
            elif kind == OPINIONS:
                feedback.restore(name, {int(k): _finite(v, 3) for k, v in state.items()}, wall)
            used += 1
        except (msgspec.DecodeError, ValueError, TypeError, AttributeError, KeyError, IndexError):
            log.warning("what was learned of %s cannot be read and is learned anew", name)
    learner.restored(now)
    return used


def _packed(state: Any) -> bytes:
    return msgspec.msgpack.encode([VERSION, state])


def _unpacked(data: bytes) -> Any:
    version, state = msgspec.msgpack.decode(data)
    if version != VERSION:
        raise ValueError(version)
    return state


def _speed(seen: Seen, shift: float) -> dict[str, Any]:
    one = seen.outcomes
    return {
        "answers": seen.answers,
        "ttft": _estimate(seen.ttft, shift),
        "tpot": _estimate(seen.tpot, shift),
        "whole": _estimate(seen.whole_tpot, shift),
        "outcomes": [one.good, one.bad, one.at + shift],
        "efforts": {effort: _estimate(found, shift) for effort, found in seen.efforts.items()},
    }


def _seen(state: Mapping[str, Any], shift: float, now: float) -> Seen:
    seen = Seen()
    for name, found in (("ttft", seen.ttft), ("tpot", seen.tpot), ("whole", seen.whole_tpot)):
        _fill(found, state[name], shift, now)
    seen.answers = max(int(state["answers"]), 0)
    good, bad, at = _finite(state["outcomes"], 3)
    seen.outcomes = Outcomes()
    seen.outcomes.good, seen.outcomes.bad = max(good, 0.0), max(bad, 0.0)
    seen.outcomes.at = min(at - shift, now)
    for effort, numbers in list(state["efforts"].items())[:MOST_EFFORTS]:
        _fill(seen.efforts.setdefault(effort, Estimate()), numbers, shift, now)
    return seen


def _lengths(counted: Counted, shift: float) -> dict[str, Any]:
    return {
        "prompt": _mean(counted.prompt, shift),
        "answer": _mean(counted.answer, shift),
        "thought": {effort: _mean(found, shift) for effort, found in counted.thought.items()},
    }


def _counted(state: Mapping[str, Any], shift: float, now: float) -> Counted:
    counted = Counted()
    _set(counted.prompt, state["prompt"], shift, now)
    _set(counted.answer, state["answer"], shift, now)
    for effort, numbers in list(state["thought"].items())[:MOST_EFFORTS]:
        _set(counted.of_effort(effort), numbers, shift, now)
    return counted


def _estimate(found: Estimate, shift: float) -> Numbers:
    return [*_mean(found.fast, shift), *_mean(found.slow, shift), float(found.count)]


def _fill(found: Estimate, state: Any, shift: float, now: float) -> None:
    numbers = _finite(state, 9)
    _set(found.fast, numbers[:4], shift, now)
    _set(found.slow, numbers[4:8], shift, now)
    found.count = max(int(numbers[8]), 0)


def _mean(found: Mean, shift: float) -> Numbers:
    return [found.log, found.square, found.weight, found.at + shift]


def _set(found: Mean, state: Any, shift: float, now: float) -> None:
    found.log, square, weight, at = _finite(state, 4)
    found.square, found.weight = max(square, 0.0), min(max(weight, 0.0), found.memory)
    found.at = min(at - shift, now)  # a clock that was set back makes nothing younger than new


def _finite(numbers: Any, count: int) -> Numbers:
    found = [float(number) for number in numbers]
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(numbers)
    return found
