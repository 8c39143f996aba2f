"""Conversations stay where they are unless moving pays; thoughts go to those who signed them."""

import json
from decimal import Decimal
from typing import Any

import pytest

from llmr.core.catalogue import Model
from llmr.core.conversation import families_in
from llmr.core.decide import Decision, decide
from llmr.core.explain import reason
from llmr.core.price import Prices
from llmr.core.staying import Stay
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sessions import FORGET_S, KEPT, Sessions
from tests.builders import NOW, POLICY, model, names, request, snapshot, telemetry
from tests.harness import Server, upstream

LONG = [{"role": "user", "content": "word" * 20_000}]


def cached(name: str, prompt: str = "3", **more: Any) -> Model:
    """A row whose provider reads a cached prompt for a tenth; USD per million tokens."""
    usd = Decimal(prompt) / 10**6
    base = {"prompt": usd, "completion": usd * 5, "input_cache_read": usd / 10}
    return model(name, price=Prices(base), **more)


def chosen(*rows: Model, stay: Stay | None, cooling: Any = None, **fields: Any) -> Decision:
    of = snapshot(*rows)
    fields = {"messages": LONG, "stream": True, "priority": "cost", **fields}
    return decide(request(**fields), of, telemetry(of, cooling), POLICY, NOW, None, stay)


def test_what_is_cached_is_worth_staying_for() -> None:
    here, other = cached("lab/here"), cached("lab/other", "2")
    assert names(chosen(here, other, stay=None)) == ["lab/other", "lab/here"]
    found = chosen(here, other, stay=Stay("lab/lab/here", 20_000))
    assert names(found) == ["lab/here", "lab/other"]
    assert "lab/other scores higher but the conversation stays where it is" in reason(found)
    cold = chosen(here, other, stay=Stay("lab/lab/here", 0))
    assert names(cold)[0] == "lab/other"


def test_a_small_gain_is_no_reason_to_move_and_a_clear_one_is() -> None:
    here = model("lab/here", ttft=1.0)
    for rival, stays in ((0.95, True), (0.1, False)):
        rows = (here, model("lab/other", ttft=rival, tpot=0.001))
        found = chosen(*rows, stay=Stay("lab/lab/here"), priority="speed", max_tokens=5)
        assert (names(found)[0] == "lab/here") is stays


@pytest.mark.parametrize(
    ("row", "cooling", "fields"),
    [
        (cached("lab/here", context=1000), None, {}),
        (cached("lab/here"), {"lab/lab/here": "down"}, {}),
        (cached("lab/here"), None, {"tools": [{"type": "function"}]}),
        (cached("lab/here", upstream="keyless"), None, {}),
        (cached("lab/here", barred="router"), None, {}),
        (cached("lab/here"), None, {"preferred_models": ["lab/other"]}),
    ],
)
def test_nobody_stays_where_the_request_may_not_go(
    row: Model, cooling: Any, fields: dict[str, Any]
) -> None:
    other = cached("lab/other", "2", supports=["tools"])
    target = row.target
    found = chosen(row, other, stay=Stay(target, 20_000), cooling=cooling, **fields)
    assert names(found)[0] == "lab/other"


def test_a_decision_that_stays_is_worked_out_again_to_the_bit() -> None:
    rows = [cached(f"lab/{n}", str(1 + n / 10)) for n in range(20)]
    stay = Stay("lab/lab/9", 15_000)
    found = chosen(*rows, stay=stay)
    assert names(found)[0] == "lab/9"
    again = decide(
        found.request, found.snapshot, found.telemetry, found.policy, found.now, None, found.stay
    )
    assert again == found
    assert chosen(*rows, stay=Stay("lab/lab/gone", 1)).chain == chosen(*rows, stay=None).chain


# --- which conversation it is ---

FIRST = {"role": "user", "content": "Hello"}
TURN = [FIRST, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "More"}]


def test_conversations_are_told_apart_by_id_or_by_how_they_began() -> None:
    plain = request(messages=[FIRST])
    later = request(messages=TURN)
    assert plain.session == later.session != request(messages=[TURN[2]]).session
    assert (plain.continues, later.continues) == (False, True)
    named = request(messages=[FIRST], session_id="s1")
    assert named.continues
    assert named.session == request(messages=TURN, session_id="s1").session != plain.session
    assert named.session == request({"x-session-id": "s1"}, messages=[FIRST]).session
    assert request(messages=[FIRST], user="u").session != plain.session
    assert request(messages=[FIRST], session_id=None).session == plain.session
    assert request(messages=[FIRST], model="lab/one").session == b""
    system = {"role": "system", "content": "Be brief."}
    assert request(messages=[system, FIRST]).session != plain.session


def test_sessions_are_bounded_and_forgotten() -> None:
    sessions, row = Sessions(), cached("lab/here")
    for number in range(KEPT + 10):
        sessions.note(str(number).encode(), row, 5000, 0.0)
    assert len(sessions) == KEPT
    assert sessions.find(b"0", 0.0) is None
    last = str(KEPT).encode()
    assert sessions.find(last, FORGET_S) == Stay("lab/lab/here", 5000)
    assert sessions.find(last, FORGET_S + 1.0) is None
    sessions.note(b"x", model("lab/plain"), 5000, 0.0)
    sessions.note(b"y", row, 100, 0.0)
    assert sessions.find(b"x", 0.0) == Stay("lab/lab/plain", 0)
    assert sessions.find(b"y", 0.0) == Stay("lab/lab/here", 0)


# --- thoughts ---


def thoughts(form: str) -> list[dict[str, Any]]:
    return [{"type": "reasoning.text", "text": "Hm.", "signature": "x", "format": form, "index": 0}]


@pytest.mark.parametrize(
    ("form", "family"),
    [
        ("anthropic-claude-v1", {"anthropic"}),
        ("openai-responses-v1", {"openai"}),
        ("google-gemini-v1", {"google"}),
        ("xai-responses-v1", {"x-ai"}),
        ("unknown", set()),
        ("new-format-v3", set()),
    ],
)
def test_thoughts_name_who_signed_them(form: str, family: set[str]) -> None:
    assert families_in(json.dumps(thoughts(form)).encode()) == family


def test_thoughts_of_another_family_are_left_out_and_of_its_own_are_sent(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    said = [
        FIRST,
        {**TURN[1], "reasoning_details": thoughts("anthropic-claude-v1"), "note": 1.50},
        TURN[2],
    ]
    with Server(upstream(sandbox_process.base_url)) as server:
        for name in ("anthropic/claude-sonnet-4.6", "openai/gpt-5.4-mini"):
            assert server.chat(messages=said, models=[name]).status == 200
            assert server.chat(messages=said, model=name).status == 200
    sent = [one["body"]["messages"][1] for one in sandbox.attempts()]
    assert ["reasoning_details" in one for one in sent] == [True, True, False, True]
    assert sent[2] == {**TURN[1], "note": 1.5}


def test_a_conversation_stays_and_its_id_goes_on(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    with Server(upstream(sandbox_process.base_url)) as server:
        headers = {"x-session-id": "s-1"}
        first = server.chat(model="auto", messages=[FIRST], headers=headers)
        where = first.headers["x-llmr-model"]
        for _ in range(5):
            again = server.chat(model="auto:cost", messages=TURN, headers=headers)
            assert again.headers["x-llmr-model"] == where or again.status == 200
        decision = again.headers["x-llmr-decision-id"]
        assert server.request("GET", f"/v1/decisions/{decision}").status == 200
    assert {one["headers"].get("x-session-id") for one in sandbox.attempts()} == {"s-1"}
