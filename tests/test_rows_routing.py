"""Rows of the table of faults that concern routing and health, each named by its id."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from llmr.calls import call_for
from llmr.core.body import Body
from llmr.core.budget import FLOOR, SHARE
from llmr.core.catalogue import Model, Snapshot
from llmr.core.decide import Decision, Policy, decide
from llmr.core.learner import Learner
from llmr.core.look import Now
from llmr.core.request import parse
from llmr.execution.executor import Executor
from llmr.execution.types import Limits, Outcome
from llmr.sandbox.control import Control
from tests.builders import NOW, decided, model, names, raw, snapshot
from tests.harness import Server, free_port
from tests.virtual import Played, Scripted, run

LAB = Policy(frozenset(("lab",)))
JSON = {"content-type": "application/json"}
MESSAGE = {"role": "assistant", "content": "Yes."}
WHOLE = {"id": "x", "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}
GOOD = 200, JSON, [(0.0, msgspec.json.encode(WHOLE))]
DOWN = 503, JSON, [(0.0, b'{"error":{"message":"down","code":503}}')]

Script = Callable[[int, Any], tuple[float, Any]]


class Lab:
    """A router without its surface: rows, what is learned of them, and scripted upstreams."""

    def __init__(
        self,
        rows: Sequence[Model],
        scripts: dict[str, Script],
        limits: Limits | None = None,
        draw: float = 0.5,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.rows: Snapshot = snapshot(*rows)
        self.upstream = Scripted("lab", scripts)
        self.learner = Learner(lambda: draw)
        upstreams = {"lab": self.upstream}
        limits = limits or Limits()
        self.executor = Executor(upstreams, self.learner, limits, (), self.loop.time)

    def decision(self, body: Body, telemetry: Any = None) -> Decision:
        known = telemetry or self.learner.publish(self.rows, self.loop.time())
        asked = parse(body, {}, model_optional=True)
        return decide(asked, self.rows, known, LAB, Now(self.loop.time(), NOW.wall))

    async def ask(
        self, telemetry: Any = None, deadline_ms: float | None = None, **fields: Any
    ) -> Outcome:
        body = Body(raw(**fields))
        found = self.decision(body, telemetry)
        call = call_for(body, found, self.executor.deadline(100.0, deadline_ms), keep=False)
        return await self.executor.run(call, None)

    def sent(self, name: str) -> list[float]:
        return [at for at, to in self.upstream.sends if to == name]


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_r01_a_primary_down_for_a_minute_is_probed_seldom_and_used_again(draw: float) -> None:
    async def play() -> None:
        lab = Lab([model("a", quality=0.99), model("b", quality=0.1)], {}, draw=draw)
        begun, back = lab.loop.time(), None
        lab.upstream._scripts = {
            "a": lambda *_: (0.01, DOWN if lab.loop.time() < begun + 60 else GOOD),
            "b": lambda *_: (0.01, GOOD),
        }
        while back is None and lab.loop.time() < begun + 120:
            outcome = await lab.ask()
            assert outcome.error is None
            assert outcome.model is not None
            if outcome.model.id == "a":
                back = lab.loop.time() - begun
            await asyncio.sleep(4.0)
        assert back is not None
        assert 60 <= back <= 90
        assert 2 <= len([at for at in lab.sent("a") if at < begun + 60]) <= 5

    run(play())


def test_r01_a_burst_after_the_cooldown_sends_one_probe_only() -> None:
    async def play() -> None:
        rows = [model("a", quality=0.99), model("b", quality=0.1)]
        lab = Lab(rows, {"a": lambda *_: (0.5, DOWN), "b": lambda *_: (0.01, GOOD)})
        await lab.ask()
        assert len(lab.sent("a")) == 1
        await asyncio.sleep(6.0)
        known = lab.learner.publish(lab.rows, lab.loop.time())  # each of them would go to it
        outcomes = await asyncio.gather(*(lab.ask(known) for _ in range(50)))
        assert all(outcome.error is None for outcome in outcomes)
        assert len(lab.sent("a")) == 2

    run(play())


def test_r02_all_targets_down_give_a_clean_503_with_the_soonest_time(
    server: Server, sandbox: Control
) -> None:
    first, second = "openai/gpt-5.4-mini", "openai/gpt-5.4"
    for name, seconds in ((first, "80"), (second, "40")):
        fault = {"kind": "status", "status": 503, "headers": {"Retry-After": seconds}}
        sandbox.fault(name, fault)
    reply = server.chat(models=[first, second])
    assert (reply.status, reply.headers["retry-after"]) == (503, "40")
    assert reply.error["message"].startswith("All 2 attempts failed")
    assert reply.headers["x-request-id"]
    # Both cool down now: the one that is free soonest is tried, once, as a last resort.
    reply = server.chat(models=[first, second])
    assert (reply.status, reply.headers["retry-after"]) == (503, "40")
    assert [attempt["model"] for attempt in sandbox.attempts()] == [first, second, second]


@pytest.mark.parametrize("fault", ["reset", "close", {"kind": "status", "status": 503}])
def test_r02_without_a_hint_the_time_is_that_of_the_routers_own_cooldown(
    server: Server, sandbox: Control, fault: Any
) -> None:
    sandbox.fault("*", fault if isinstance(fault, dict) else {"kind": fault})
    for _ in range(3):  # at first both are tried, then one of them as a last resort
        reply = server.chat(models=["openai/gpt-5.4-mini", "openai/gpt-5.4"])
        assert reply.status == 503
        assert reply.headers["x-should-retry"] == "true"
        cooling = server.request("GET", "/health").json["cooling"].values()
        soonest = min(entry["seconds_left"] for entry in cooling)
        assert len(cooling) == 2
        # Rounded up, and told a moment before health was asked.
        assert soonest <= int(reply.headers["retry-after"]) < soonest + 2.5


def test_r02_targets_that_refuse_connections_are_a_503_with_a_time() -> None:
    rows = [{"id": "lab/a"}, {"id": "lab/b"}]
    lab = {"base_url": f"http://127.0.0.1:{free_port()}/v1", "models": rows}
    with Server({"upstreams": {"openrouter": None, "lab": lab}}) as server:
        for names in (["auto"], ["lab/a", "lab/b"]):
            reply = server.chat(models=names) if names[1:] else server.chat(model="auto")
            assert (reply.status, reply.error["code"]) == (503, "upstream_unreachable")
            assert 1 <= int(reply.headers["retry-after"]) <= 6
            assert float(reply.headers["server-timing"].rpartition("dur=")[2]) < 500


def test_r02_the_soonest_time_is_that_of_a_target_passed_over() -> None:
    async def play() -> None:
        lab = Lab([model(name) for name in "ab"], dict.fromkeys("ab", lambda *_: (0.01, DOWN)))
        await lab.ask(models=["a"])  # cools for 5 s, and as the last resort for 10 more
        await lab.ask(models=["b"])
        outcome = await lab.ask(models=["a", "b"])
        assert outcome.error is not None
        assert [name for _, name in lab.upstream.sends] == ["a", "b", "a"]
        assert outcome.error.retry_after_s == pytest.approx(5.0, abs=0.1)  # b, not a

    run(play())


@pytest.mark.parametrize("well", ["b", None])
def test_r02_no_time_is_told_while_a_target_may_be_tried_or_none_ever_helps(
    well: str | None,
) -> None:
    async def play() -> None:
        refused = 401, JSON, [(0.0, b'{"error":{"message":"no","code":401}}')]
        scripts: dict[str, Script] = {"a": lambda *_: (0.01, DOWN if well else refused)}
        lab = Lab([model("a"), model("b")], scripts, Limits(attempts=1))
        outcome = await lab.ask(models=["a", "b"] if well else ["a"])
        assert outcome.error is not None
        assert outcome.error.retryable is bool(well)
        assert outcome.error.retry_after_s is None

    run(play())


def test_r04_a_whole_upstream_that_fails_under_load_gets_little_more_than_its_load() -> None:
    rate, count = 200, 1000
    ids = [f"m{number}" for number in range(3 * count)]

    async def play() -> None:
        scripts: dict[str, Script] = dict.fromkeys(ids, lambda *_: (0.01, DOWN))
        lab = Lab([model(name) for name in ids], scripts)
        known = lab.learner.publish(lab.rows, lab.loop.time())
        running = []
        for number in range(count):  # three targets of its own for each, so no cooldown helps
            chain = ids[3 * number : 3 * number + 3]
            running.append(asyncio.create_task(lab.ask(known, models=chain)))
            await asyncio.sleep(1 / rate)
        outcomes = await asyncio.gather(*running)
        errors = [outcome.error for outcome in outcomes]
        assert all(error is not None and error.status == 503 for error in errors)
        extra = len(lab.upstream.sends) - count
        before_it_showed = 20  # first fallbacks are free until the account is seen to fail
        assert FLOOR < extra <= SHARE * count + FLOOR + before_it_showed

    run(play())


def test_r07_callers_who_leave_change_no_health() -> None:
    async def play() -> None:
        waits = [30.0]
        rows = [model("a", quality=0.99), model("b", quality=0.1)]
        scripts: dict[str, Script] = dict.fromkeys("ab", lambda *_: (waits[0], GOOD))
        lab = Lab(rows, scripts)
        for _ in range(100):
            asking = asyncio.create_task(lab.ask())
            await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert len(lab.sent("a")) == 100
        now = lab.loop.time()
        assert lab.learner.cooling(now) == {}
        assert not lab.learner.failing("lab", now)
        waits[0] = 0.01
        outcome = await lab.ask()
        assert outcome.model is not None
        assert outcome.model.id == "a"
        assert Played.open == 0

    Played.open = 0
    run(play())


def test_r10_the_time_left_bounds_each_attempt() -> None:
    async def play() -> None:
        scripts: dict[str, Script] = dict.fromkeys("abc", lambda *_: (900.0, GOOD))
        lab = Lab([model(name) for name in "abc"], scripts)
        begun = lab.loop.time()
        outcome = await lab.ask(models=["a", "b", "c"], deadline_ms=5000)
        assert outcome.error is not None
        assert outcome.error.status == 504
        assert [name for _, name in lab.upstream.sends] == ["a", "b", "c"]
        assert 4.9 <= lab.loop.time() - begun <= 5.01

    run(play())


def test_r10_no_attempt_begins_that_cannot_finish() -> None:
    async def sent(seconds: float) -> list[str]:
        scripts: dict[str, Script] = dict.fromkeys("ab", lambda *_: (seconds, DOWN))
        lab = Lab([model(name) for name in "ab"], scripts, Limits(first_event_s=10.0))
        outcome = await lab.ask(models=["a", "b"], deadline_ms=5000)
        assert outcome.error is not None
        return [name for _, name in lab.upstream.sends]

    assert run(sent(4.99)) == ["a"]
    assert run(sent(4.5)) == ["a", "b"]


def test_r11_fallbacks_that_come_back_to_one_another_are_tried_once_each() -> None:
    rows = [model("lab/one", quality=0.9), model("lab/two"), model("lab/three", quality=0.1)]
    again = ("lab/two", "lab/one", "lab/two", "lab/one", "lab/three")
    found = names(decided(rows, policy=Policy(frozenset(("lab",)), again)))
    assert found == ["lab/one", "lab/two", "lab/three"]
    assert names(decided(rows, models=["lab/two", "lab/one", "lab/two"])) == ["lab/two", "lab/one"]
