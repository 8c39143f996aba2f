"""Two at a time: one answer, the loser closed at once and on the bill, and no more than allowed."""

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from llmr.calls import call_for
from llmr.core.body import Body
from llmr.core.decide import Policy, decide
from llmr.core.hedging import LATE_SHARE, PAYING_SHARE, Hedges
from llmr.core.learner import Learner
from llmr.core.look import Now
from llmr.core.request import parse
from llmr.execution.billing import cost_of
from llmr.execution.executor import Executor
from llmr.execution.types import Limits, Outcome
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.builders import NOW, model, raw, snapshot
from tests.harness import Server, eventually, upstream
from tests.test_schedules import SSE, Sink, delta
from tests.virtual import Played, Scripted, run

ROWS = snapshot(*(model(name, ttft=0.5 + n / 100) for n, name in enumerate("abc")))
LATE_S = 0.5 * 2.5**LATE_SHARE  # the first of them, as nothing was seen of it
Script = Callable[[int, Any], tuple[float, Any]]


def saying(word: str, after: float, *, steps: list[Any] | None = None) -> tuple[float, Any]:
    """An answer whose first content comes so late; every token names who said it."""
    tokens = [(0.01, delta(word)) for _ in range(5)]
    whole = [(after, delta(word)), *tokens, (0.01, delta(None, "stop")), (0.0, line_done())]
    return 0.0, (200, SSE, steps if steps is not None else whole)


def line_done() -> bytes:
    return b"data: [DONE]\n\n"


class World:
    """An executor in front of scripted targets, in virtual time."""

    def __init__(self, scripts: dict[str, Script], share: float = 1.0, **limits: Any) -> None:
        self.upstream = Scripted("lab", scripts)
        self.hedges = Hedges(share)
        loop = asyncio.get_running_loop()
        self.executor = Executor(
            {"lab": self.upstream},
            Learner(random.Random(1).random),
            Limits(**{"attempts": 3, "idle_s": 20.0, **limits}),
            (),
            loop.time,
            self.hedges,
        )

    async def ask(self, **fields: Any) -> tuple[str, Outcome, float]:
        """(text, outcome, seconds to the first content) of a request."""
        loop = asyncio.get_running_loop()
        body = Body(raw(**{"stream": True, "priority": "speed", **fields}))
        known = self.executor.learner.publish(ROWS, loop.time())
        one = parse(body, {}, model_optional=True)
        policy, now = Policy(frozenset(("lab",))), Now(loop.time(), NOW.wall)
        decision = replace(decide(one, ROWS, known, policy, now), chain=(0, 1, 2))
        call = call_for(body, decision, self.executor.deadline(60.0, None), keep=False)
        sink, begun = Sink(), loop.time()
        outcome = await self.executor.run(call, sink if one.stream else None)
        assert Played.open == 0
        blocks = [b[6:] for b in sink.data.decode().split("\n\n") if b.startswith("data: {")]
        choices = [c for block in blocks for c in json.loads(block).get("choices", ())]
        text = "".join(c["delta"].get("content") or "" for c in choices)
        return text, outcome, (outcome.ttft_s or loop.time() - begun)


def play(scripts: dict[str, Script], share: float = 1.0, **fields: Any) -> Any:
    async def main() -> Any:
        world = World(scripts, share)
        return (*await world.ask(**fields), world)

    Played.open = 0
    return run(main())


def always(word: str, after: float) -> Script:
    return lambda _n, _body: saying(word, after)


def outcomes(outcome: Outcome) -> list[tuple[str, str]]:
    return [(attempt.model, attempt.outcome) for attempt in outcome.attempts]


def test_r06_a_hedge_wins_and_the_loser_is_closed_and_billed() -> None:
    text, outcome, first, world = play({"a": always("A", 9.0), "b": always("B", 0.3)})
    assert text == "B" * 6
    assert outcomes(outcome) == [("a", "outrun"), ("b", "ok")]
    assert outcome.model is not None
    assert outcome.model.id == "b"
    assert first == pytest.approx(LATE_S + 0.3, abs=0.05)
    assert (world.hedges.sends, world.hedges.won) == (1, 1)
    assert cost_of(outcome.attempts[0], 0.0) == (None, "unknown"), "nobody knows, and it says so"
    seen = world.executor.learner.targets["lab/a"]
    assert seen.ttft.fast.weight > 0, "that it took longer is evidence"


def test_r06_a_hedge_loses() -> None:
    text, outcome, _, world = play({"a": always("A", LATE_S + 0.2), "b": always("B", 5.0)})
    assert text == "A" * 6
    assert outcomes(outcome) == [("a", "ok"), ("b", "outrun")]
    assert (world.hedges.sends, world.hedges.won) == (1, 0)


def test_r06_a_tie_has_one_answer() -> None:
    text, outcome, _, _ = play({"a": always("A", LATE_S + 1.0), "b": always("B", 1.0)})
    assert text in ("A" * 6, "B" * 6)
    assert sorted(word for _, word in outcomes(outcome)) == ["ok", "outrun"]


