"""Rows of the fault list about streams that no other test has: each named by its id."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.text import CANONICAL_ANSWER
from tests.harness import Reply, Server, upstream

MODEL, OTHER = "openai/gpt-5.4-mini", "openai/gpt-5.4"
LIST = [MODEL, OTHER]
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(**fields: Any) -> bytes:
    head = {"id": "gen-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
    return b"data: " + json.dumps({**head, **fields}).encode() + b"\n\n"


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return event(choices=[choice], **fields)


HELLO = chunk({"role": "assistant", "content": "Hello"})
WORLD = chunk({"content": " world"})
STOP = chunk(finish="stop")


def play(sandbox: Control, *pieces: bytes, late: bytes = b"", **more: Any) -> None:
    """Let the upstream answer with these bytes; `late` leaves it long after the others."""
    encoded: list[dict[str, Any]] = [{"data": base64.b64encode(piece).decode()} for piece in pieces]
    if late:
        encoded.append({"data": base64.b64encode(late).decode(), "delay": 60.0})
    sandbox.fault(MODEL, {"kind": "raw", "pieces": encoded, **more})


def ask(server: Server, **more: Any) -> Reply:
    more.setdefault("model", MODEL)
    return server.chat(stream=True, stream_options={"include_usage": True}, **more)


def assert_whole(reply: Reply, text: str = "Hello world") -> list[dict[str, Any]]:
    """One answer in normal form: its text, one finish, one usage at its end, one end."""
    *events, done = reply.events()
    assert reply.status == 200
    assert done == "[DONE]"
    assert reply.body.count(b"[DONE]") == 1
    assert reply.text() == text
    assert all(isinstance(found["choices"], list) for found in events)
    choices = [choice for found in events for choice in found["choices"]]
    assert all(isinstance(choice["delta"], dict) for choice in choices)
    finishes = [choice.get("finish_reason") for choice in choices]
    assert [reason for reason in finishes if reason is not None] in (["stop"], ["tool_calls"])
    assert finishes[-1]
    assert [i for i, found in enumerate(events) if found.get("usage")] == [len(events) - 1]
    assert events[-1]["choices"] == []
    return events


def test_s01_an_error_event_after_only_a_role_is_unseen(server: Server, sandbox: Control) -> None:
    sandbox.fault(MODEL, {"kind": "error_event", "at_token": 0, "role_first": True})
    reply = server.chat(models=LIST, stream=True)
    assert (reply.status, reply.headers["x-llmr-model"]) == (200, OTHER)
    assert reply.text().startswith(CANONICAL_ANSWER)
    assert reply.events()[-1] == "[DONE]"


GONE = {"code": 503, "message": "gone"}
ERRORS = {
    "with a finish": chunk({"content": ""}, "error", error=GONE),
    "alone": b'data: {"error": {"message": "gone", "code": 503}}\n\n',
    "typed": b'event: error\ndata: {"error": {"type": "overloaded_error", "message": "gone"}}\n\n',
    "in a choice": event(choices=[{"index": 0, "delta": {}, "error": GONE}]),
    "only a finish": chunk(finish="error"),
}


@pytest.mark.parametrize("shape", ERRORS)
def test_s02_an_error_of_any_shape_ends_the_stream_and_counts_against_the_target(
    server: Server, sandbox: Control, shape: str
) -> None:
    play(sandbox, HELLO, ERRORS[shape], WORLD, STOP, DONE)
    soft = shape == "only a finish"  # a broken answer cools its target down after many
    code = "upstream_cut_answer" if soft else "upstream_overloaded"
    for _ in range(12 if soft else 1):
        reply = ask(server)
        *before, last = reply.events()
        assert [found["choices"][0]["delta"].get("content") for found in before] == ["Hello"]
        assert last["error"]["code"] == code
        assert b"[DONE]" not in reply.body
    cooling = server.request("GET", "/health").json["cooling"]
    assert any(MODEL in target for target in cooling)


@pytest.mark.parametrize("body", ["ends", "stays open"])
@pytest.mark.parametrize("usage", [True, False])
def test_s05_an_answer_with_its_finish_and_no_done_is_whole(
    server: Server, sandbox: Control, body: str, usage: bool
) -> None:
    pieces = [HELLO, WORLD, STOP, *([event(choices=[], usage=USAGE)] if usage else [])]
    play(sandbox, *pieces, late=b": late\n\n" if body == "stays open" else b"")
    events = assert_whole(ask(server))  # the client of these tests waits 30 s, the body stays 60
    assert events[-1]["usage"].get("estimated", False) is not usage


def test_s07_comments_do_not_extend_the_total_limit(server: Server, sandbox: Control) -> None:
    sandbox.fault("*", {"kind": "comments", "interval_s": 0.05})
    reply = server.chat(model=MODEL, stream=True, deadline_ms=400)
    assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")


def test_s06_the_idle_limit_counts_from_the_head_of_the_answer(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    event = (
        b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}'
    )
    pieces = [(head, 0.6), (event + b"\n\ndata: [DONE]\n\n", 0.3)]
    told = [{"data": base64.b64encode(data).decode(), "delay": delay} for data, delay in pieces]
    sandbox.fault(MODEL, {"kind": "raw", "status": None, "pieces": told})
    limits = {"idle_s": 0.5, "first_event_s": 5.0}
    with Server(upstream(sandbox_process.base_url, limits=limits)) as server:
        reply = server.chat(model=MODEL, stream=True)
    assert reply.text() == "Hi"


def test_s08_a_model_that_thinks_long_is_given_its_time(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault("*", {"kind": "slow_first_token", "seconds": 0.8})
    limits = {"first_event_s": 0.3, "first_event_by_model": {OTHER: 5.0}}
    with Server(upstream(sandbox_process.base_url, limits=limits)) as server:
        assert server.chat(models=LIST, stream=True).headers["x-llmr-model"] == OTHER


def test_s10_a_strict_router_ends_a_stream_it_cannot_read(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "malformed"})
    with Server(upstream(sandbox_process.base_url)) as server:
        assert server.chat(model=MODEL, stream=True).events()[-1] == "[DONE]"
        told = server.request("GET", "/metrics?format=prometheus").body.decode()
        assert 'llmr_stream_events_total{what="degraded"} 1.0' in told
    with Server(upstream(sandbox_process.base_url, limits={"strict_events": True})) as server:
        *_, last = server.chat(model=MODEL, stream=True).events()
        assert last["error"]["code"] == "invalid_upstream_answer"


def test_s14_the_largest_event_is_a_setting(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "tokens_per_s": 1000})
    with Server(upstream(sandbox_process.base_url, limits={"event_mb": 0.0001})) as server:
        reply = server.chat(model=MODEL, stream=True)
    assert (reply.status, reply.error["code"]) == (502, "invalid_upstream_answer")


@pytest.mark.parametrize("comments", [True, False])
def test_s08_a_late_first_token_after_early_headers_moves_on(
    sandbox_process: SandboxProcess, sandbox: Control, comments: bool
) -> None:
    sandbox.fault(MODEL, {"kind": "slow_first_token", "seconds": 60, "comments": comments})
    with Server(upstream(sandbox_process.base_url, limits={"first_event_s": 1.0})) as server:
        reply = server.chat(models=LIST, stream=True)
    assert (reply.status, reply.headers["x-llmr-model"]) == (200, OTHER)
    assert reply.events()[-1] == "[DONE]"


BAD = {
    "S10 cut JSON": b'data: {"id":"gen-1","choices":[{"index":0,"del\n\n',
    "S10 text": b"data: oops\n\n",
    "S10 a list": b"data: [1]\n\n",
    "S10 wrong types": b'data: {"choices": [7]}\n\n',
    "S13 text": chunk({"content": "@"}).replace(b"@", b"\xff"),
    "S13 half a letter": chunk({"content": "@"}).replace(b"@", b"\xe6\x9d"),
    "S13 tool argument": chunk(
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "@"}}]}
    ).replace(b"@", b"\xff"),
}


@pytest.mark.parametrize("name", BAD)
def test_s10_s13_a_bad_event_is_dropped_the_rest_delivered_and_nothing_kept(
    server: Server, sandbox: Control, name: str
) -> None:
    play(sandbox, HELLO, BAD[name], WORLD, STOP, DONE)
    for _ in range(2):
        reply = ask(server, temperature=0)
        assert_whole(reply)
        assert reply.headers["x-llmr-cache"] == "miss"
        assert "\ufffd" not in reply.body.decode()
        assert b"tool_calls" not in reply.body
    sandbox.clear()
    play(sandbox, HELLO, WORLD, STOP, DONE)
    assert [ask(server, temperature=0).headers["x-llmr-cache"] for _ in range(2)] == ["miss", "hit"]


FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "lone CR": lambda data: data.replace(b"\n", b"\r"),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "no space": lambda data: data.replace(b"data: ", b"data:"),
    "several lines": lambda data: data.replace(b', "created"', b',\ndata: "created"'),
    "other fields": lambda data: data.replace(
        b"data: ", b"event: message\nid: 7\nretry: 10\nmine: x\nalone\ndata: "
    ),
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_s11_the_framing_of_events_changes_nothing(
    server: Server, sandbox: Control, name: str
) -> None:
    data = HELLO + WORLD + STOP + event(choices=[], usage=USAGE) + DONE
    framed = FRAMINGS[name](data)
    assert framed != data
    play(sandbox, framed)
    reply = ask(server)
    assert_whole(reply)
    assert reply.events() == [
        json.loads(block[6:]) if b"{" in block else "[DONE]" for block in data.split(b"\n\n")[:-1]
    ]
    assert all(line.startswith(b"data: ") for line in reply.body.split(b"\n") if line)


def test_s14_an_event_of_several_mebibytes_is_delivered(server: Server, sandbox: Control) -> None:
    large = "x" * (5 * 1024 * 1024)
    play(sandbox, HELLO, chunk({"content": large}), STOP, DONE)
    assert_whole(ask(server), "Hello" + large)


@pytest.mark.parametrize("form", ["one event", "a line with no end"])
def test_s14_an_event_beyond_the_limit_fails_the_attempt(
    server: Server, sandbox: Control, form: str
) -> None:
    if form == "one event":
        play(sandbox, chunk({"content": "x" * (9 * 1024 * 1024)}), STOP, DONE)
    else:
        play(sandbox, b"data: ", b"x" * 65536, repeat=True)
    reply = ask(server)
    assert (reply.status, reply.error["code"]) == (502, "invalid_upstream_answer")
    assert "too large" in reply.error["message"]
    reply = server.chat(models=LIST, stream=True)
    assert (reply.status, reply.headers["x-llmr-model"]) == (200, OTHER)


ODD = {
    "choices empty": event(choices=[]),
    "choices null": event(choices=None),
    "choices absent": event(),
    "delta null": event(choices=[{"index": 0, "delta": None, "finish_reason": None}]),
    "delta absent": event(choices=[{"index": 0, "finish_reason": None}]),
    "content null": chunk({"content": None}),
    "role repeated": chunk({"role": "assistant", "content": ""}),
    "empty finish": chunk({"content": ""}, ""),
}


@pytest.mark.parametrize("name", ODD)
def test_s15_harmless_oddities_pass_or_are_put_right(
    server: Server, sandbox: Control, name: str
) -> None:
    odd = ODD[name]
    play(sandbox, odd, HELLO, odd, WORLD, odd, STOP, DONE)
    assert_whole(ask(server))


AFTER = {
    "finish twice": (STOP, STOP, DONE),
    "another finish": (STOP, chunk(finish="length"), DONE),
    "content after finish": (STOP, chunk({"content": " more"}), DONE),
    "content and finish after finish": (STOP, chunk({"content": " more"}, "stop"), DONE),
    "data after the end": (STOP, DONE, chunk({"content": " more"}), STOP, DONE),
}


@pytest.mark.parametrize("name", AFTER)
def test_s16_nothing_reaches_the_caller_after_the_finish(
    server: Server, sandbox: Control, name: str
) -> None:
    play(sandbox, HELLO, WORLD, *AFTER[name])
    assert_whole(ask(server))


def counts(prompt: int, completion: int) -> dict[str, int]:
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


USAGES: dict[str, tuple[list[bytes], bool]] = {
    "absent": ([HELLO, WORLD, STOP], True),
    "null": ([HELLO, WORLD, chunk(finish="stop", usage=None), event(choices=[], usage=None)], True),
    "alone": ([HELLO, WORLD, STOP, event(choices=[], usage=USAGE)], False),
    "repeated": ([HELLO, WORLD, STOP, *[event(choices=[], usage=USAGE)] * 2], False),
    "cumulative": (
        [
            chunk({"content": "Hello"}, usage=counts(3, 1)),
            chunk({"content": " world"}, usage=USAGE),
            STOP,
        ],
        False,
    ),
    "with the finish": ([HELLO, WORLD, chunk(finish="stop", usage=USAGE)], False),
    "negative": ([HELLO, WORLD, STOP, event(choices=[], usage=counts(3, -2))], True),
}


@pytest.mark.parametrize("name", USAGES)
def test_s17_one_usage_reaches_the_caller_and_an_estimate_says_so(
    server: Server, sandbox: Control, name: str
) -> None:
    pieces, estimated = USAGES[name]
    play(sandbox, *pieces, DONE)
    usage = assert_whole(ask(server))[-1]["usage"]
    if estimated:
        assert usage["estimated"] is True
        assert usage["completion_tokens"] > 0
    else:
        assert usage == USAGE


@pytest.mark.parametrize("place", ["with the finish", "alone"])
def test_s17_a_negative_usage_reaches_no_caller_who_did_not_ask(
    server: Server, sandbox: Control, place: str
) -> None:
    bad = {"usage": counts(3, -2)}
    ends = [STOP, event(choices=[], **bad)] if place == "alone" else [chunk(finish="stop", **bad)]
    play(sandbox, HELLO, WORLD, *ends, DONE)
    reply = server.chat(model=MODEL, stream=True)
    (usage,) = [found["usage"] for found in reply.events()[:-1] if found.get("usage")]
    assert usage["estimated"] is True
    assert usage["completion_tokens"] > 0
    assert reply.events()[-1] == "[DONE]"


def call(name: str | None = None, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {**fields, "function": {k: v for k, v in function.items() if v is not None}}


A, B = '{"a": 1}', '{"b": 2}'
CALLS: dict[str, list[dict[str, Any]]] = {
    "index missing": [
        call("one", A[:4], id="x"),
        call(None, A[4:]),
        call("two", B[:4], id="y"),
        call(None, B[4:]),
    ],
    "index reused with new ids": [
        call("one", A[:4], index=0, id="x"),
        call(None, A[4:], index=0),
        call("two", B[:4], index=0, id="y"),
        call(None, B[4:], index=0),
    ],
    "id missing": [
        call("one", A[:4], index=0),
        call(None, A[4:], index=0),
        call("two", B[:4], index=1),
        call(None, B[4:], index=1),
    ],
    "fragments interleaved": [
        call("one", A[:4], index=0, id="x"),
        call("two", B[:4], index=1, id="y"),
        call(None, A[4:], index=0),
        call(None, B[4:], index=1),
    ],
    "id on every fragment of one index": [
        call("one", A[:4], index=0, id="x"),
        call("two", B[:4], index=0, id="y"),
        call(None, A[4:], index=0, id="x"),
        call(None, B[4:], index=0, id="y"),
    ],
    "arguments before name": [
        call(None, A[:4], index=0, id="x"),
        call("one", A[4:], index=0),
        call(None, B[:4], index=1, id="y"),
        call("two", B[4:], index=1),
    ],
}


@pytest.mark.parametrize("name", CALLS)
def test_s18_tool_calls_are_kept_apart(server: Server, sandbox: Control, name: str) -> None:
    pieces = [chunk({"tool_calls": [found]}) for found in CALLS[name]]
    play(sandbox, *pieces, chunk(finish="tool_calls"), DONE)
    got: dict[int, dict[str, str]] = {}
    for found in assert_whole(ask(server), "")[:-1]:
        for tool in found["choices"][0]["delta"].get("tool_calls", ()):
            one = got.setdefault(tool["index"], {"id": "", "name": "", "arguments": ""})
            one["id"] = tool.get("id") or one["id"]
            for key in ("name", "arguments"):
                one[key] += tool["function"].get(key) or ""
    assert sorted(got) == [0, 1]
    assert [(one["name"], one["arguments"]) for one in got.values()] == [("one", A), ("two", B)]
    assert got[0]["id"] != got[1]["id"]
    assert all(one["id"] for one in got.values())
    if name != "id missing":
        assert (got[0]["id"], got[1]["id"]) == ("x", "y")
