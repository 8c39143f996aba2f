"""What upstreams answer instead of an answer: the rows that no other test proves whole."""

import base64
import json
from typing import Any

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.text import CANONICAL_ANSWER
from tests.harness import Server
from tests.test_failover import LIST, MODEL, OTHER, status
from tests.test_security import Trap

TARGET = f"openrouter/{MODEL}"
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def cooling(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.request("GET", "/health").json["cooling"]
    return found


def whole(model: str) -> tuple[int, str]:
    """Status and text of a whole answer of the sandbox."""
    return 200, f"{CANONICAL_ANSWER} The model asked for was {model}."


def asked(sandbox: Control) -> list[str]:
    return [attempt["model"] for attempt in sandbox.attempts()]


# --- rate limits ---


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"Retry-After": "1"}, 1.0),
        ({"Retry-After": "0.3"}, 0.3),
        ({"Retry-After": "120", "Retry-After-Ms": "300"}, 0.3),
        ({"Retry-After": "Mon, 17 Aug 2020 12:00:00 GMT"}, 0.0),
    ],
    ids=["seconds", "fraction", "finest", "past date"],
)
def test_u01_u02_a_hint_in_any_form_is_waited_for(
    server: Server, sandbox: Control, headers: dict[str, str], least: float
) -> None:
    sandbox.fault(MODEL, status(429, headers=headers), times=1)
    reply = server.chat(model=MODEL)
    assert (reply.status, reply.text()) == whole(MODEL)
    first, second = sandbox.attempts()
    assert second["t"] - first["t"] >= least - 0.01  # timers of the loop round to a millisecond


def twice(*values: str) -> dict[str, Any]:
    """A 429 with one `Retry-After` after another."""
    lines = "".join(f"retry-after: {value}\r\n" for value in values)
    data = f"HTTP/1.1 429 Too Many Requests\r\n{lines}content-length: 0\r\n\r\n".encode()
    piece = {"data": base64.b64encode(data).decode()}
    return {"kind": "raw", "status": None, "pieces": [piece]}


ABSURD: dict[str, tuple[dict[str, Any], float, float]] = {
    **{
        value: (status(429, headers={"Retry-After": value}), 0.0, 5.5)
        for value in ("-5", "nan", "inf", "soon", "99 Foo 2026 99:99:99 GMT")
    },
    "ten years": (status(429, headers={"Retry-After": "315360000"}), 200.0, 300.0),
    "400 digits": (status(429, headers={"Retry-After": "9" * 400}), 0.0, 5.5),
    "twice": (twice("100", "200"), 50.0, 200.0),
    "twice endless": (twice("nan", "315360000"), 200.0, 300.0),
}


@pytest.mark.parametrize("name", list(ABSURD))
def test_u03_an_absurd_hint_bans_nobody_without_end(
    server: Server, sandbox: Control, name: str
) -> None:
    fault, least, most = ABSURD[name]
    sandbox.fault(MODEL, fault)
    reply = server.chat(models=LIST)
    assert (reply.status, reply.text()) == whole(OTHER)
    assert asked(sandbox) == [MODEL, OTHER]
    left = cooling(server).get(TARGET, {"seconds_left": 0.0})["seconds_left"]
    assert least <= left <= most


def test_u04_without_a_hint_only_the_last_target_is_waited_for(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault("*", status(429))
    reply = server.chat(model=MODEL)
    assert (reply.status, reply.error["code"]) == (429, "rate_limited")
    first, second, third = (attempt["t"] for attempt in sandbox.attempts())
    assert second - first >= 0.25
    assert third - second >= 0.5


def test_u04_without_a_hint_another_target_is_tried_at_once(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, status(429))
    reply = server.chat(models=LIST)
    assert (reply.status, reply.headers["x-llmr-model"]) == (200, OTHER)
    assert asked(sandbox) == [MODEL, OTHER]


# --- accounts, requests and models that are refused ---


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        (401, {"message": "no"}, (502, "upstream_credentials")),
        (402, {"message": "no"}, (503, "upstream_out_of_credit")),
        (403, {"message": "no", "code": "invalid_api_key"}, (502, "upstream_credentials")),
    ],
    ids=["401", "402", "403"],
)
def test_u07_a_refused_account_is_asked_once_and_left_for_long(
    server: Server, sandbox: Control, code: int, error: dict[str, str], told: tuple[int, str]
) -> None:
    sandbox.fault("*", status(code, body=json.dumps({"error": error})))
    reply = server.chat(models=LIST)
    assert (reply.status, reply.error["code"]) == told
    assert asked(sandbox) == [MODEL]
    assert cooling(server)["openrouter"]["seconds_left"] > 200


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too long", "code": "context_length_exceeded"},
        {"message": "This model's maximum context length is 128000 tokens."},
    ],
    ids=["code", "prose"],
)
def test_u09_with_no_larger_window_the_reason_is_passed_on(
    server: Server, sandbox: Control, error: dict[str, str]
) -> None:
    small, smaller = "openai/gpt-4o-mini", "mistralai/mistral-small-24b-instruct-2501"
    sandbox.fault(small, status(400, body=json.dumps({"error": error})))
    reply = server.chat(models=[small, smaller])
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert reply.error["message"] == error["message"]
    assert asked(sandbox) == [small]
    assert cooling(server) == {}


