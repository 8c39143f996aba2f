"""Feedback: what it learns, what it does not, and who may give it."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmr.core.quality.feedback import HALF_LIFE_S, MODELS_KEPT, MOST_SHIFT, Feedback
from llmr.core.quality.kinds import KINDS
from llmr.opinion import corrected
from llmr.sandbox.process import SandboxProcess
from tests.builders import decided, model, snapshot
from tests.harness import Reply, Server, eventually, upstream

SHARES = st.floats(0, 1)
CODE, CHAT = KINDS.index("code"), KINDS.index("chat")
HI = [{"role": "user", "content": "Write a Python function that adds two numbers."}]
Judge = Callable[..., Reply]


def sigma(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


def quality(feedback: Feedback, name: str, kind: int, base: float) -> float:
    """What a model of this base quality is taken for on a kind."""
    shift = feedback.shift(name, 0.0)
    overall, by_kind = shift or (0.0, (0.0,) * len(KINDS))
    return sigma(math.log(base / (1.0 - base)) + overall + by_kind[kind])


@pytest.mark.parametrize("seed", range(10))
def test_a_planted_difference_is_found(seed: int) -> None:
    """One of two models taken for .6 is good for .75 of answers on code: 200 opinions tell."""
    rng, feedback = random.Random(seed), Feedback()
    for _ in range(200):
        for name, true in (("better", 0.75), ("other", 0.6)):
            feedback.add(name, [(CODE, 1.0)], float(rng.random() < true), 0.6, 0.0)
    better, other = (quality(feedback, name, CODE, 0.6) for name in ("better", "other"))
    assert better > other
    assert better - 0.6 > 0.05
    assert abs(quality(feedback, "better", CHAT, 0.6) - 0.6) < 0.25 * (better - 0.6)


@pytest.mark.parametrize(("expected", "true"), [(0.9, 0.8), (0.95, 0.85), (0.1, 0.3), (0.5, 0.6)])
def test_a_miss_far_from_the_middle_counts_by_what_it_can_tell(
    expected: float, true: float
) -> None:
    feedback = Feedback()
    for _ in range(400):
        feedback.add("m", [(CODE, 1.0)], true, expected, 0.0)
    assert 0.5 < (quality(feedback, "m", CODE, expected) - expected) / (true - expected) < 1.5


def test_noise_does_not_drift() -> None:
    """Of 200 models that are what they were taken for, hardly any moves by a tenth."""
    rng, feedback = random.Random(0), Feedback()
    for number in range(200):
        for _ in range(200):
            feedback.add(f"m{number}", [(CODE, 1.0)], float(rng.random() < 0.6), 0.6, 0.0)
    moved = [abs(quality(feedback, f"m{n}", CODE, 0.6) - 0.6) for n in range(200)]
    assert sum(moved) / len(moved) < 0.04
    assert sum(shift > 0.1 for shift in moved) <= 4


@given(st.lists(st.tuples(SHARES, SHARES, st.floats(0, 1e8), st.integers(0, 9)), max_size=60))
def test_it_is_bounded_whatever_is_said(said: list[tuple[float, float, float, int]]) -> None:
    feedback = Feedback()
    for score, expected, now, kind in said:
        feedback.add("m", [(kind, 1.0)], score, expected, now)
    shift = feedback.shift("m", 1e8)
    if said:
        assert shift is not None
        assert all(abs(shift[0] + more) <= MOST_SHIFT + 1e-9 for more in (0.0, *shift[1]))


def test_what_is_old_counts_less_and_less() -> None:
    feedback = Feedback()
    for _ in range(50):
        feedback.add("m", [], 1.0, 0.6, 0.0)
    shifts = [feedback.shift("m", months * HALF_LIFE_S) for months in (0, 1, 3, 12)]
    sizes = [shift[0] for shift in shifts if shift is not None]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.01


def test_a_changed_opinion_takes_the_place_of_the_first() -> None:
    once, twice = Feedback(), Feedback()
    once.add("m", [(CODE, 0.7)], 1.0, 0.6, 0.0)
    twice.add("m", [(CODE, 0.7)], 0.0, 0.6, 0.0)
    twice.change("m", [(CODE, 0.7)], 1.0, 0.0, 0.0)
    first, second = once.shift("m", 0.0), twice.shift("m", 0.0)
    assert first is not None
    assert second is not None
    assert math.isclose(first[0], second[0])
    assert all(math.isclose(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_the_model_that_was_longest_not_spoken_of_is_forgotten_first() -> None:
    feedback = Feedback()
    for number in range(MODELS_KEPT):
        feedback.add(f"m{number}", [], 1.0, 0.6, 0.0)
    feedback.add("m0", [], 1.0, 0.6, 0.0)
    feedback.add("new", [], 1.0, 0.6, 0.0)
    assert feedback.shift("m0", 0.0) is not None
    assert feedback.shift("m1", 0.0) is None
    assert len(feedback.targets) == MODELS_KEPT


def test_rows_nobody_spoke_of_stay_as_they_are() -> None:
    of, feedback = snapshot(model("lab/a"), model("lab/b")), Feedback()
    assert corrected(of, feedback, 0.0) is of
    feedback.add(of.models[0].target, [], 1.0, 0.6, 0.0)
    after = corrected(of, feedback, 0.0)
    assert after.models[0].skill[0] > of.models[0].skill[0]
    assert after.models[1] is of.models[1]


def test_where_no_prompt_is_read_feedback_counts_as_well() -> None:
    of, feedback = snapshot(model("lab/a", quality=0.6), model("lab/b", quality=0.6)), Feedback()
    for _ in range(100):
        feedback.add(of.models[1].target, [], 1.0, 0.6, 0.0)
    after = corrected(of, feedback, 0.0)
    assert after.models[1].believed > 0.65
    assert after.models[0].believed == of.models[0].believed
    assert decided(after, priority="quality").model.id == "lab/b"


# --- the route ---


@pytest.fixture
def judge(server: Server) -> Judge:
    def give(**body: Any) -> Reply:
        return server.request("POST", "/v1/feedback", body)

    return give


def answered(server: Server, **fields: Any) -> str:
    reply = server.chat(**{"model": "auto", "messages": HI, **fields})
    number = reply.headers["x-llmr-decision-id"]
    path = f"/v1/decisions/{number}"
    eventually(lambda: server.request("GET", path).json["outcome"] is not None, "told")
    return number


@pytest.mark.parametrize(
    ("said", "worth"), [({"score": 0.25}, 0.25), ({"label": "good"}, 1.0), ({"label": "bad"}, 0.0)]
)
def test_an_opinion_is_taken(
    server: Server, judge: Judge, said: dict[str, Any], worth: float
) -> None:
    number = answered(server)
    reply = judge(decision_id=number, **said)
    assert (reply.status, reply.json["score"], reply.json["kind"]) == (200, worth, "code")
    model_id = reply.json["model"]
    server.gateway._corrects_at = 0.0
    eventually(lambda: not server.gateway.feedback.changed, "published")
    (row,) = [m for m in server.gateway.snapshot.models if m.id == model_id]
    assert row.learned is not None
    rows = server.request("GET", "/models").json["models"]
    (shown,) = [one for one in rows if one["id"] == model_id]
    assert "feedback" in shown["quality_sources"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"score": 1}, 400, "decision_id"),
        ({"decision_id": "dec-x"}, 400, "score"),
        ({"decision_id": "dec-x", "score": 2}, 400, "score"),
        ({"decision_id": "dec-x", "score": "much"}, 400, "score"),
        ({"decision_id": "dec-x", "label": "so-so"}, 400, "label"),
        ({"decision_id": 7, "score": 1}, 400, "decision_id"),
        ({"decision_id": "dec-x", "score": 1, "label": "good"}, 400, "label"),
        ({"decision_id": "dec-x", "score": 1}, 404, "decision_id"),
        ({"id": "dec-x", "score": 1}, 404, "id"),
    ],
)
def test_what_is_wrong_is_named(
    judge: Judge, body: dict[str, Any], status: int, param: str
) -> None:
    reply = judge(**body)
    assert (reply.status, reply.error["param"]) == (status, param)


@pytest.mark.parametrize("body", [b'{"a":' + b"[" * 100_000, b'{"label":"\xff"}', b"[]", b"null"])
def test_a_body_that_is_none_is_a_clear_400(server: Server, body: bytes) -> None:
    reply = server.request("POST", "/v1/feedback", body)
    assert reply.status == 400
    assert reply.error["code"] in ("invalid_json", "invalid_type")
    assert reply.error["param"] is None


def test_a_decision_without_an_answer_cannot_be_judged(server: Server, judge: Judge) -> None:
    number = server.request("POST", "/v1/decisions", {"messages": HI}).json["id"]
    assert judge(decision_id=number, score=1).status == 409


def test_it_is_off_with_one_setting(sandbox_process: SandboxProcess) -> None:
    tree = upstream(sandbox_process.base_url, routing={"feedback": False})
    with Server(tree, sandbox=True) as server:
        number = answered(server)
        reply = server.request("POST", "/v1/feedback", {"decision_id": number, "score": 1})
        assert (reply.status, reply.error["code"]) == (403, "feedback_off")


def test_nobody_judges_for_another(sandbox_process: SandboxProcess) -> None:
    tree = upstream(sandbox_process.base_url, server={"api_keys": ["key-one", "key-two"]})
    with Server(tree, sandbox=True) as server:
        one, two = ({"authorization": f"Bearer key-{name}"} for name in ("one", "two"))
        reply = server.chat(model="auto", messages=HI, headers=one)
        body = {"decision_id": reply.headers["x-llmr-decision-id"], "score": 0.0}
        assert server.request("POST", "/v1/feedback", body, two).status == 404
        assert not server.gateway.feedback.targets