def test_r06_where_both_fail_the_next_is_tried() -> None:
    def broken(_n: int, _body: Any) -> tuple[float, Any]:
        return 2.0, "connect"

    scripts = {"a": broken, "b": broken, "c": always("C", 0.2)}
    text, outcome, _, _ = play(scripts)
    assert text == "C" * 6
    assert outcomes(outcome)[-1] == ("c", "ok")
    assert [word for _, word in outcomes(outcome)[:-1]] == ["transport"] * 2
    _, outcome, _, _ = play({"a": broken, "b": broken, "c": broken})
    assert outcome.error is not None
    assert len(outcome.attempts) == 3


def test_r06_one_that_fails_leaves_the_other_its_chance() -> None:
    def fails(_n: int, _body: Any) -> tuple[float, Any]:
        return 0.2, "reset"

    text, outcome, _, _ = play({"a": always("A", 3.0), "b": fails, "c": always("C", 0.1)})
    assert text == "A" * 6
    assert outcomes(outcome) == [("a", "ok"), ("b", "reset")]


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False},
        {"priority": "balanced"},
        {"max_cost_usd": 5.0},
    ],
)
def test_nothing_is_hedged_that_must_not_be(fields: dict[str, Any]) -> None:
    def whole(_n: int, body: Any) -> tuple[float, Any]:
        if body.get("stream"):
            return saying("A", 3.0)
        message = {"role": "assistant", "content": "A"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        data = json.dumps({"id": "x", "choices": [choice]}).encode()
        return 3.0, (200, {"content-type": "application/json"}, [(0.0, data)])

    _, outcome, _, world = play({"a": whole, "b": always("B", 0.1)}, **fields)
    assert outcomes(outcome) == [("a", "ok")]
    assert world.hedges.sends == 0


def test_no_hedge_after_the_commit_point() -> None:
    steps = [(0.1, delta("A")), (9.0, delta("A")), (0.0, delta(None, "stop")), (0.0, line_done())]
    slow = {"a": lambda _n, _b: saying("A", 0.1, steps=steps), "b": always("B", 0.1)}
    text, outcome, _, _ = play(slow)
    assert text == "AA"
    assert outcomes(outcome) == [("a", "ok")]


def test_whoever_leaves_closes_both() -> None:
    async def main() -> list[tuple[str, str]]:
        world = World({"a": always("A", 9.0), "b": always("B", 9.0)})
        asking = asyncio.create_task(world.ask())
        await asyncio.sleep(LATE_S + 0.5)
        assert Played.open == 2
        found = world.executor
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert Played.open == 0
        assert found.hedges is not None
        return [("sends", str(found.hedges.sends))]

    Played.open = 0
    assert run(main()) == [("sends", "1")]


def stalled(rng: random.Random, word: str, share: float) -> Script:
    def script(_n: int, _body: Any) -> tuple[float, Any]:
        usual = 0.5 * rng.lognormvariate(0.0, 0.35)
        return saying(word, usual + (10.0 if rng.random() < share else 0.0))

    return script


def p99(share: float, hedge: float, count: int) -> tuple[float, Hedges, int]:
    async def main() -> tuple[float, Hedges, int]:
        rng = random.Random(3)
        words = {"a": "A", "b": "B", "c": "C"}
        scripts = {name: stalled(rng, word, share) for name, word in words.items()}
        world = World(scripts, hedge)
        if not hedge:
            world.executor.hedges = None
        first, mixed = [], 0
        for _ in range(count):
            text, outcome, took = await world.ask()
            assert outcome.error is None
            mixed += len(set(text)) != 1 or len(text) != 6
            first.append(took)
        return sorted(first)[int(0.99 * count)], world.hedges, mixed

    Played.open = 0
    return run(main())


def test_stalled_first_tokens_are_got_round_and_healthy_ones_left_alone() -> None:
    plain, _, _ = p99(0.05, 0.0, 600)
    hedged, hedges, mixed = p99(0.05, 0.03, 3000)
    assert plain > 5.0, "without hedging the limit on the first content ends a stall of 10 s"
    assert hedged < 0.35 * plain
    assert mixed == 0
    assert hedges.sends <= PAYING_SHARE * hedges.requests
    _, healthy, mixed = p99(0.0, 0.03, 1200)
    assert mixed == 0
    assert 0 < healthy.sends <= 0.03 * healthy.requests


def test_a_router_with_hedging_on_asks_a_second_model(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url)
    tree["routing"] = {"hedge": "auto", "hedge_share": 0.5, "explore": {"share": 0}}
    stall = {"kind": "slow_first_token", "seconds": 30}
    said: dict[str, Any] = {"model": "auto:speed", "stream": True}
    with Server(tree) as server:
        for _ in range(3):
            first = server.chat(**said).headers["x-llmr-model"]
        sandbox.fault(first, stall, times=1)
        reply = server.chat(**said)
        assert reply.status == 200
        assert reply.headers["x-llmr-model"] != first
        assert reply.events()[-1] == "[DONE]"
        decision = reply.headers["x-llmr-decision-id"]
        eventually(
            lambda: server.request("GET", f"/v1/decisions/{decision}").json["outcome"] is not None,
            "it is on record",
        )
        told = server.request("GET", f"/v1/decisions/{decision}").json["outcome"]["attempts"]
        assert [one["outcome"] for one in told] == ["outrun", "ok"]
        assert server.request("GET", "/health").json["hedging"]["won"] == 1
