"""What was learned survives: a restart, a kill, a damaged row, a clock that was set."""

import http.client
import json
import math
import random
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmr import learned
from llmr.core import classify
from llmr.core.learner import Learner
from llmr.core.quality.feedback import Feedback
from llmr.ledger.book import open_book, read_learned, write
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.builders import model, request, snapshot
from tests.harness import Server, eventually, upstream
from tests.test_process import Child

ROWS = snapshot(model("a"), model("b"), model("c"))
DAY = 1_786_968_000.0  # in seconds since 1970


def taught() -> tuple[Learner, Feedback]:
    """A learner and opinions that know something, at monotonic time 100."""
    rng = random.Random(1)
    learner, feedback = Learner(rng.random), Feedback()
    usage = {"prompt_tokens": 300, "completion_tokens": 900}
    for number in range(60):
        a, b, _ = ROWS.models
        learner.observe(a, 3.0 * math.exp(rng.gauss(0, 0.2)), 0.05, number + 40.0)
        learner.observe(b, 9.0, 0.01, number + 40.0, effort="high")
        learner.observe(b, None, 0.09, number + 40.0, whole=True)
        learner.count_tokens(a, usage, request(), True, number + 40.0)
        if number % 6 == 0:
            learner.fault(b, classify.SERVER, number + 40.0, None, hard=False)
        feedback.add("lab/a", [(2, 0.7), (5, 0.3)], 1.0, 0.6, DAY - number)
    return learner, feedback


def stored() -> list[tuple[str, str, bytes]]:
    learner, feedback = taught()
    rows = learned.fresh(learner, feedback, 100.0, DAY)
    return [(kind, name, data) for (kind, name), data in rows.items()]


def test_what_was_learned_is_known_after_a_restart_with_another_clock() -> None:
    learner, feedback = taught()
    before = learner.publish(ROWS, 100.0)
    fresh, opinions = Learner(lambda: 0.5), Feedback()
    assert learned.restore(stored(), fresh, opinions, 7.0, DAY) == 4
    after = fresh.publish(ROWS, 7.0)
    for name in ("ttft_s", "tpot_s", "whole_tpot_s", "slow_s", "doubt"):
        assert getattr(after, name) == pytest.approx(getattr(before, name))
    assert after.efforts == pytest.approx(before.efforts)
    assert after.measured == before.measured
    assert opinions.shift("lab/a", DAY) == feedback.shift("lab/a", DAY)
    one, other = (a.counted(ROWS, now).models[0] for a, now in ((learner, 100.0), (fresh, 7.0)))
    assert one.lengths.prompt == pytest.approx(other.lengths.prompt)
    later = Learner(lambda: 0.5)
    learned.restore(stored(), later, Feedback(), 7.0, DAY + 3 * 86_400.0)
    assert later.publish(ROWS, 7.0).ttft_s[0] == pytest.approx(1.0, rel=0.3), "days are days"


def test_a_clock_that_was_set_back_makes_nothing_younger_than_new() -> None:
    fresh = Learner(lambda: 0.5)
    learned.restore(stored(), fresh, Feedback(), 7.0, DAY - 1e6)
    assert fresh.publish(ROWS, 7.0).ttft_s[0] > 2.0
    assert fresh.publish(ROWS, 7.0 + 3 * 86_400.0).ttft_s[0] < 1.5


def test_only_what_is_new_is_written_again() -> None:
    learner, feedback = taught()
    assert len(learned.fresh(learner, feedback, 100.0, DAY)) == 4
    assert learned.fresh(learner, feedback, 101.0, DAY) == {}
    learner.observe(ROWS.models[2], 1.0, 0.02, 102.0)
    assert list(learned.fresh(learner, feedback, 102.0, DAY)) == [("speed", "lab/c")]


def spoilt(change: Any) -> list[tuple[str, str, bytes]]:
    found = []
    for kind, name, data in stored():
        version, state = msgspec.msgpack.decode(data)
        found.append((kind, name, change(version, state)))
    return found


