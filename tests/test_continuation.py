"""A cut answer is continued where that is provably right, else it ends with an error."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llmr.core.splice import Departed, Splice
from llmr.core.sse import Event
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.text import CANONICAL_ANSWER
from tests.harness import Reply, Server, upstream

FIRST, SECOND = "fb-s08-stream-cut", "fb-ok"
IDENTITY = {"id": "gen-first", "model": "first", "created": 7}


def rows(*names: str, supports: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return [{"id": name, "supports": list(supports)} for name in names]


def tree(base_url: str, supports: tuple[str, ...] = (), **limits: Any) -> dict[str, Any]:
    names = (FIRST, "fb-s09-stream-stall", SECOND, "fb-ok-noprefill")
    found = upstream(base_url, limits={"idle_s": 0.3, **limits})
    found["upstreams"]["openrouter"]["models"] = rows(*names, supports=supports)
    return found


@pytest.fixture
def quick(sandbox_process: SandboxProcess, sandbox: Control) -> Iterator[Control]:
    before = {"fb_token_s": 0.015, "fb_first_token_s": 0.05}
    sandbox.settings(fb_token_s=0.0, fb_first_token_s=0.0)
    yield sandbox
    sandbox.settings(**before)


def whole(reply: Reply) -> None:
    """The caller got one answer: all of it, one id, one role, one finish, one usage, one end."""
    *events, done = reply.events()
    assert done == "[DONE]"
    assert reply.text() == CANONICAL_ANSWER
    assert len({event["id"] for event in events}) == 1
    assert len({event["model"] for event in events}) == 1
    finishes = [c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]]
    assert finishes == ["stop"]
    assert len([event for event in events if event.get("usage")]) == 1


@pytest.mark.parametrize("first", [FIRST, "fb-s09-stream-stall"])
@pytest.mark.parametrize("second", [SECOND, "fb-ok-noprefill"])
@pytest.mark.parametrize("supports", [(), ("prefill",)])
def test_s03_s06_s24_a_cut_or_stalled_answer_goes_on_elsewhere(
    sandbox_process: SandboxProcess,
    quick: Control,
    first: str,
    second: str,
    supports: tuple[str, ...],
) -> None:
    with Server(tree(sandbox_process.base_url, supports=supports)) as server:
        reply = server.chat(models=[first, second], stream=True)
        whole(reply)
        account = server.request("GET", f"/v1/decisions/{reply.headers['x-llmr-decision-id']}").json
        tried = [(a["model"], a["outcome"]) for a in account["outcome"]["attempts"]]
        assert tried[0][0] == first
        assert tried[-1] == (second, "ok")
        asked = "assistant prefill" in [a["added"] for a in account["outcome"]["attempts"]]
        assert asked is bool(supports)
        assert server.request("GET", "/metrics").json["errors_count"] == 0
    sent = quick.attempts(second)[0]["body"]["messages"]
    assert (sent[-1]["role"] == "assistant") is bool(supports)


def test_s24_an_answer_that_departs_ends_with_the_first_failure(
    server: Server, sandbox: Control
) -> None:
    first, second = "openai/gpt-5.4-mini", "openai/gpt-5.4"
    # Each ordinary model of the sandbox ends its answer with its own name.
    sandbox.fault(first, {"kind": "cut", "after_tokens": 68, "how": "close"})
    *_, last = server.chat(models=[first, second], stream=True).events()
    assert last["error"]["code"] == "upstream_cut_answer"
    assert "middle of the answer" in last["error"]["message"]


@pytest.mark.parametrize("setting", ["never", "prefill"])
def test_the_setting_holds(sandbox_process: SandboxProcess, quick: Control, setting: str) -> None:
    with Server(tree(sandbox_process.base_url, (), **{"continue": setting})) as server:
        *_, last = server.chat(models=[FIRST, SECOND], stream=True).events()
    assert last["error"]["code"] == "upstream_cut_answer"
    assert quick.attempts(SECOND) == []


def test_an_account_that_is_cooling_continues_nothing(
    sandbox_process: SandboxProcess, quick: Control
) -> None:
    config = tree(sandbox_process.base_url)
    lab = {"base_url": sandbox_process.base_url, "models": rows(FIRST, "openai/gpt-4o")}
    config["upstreams"]["lab"] = lab
    with Server(config) as server:
        quick.fault("openai/gpt-4o", {"kind": "status", "status": 401})
        assert server.chat(model="openai/gpt-4o").status == 502
        whole(server.chat(models=[FIRST, SECOND], stream=True))
    assert [a["model"] for a in quick.attempts()][1:] == [FIRST, SECOND]


def test_r04_continuations_are_paid_from_the_budget_of_retries(
    server: Server, sandbox: Control
) -> None:
    model, cuts = "openai/gpt-5.4-mini", 40
    finished = 0
    for number in range(3 * cuts):  # two whole answers for each that is cut: the target stays well
        cut = number % 3 == 0
        if cut:
            sandbox.fault(model, {"kind": "cut", "after_tokens": 5, "how": "close"}, times=1)
        ended = server.chat(model=model, stream=True).events()[-1] == "[DONE]"
        assert ended or cut
        finished += ended and cut
    assert 10 <= finished <= 10 + 3 * cuts // 5


def test_an_upstream_without_its_key_continues_nothing(
    sandbox_process: SandboxProcess, quick: Control
) -> None:
    config = tree(sandbox_process.base_url)
    keyless = {"base_url": sandbox_process.base_url, "api_key": "", "models": rows(FIRST)}
    config["upstreams"]["keyless"] = keyless
    with Server(config) as server:
        reply = server.chat(models=[FIRST, SECOND], stream=True)
        whole(reply)
        path = f"/v1/decisions/{reply.headers['x-llmr-decision-id']}"
        attempts = server.request("GET", path).json["outcome"]["attempts"]
    assert [(a["upstream"], a["model"]) for a in attempts] == [
        ("openrouter", FIRST),
        ("openrouter", SECOND),
    ]


def test_s19_half_tool_arguments_are_never_continued(server: Server, sandbox: Control) -> None:
    model = "openai/gpt-5.4-mini"
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    sandbox.fault(model, {"kind": "cut", "after_tokens": 2, "how": "close"})
    reply = server.chat(models=[model, "openai/gpt-5.4"], stream=True, tools=tools)
    assert reply.events()[-1]["error"]["code"] == "upstream_cut_answer"
    assert len(sandbox.attempts()) == 1


def test_signed_reasoning_is_never_continued(
    sandbox_process: SandboxProcess, quick: Control
) -> None:
    signed = {"type": "reasoning.text", "text": "Hm.", "signature": "c2lnbmVk"}
    deltas: list[dict[str, Any]] = [
        {"reasoning_details": [signed]},
        {"content": CANONICAL_ANSWER[:9]},
    ]
    chunks = ({"id": "a", "choices": [{"index": 0, "delta": delta}]} for delta in deltas)
    pieces = [{"data": b"data: " + json.dumps(found).encode() + b"\n\n"} for found in chunks]
    headers = {"content-type": "text/event-stream"}
    quick.fault(FIRST, {"kind": "raw", "headers": headers, "pieces": pieces})
    with Server(tree(sandbox_process.base_url)) as server:
        *_, last = server.chat(models=[FIRST, SECOND], stream=True).events()
    assert last["error"]["code"] == "upstream_cut_answer"
    assert quick.attempts(SECOND) == []


def test_a_continued_answer_is_not_cached(sandbox_process: SandboxProcess, quick: Control) -> None:
    with Server(tree(sandbox_process.base_url)) as server:
        for _ in range(2):
            reply = server.chat(models=[FIRST, SECOND], stream=True, seed=1)
            assert reply.headers["x-llmr-cache"] == "miss"


# --- the splice alone ---


def chunk(text: str | None = None, finish: str | None = None, **delta: Any) -> Event:
    delta |= {} if text is None else {"content": text}
    data = json.dumps({"id": "second", "choices": [{"delta": delta, "finish_reason": finish}]})
    return Event(b"", data.encode())


def spliced(delivered: str, *events: Event, prefilled: bool = False) -> str:
    splice, out = Splice(delivered, IDENTITY, prefilled=prefilled), ""
    for event in events:
        found = splice.take(event)
        if found is not None:
            told = json.loads(found.data or b"")
            assert told["id"] == "gen-first"
            out += told["choices"][0]["delta"].get("content") or ""
    return out


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("cut", range(12))
def test_s24_what_repeats_is_swallowed_whatever_the_pieces(size: int, cut: int) -> None:
    answer = "Grüße, 東京!"
    pieces = [chunk(answer[i : i + size]) for i in range(0, len(answer), size)]
    assert spliced(answer[:cut], *pieces, chunk(finish="stop")) == answer[cut:]


@pytest.mark.parametrize(
    "events",
    [
        [chunk("Hallo"), chunk(finish="stop")],
        [chunk("Hel"), chunk(finish="stop")],
        [chunk("Hello, w"), chunk("orms")],
        [chunk(tool_calls=[{"index": 0}])],
        [chunk(refusal="no")],
    ],
)
def test_s24_what_departs_is_refused(events: list[Event]) -> None:
    with pytest.raises(Departed):
        spliced("Hello, world", *events)


def test_a_prefilled_answer_begins_where_the_first_ended() -> None:
    assert spliced("Hello", chunk(", world"), chunk(finish="stop"), prefilled=True) == ", world"


def test_role_and_thoughts_of_the_second_are_not_repeated() -> None:
    splice = Splice("Hello", IDENTITY, prefilled=False)
    assert splice.take(chunk(role="assistant")) is None
    assert splice.take(chunk(reasoning="hmm", reasoning_details=[{"text": "hmm"}])) is None
    assert splice.take(Event(b": c\n\n", None)) == Event(b": c\n\n", None)