def test_u11_a_missing_model_is_marked_and_not_asked_again(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, status(404))
    for _ in range(3):
        reply = server.chat(models=LIST)
        assert (reply.status, reply.headers["x-llmr-model"]) == (200, OTHER)
    assert asked(sandbox) == [MODEL, OTHER, OTHER, OTHER]
    assert cooling(server)[TARGET]["reason"] == "missing"
    assert cooling(server)[TARGET]["seconds_left"] > 200


# --- faults of the server ---


@BOTH
def test_u12_one_500_is_unseen(server: Server, sandbox: Control, stream: bool) -> None:
    sandbox.fault(MODEL, status(500), times=1)
    reply = server.chat(model=MODEL, stream=stream)
    assert (reply.status, reply.text()) == whole(MODEL)
    assert asked(sandbox) == [MODEL, MODEL]


PERSISTENT = {str(code): status(code) for code in (503, *range(520, 530))}
PERSISTENT["503 with a hint"] = status(503, headers={"Retry-After": "120"})


@pytest.mark.parametrize("name", list(PERSISTENT))
def test_u13_a_target_that_is_down_is_left_alone(
    server: Server, sandbox: Control, name: str
) -> None:
    sandbox.fault(MODEL, PERSISTENT[name])
    for _ in range(3):
        reply = server.chat(models=LIST)
        assert (reply.status, reply.headers["x-llmr-model"]) == (200, OTHER)
    assert asked(sandbox) == [MODEL, OTHER, OTHER, OTHER]


@BOTH
@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/json"])
def test_u14_a_page_is_neither_an_answer_nor_repeated(
    server: Server, sandbox: Control, kind: str, stream: bool
) -> None:
    page = "<html><body>planted page</body></html>"
    sandbox.fault(MODEL, status(502, body=page, content_type=kind))
    reply = server.chat(model=MODEL, stream=stream)
    assert (reply.status, reply.error["code"]) == (502, "upstream_error")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-should-retry"] == "true"
    assert "planted" not in reply.body.decode()
    assert "html" not in reply.body.decode()


# --- answers that are none ---

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
ERRORS: dict[str, tuple[Any, int]] = {
    "text": ({"error": "boom"}, 502),
    "nested": ({"error": {"error": {"message": "no", "type": "overloaded_error"}}}, 503),
    "number": ({"error": {"message": "slow down", "code": 429}}, 429),
    "number as text": ({"error": {"message": "slow down", "code": "429"}}, 429),
    "word": ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429),
    "callers": ({"error": {"message": "bad n", "code": 400}}, 400),
    "detail": ({"detail": "boom"}, 502),
    "beside choices": ({"error": {"message": "died", "code": 502}, "choices": [CHOICE]}, 502),
}


@BOTH
@pytest.mark.parametrize("name", list(ERRORS))
def test_u15_an_error_in_a_200_is_that_error_and_never_kept(
    server: Server, sandbox: Control, name: str, stream: bool
) -> None:
    body, told = ERRORS[name]
    sandbox.fault(MODEL, {"kind": "json_body", "body": json.dumps(body)})
    wish: dict[str, Any] = {"model": MODEL, "stream": stream, "temperature": 0, "seed": 7}
    failed = server.chat(**wish)
    assert failed.status == told
    assert set(failed.json) == {"error"}
    sandbox.clear()
    well, again = server.chat(**wish), server.chat(**wish)
    assert (well.status, well.text()) == whole(MODEL)
    assert [r.headers["x-llmr-cache"] for r in (well, again)] == ["miss", "hit"]


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        '{"id": "x", "choices": [{"index": 0, "mess',
        "null",
        "[]",
        "{}",
        '{"id": "x"}',
        '{"choices": []}',
        '{"choices": null}',
        '{"choices": [{"index": 0}]}',
        '{"choices": ["x"]}',
    ],
)
def test_u16_what_is_no_answer_falls_over(
    server: Server, sandbox: Control, body: str, stream: bool
) -> None:
    sandbox.fault(MODEL, {"kind": "json_body", "body": body})
    reply = server.chat(models=LIST, stream=stream)
    assert (reply.status, reply.text()) == whole(OTHER)
    assert asked(sandbox) == [MODEL, OTHER]
    alone = server.chat(model=MODEL, stream=stream)
    assert (alone.status, alone.error["code"]) == (502, "invalid_upstream_answer")
    assert alone.headers["x-should-retry"] == "true"


@BOTH
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_u18_a_redirect_is_a_clean_502_and_never_followed(
    server: Server, sandbox: Control, code: int, stream: bool
) -> None:
    trap = Trap()
    try:
        sandbox.fault(MODEL, {"kind": "redirect", "location": trap.url, "status": code})
        reply = server.chat(model=MODEL, stream=stream)
        assert (reply.status, reply.error["code"]) == (502, "invalid_upstream_answer")
        assert str(trap.port) not in reply.error["message"]
        assert asked(sandbox) == [MODEL]
        assert not trap.sprung()
    finally:
        trap.close()