ODD: dict[str, Any] = {
    "cut": lambda v, s: msgspec.msgpack.encode([v, s])[:-3],
    "nothing": lambda v, s: b"",
    "another version": lambda v, s: msgspec.msgpack.encode([99, s]),
    "no state": lambda v, s: msgspec.msgpack.encode([v, None]),
    "a list": lambda v, s: msgspec.msgpack.encode([v, [1, 2]]),
    "text": lambda v, s: msgspec.msgpack.encode([v, dict.fromkeys(s, "x")]),
    "not a number": lambda v, s: msgspec.msgpack.encode([v, {k: [math.nan] * 9 for k in s}]),
    "too short": lambda v, s: msgspec.msgpack.encode([v, {k: [1.0] for k in s}]),
}


@pytest.mark.parametrize("how", ODD)
def test_p07_a_row_that_cannot_be_read_is_as_good_as_none(how: str) -> None:
    fresh, opinions = Learner(lambda: 0.5), Feedback()
    assert learned.restore(spoilt(ODD[how]), fresh, opinions, 7.0, DAY) == 0
    plain = Learner(lambda: 0.5)
    assert fresh.publish(ROWS, 7.0).ttft_s == plain.publish(ROWS, 7.0).ttft_s
    assert opinions.targets == []


def test_absurd_numbers_are_bounded() -> None:
    huge = [50.0, -1.0, 1e30, 1e30, 50.0, -1.0, 1e30, 1e30, 1e9]
    state = {
        "answers": 3,
        "ttft": huge,
        "tpot": huge,
        "whole": huge,
        "outcomes": [-5, 3, 1e30],
        "efforts": {},
    }
    data = msgspec.msgpack.encode([learned.VERSION, state])
    fresh = Learner(lambda: 0.5)
    assert learned.restore([("speed", "lab/a", data)], fresh, Feedback(), 7.0, DAY) == 1
    assert all(math.isfinite(value) for value in fresh.publish(ROWS, 7.0).ttft_s)


def test_the_file_keeps_the_newest_of_a_name(tmp_path: Path) -> None:
    book = open_book(tmp_path / "state.sqlite")
    write(book, {}, {("speed", "lab/a"): b"1", ("speed", "lab/b"): b"2"})
    write(book, {}, {("speed", "lab/a"): b"3"})
    assert read_learned(book) == [("speed", "lab/a", b"3"), ("speed", "lab/b", b"2")]
    book.close()


NAME = "openai/gpt-5.4-nano"


def measured(server: Server) -> int:
    return server.gateway.learner.publish(server.gateway.snapshot, time.monotonic()).measured.get(
        f"openrouter/{NAME}", 0
    )


def test_a_router_knows_after_a_restart_what_it_learned(
    tmp_path: Path, sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    state = {"path": str(tmp_path / "state.sqlite")}
    with Server(upstream(sandbox_process.base_url, state=state)) as server:
        for _ in range(8):
            server.chat(model=NAME, stream=True)
        assert measured(server) == 8
    with Server(upstream(sandbox_process.base_url, state=state)) as server:
        assert measured(server) == 8
        row = next(
            row for row in server.request("GET", "/models").json["models"] if row["id"] == NAME
        )
        assert row["measurements"] == 8


def test_a_kill_loses_the_last_seconds_at_most(
    tmp_path: Path, sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    path = tmp_path / "state.sqlite"
    tree = upstream(sandbox_process.base_url, state={"path": str(path)})

    def kept() -> Learner:
        with closing(open_book(path)) as book:
            fresh = Learner(lambda: 0.5)
            learned.restore(read_learned(book), fresh, Feedback(), 0.0, time.time())
        return fresh

    with Child(tmp_path, tree) as child:
        said = {"model": NAME, "stream": True, "messages": [{"role": "user", "content": "Hi."}]}
        for _ in range(8):
            caller = http.client.HTTPConnection("127.0.0.1", child.port, timeout=30)
            caller.request("POST", "/v1/chat/completions", json.dumps(said))
            assert b"[DONE]" in caller.getresponse().read()
            caller.close()
        target = f"openrouter/{NAME}"

        def all_of_it() -> bool:
            seen = kept().targets.get(target)
            return seen is not None and seen.answers == 8

        eventually(all_of_it, "it is in the file")
        child.signal(signal.SIGKILL)
    assert all_of_it()
