"""Load and limits: learned, not assumed, and part of the latency that decisions expect."""

import asyncio
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmr.core.decide import decide
from llmr.core.learner import Learner
from llmr.core.load import MOST, Load
from llmr.core.retry_after import headroom
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.builders import NOW, POLICY, model, request, snapshot
from tests.harness import Server, eventually, upstream


def busy(slope: float, answers: int = 300, noise: float = 0.3) -> tuple[Learner, float]:
    """A learner that saw one target under loads from 1 to 32, and the time now."""
    learner, rng = Learner(random.Random(1).random), random.Random(2)
    row = snapshot(model("a", ttft=0.5)).models[0]
    for number in range(answers):
        flying = 2 ** rng.randrange(6)
        seconds = 0.2 * flying**slope * math.exp(rng.gauss(0.0, noise))
        learner.sent(row)
        learner.over(row)
        learner.observe(row, seconds, None, float(number), flying=flying)
    return learner, float(answers)


def expected_s(learner: Learner, now: float, flying: int) -> float:
    rows = snapshot(model("a", ttft=0.5))
    for _ in range(flying):
        learner.sent(rows.models[0])
    found = learner.publish(rows, now).ttft_s[0]
    for _ in range(flying):
        learner.over(rows.models[0])
    return found


def test_a_target_that_queues_is_expected_to_be_slower_the_more_it_has() -> None:
    learner, now = busy(slope=0.8)
    alone, eight, many = (expected_s(learner, now, flying) for flying in (0, 7, 31))
    assert alone == pytest.approx(0.2, rel=0.35)
    assert eight == pytest.approx(0.2 * 8**0.8, rel=0.35)
    assert many == pytest.approx(0.2 * 32**0.8, rel=0.45)


def test_a_target_that_does_not_mind_is_not_suspected() -> None:
    learner, now = busy(slope=0.0)
    assert learner.loads["lab/a"].slope < 0.05
    assert expected_s(learner, now, 31) == pytest.approx(expected_s(learner, now, 0), rel=0.2)


def test_requests_spread_once_the_best_is_busy() -> None:
    rows = snapshot(model("a", ttft=0.2), model("b", ttft=0.4))
    learner, now = busy(slope=0.8)
    asked = request(priority="speed", stream=True)
    chosen = []
    for _ in range(12):
        known = learner.publish(rows, now)
        index = decide(asked, rows, known, POLICY, NOW).chain[0]
        learner.sent(rows.models[index])
        chosen.append(rows.models[index].id)
    assert chosen[0] == "a"
    assert min(chosen.count("a"), chosen.count("b")) >= 2


def test_a_sudden_crowd_is_told_at_once_and_only_where_it_matters() -> None:
    learner, now = busy(slope=0.8)
    row = snapshot(model("a")).models[0]
    expected_s(learner, now, 0)
    before = learner.surprised
    learner.sent(row)
    learner.sent(row)
    assert (before, learner.surprised) == (False, True)
    other = snapshot(model("b")).models[0]
    calm = Learner(random.Random(1).random)
    for _ in range(100):
        calm.sent(other)
    assert not calm.surprised


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(-5, 5), st.floats(0, 4000))))
def test_load_stays_within_its_bounds(seen: list[tuple[int, float, float]]) -> None:
    load, now = Load(), 0.0
    for flying, miss, gap in seen:
        now += gap
        load.learn(flying, miss, now)
        assert 1.0 / MOST <= load.times(flying) <= MOST


def test_nothing_left_of_a_limit_is_a_wait_until_it_is_reset() -> None:
    rows = snapshot(model("a", ttft=0.2), model("b", ttft=1.0))
    learner, asked = Learner(random.Random(1).random), request(priority="speed", stream=True)
    row = rows.models[0]

    def first(now: float) -> str:
        known = learner.publish(rows, now)
        return rows.models[decide(asked, rows, known, POLICY, NOW).chain[0]].id

    learner.sent(row)
    learner.headroom(row, 2, 30.0, 0.0)
    assert first(0.0) == "a"
    learner.sent(row)
    learner.sent(row)
    assert learner.surprised, "that was the last one"
    assert first(1.0) == "b"
    learner.observe(row, 0.2, 0.01, 2.0)
    assert first(30.5) == "a"


@pytest.mark.parametrize(
    ("left", "reset", "tokens_left", "tokens_reset", "found"),
    [
        ("99", "1s", "10000", "6m0s", (10, 360.0)),
        ("0", "1.5s", "0", "6m0s", (0, 360.0)),
        ("0", "120ms", "x", "", (0, 0.12)),
        ("3", "1h2m3s", "", "", (3, 3723.0)),
        ("-1", "1s", "", "", None),
        ("5", "2026-01-01T00:00:00Z", "", "", None),
        ("nan", "1s", "nan", "1s", None),
    ],
)
def test_headroom_is_read_as_it_is_said(
    left: str, reset: str, tokens_left: str, tokens_reset: str, found: tuple[int, float] | None
) -> None:
    said = {"requests": (left, reset), "tokens": (tokens_left, tokens_reset)}
    headers = {
        f"x-ratelimit-{word}-{what}".encode(): value.encode()
        for what, values in said.items()
        for word, value in zip(("remaining", "reset"), values, strict=True)
    }
    assert headroom(headers, 1000.0) == (found if found is None else pytest.approx(found))


def test_every_way_a_request_ends_lets_go_of_the_target(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url)
    with Server(tree) as server:
        learner = server.gateway.learner
        for kind in ("status", "reset", "cut", "ok"):
            name = server.chat(model="auto:speed").headers["x-llmr-model"]
            if kind == "status":
                sandbox.fault(name, {"kind": "status", "status": 500}, times=2)
            elif kind != "ok":
                sandbox.fault(name, {"kind": kind}, times=2)
            server.chat(model=name, stream=True)
            server.chat(model=name)

        async def gone() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            body = b'{"model":"auto","stream":true,"messages":[{"role":"user","content":"x"}]}'
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
                % len(body)
                + body
            )
            await reader.read(10)
            writer.close()

        asyncio.run(gone())
        assert learner.loads
        eventually(lambda: not any(load.flying for load in learner.loads.values()), "all are over")
