"""Attempts, fallback, limits and the commit point, on real sockets."""

import http.client
import json
import socket
import time
from typing import Any

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.text import CANONICAL_ANSWER
from tests.harness import Reply, Server, eventually, upstream
from tests.test_clients import settled

MODEL, OTHER = "openai/gpt-5.4-mini", "openai/gpt-5.4"
LIST = [MODEL, OTHER]


def status(code: int, **more: Any) -> dict[str, Any]:
    return {"kind": "status", "status": code, **more}


BEFORE_CONTENT = {
    "u13 503": status(503),
    "u12 500": status(500),
    "u13 529": status(529),
    "u14 html 502": status(502, body="<html>bad gateway</html>", content_type="text/html"),
    "u14 empty 502": status(502, body=""),
    "u14 text 502": status(502, body="bad gateway", content_type="text/plain"),
    "reset": {"kind": "reset"},
    "close": {"kind": "close"},
    "S01 error event first": {"kind": "error_event", "at_token": 0},
    "S22 empty stream": {"kind": "empty_stream"},
    "u16 not json": {"kind": "json_body", "body": "<html>"},
    "u15 error in a 200": {
        "kind": "json_body",
        "body": '{"error": {"message": "no", "code": 502}}',
    },
    "u18 redirect": {"kind": "redirect", "location": "http://127.0.0.1:1/elsewhere"},
    "u11 model gone": status(404),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", BEFORE_CONTENT)
def test_a_failure_before_the_first_content_is_unseen(
    server: Server, sandbox: Control, name: str, stream: bool
) -> None:
    sandbox.fault(MODEL, BEFORE_CONTENT[name])
    reply = server.chat(models=LIST, stream=stream)
    assert reply.status == 200
    assert reply.headers["x-llmr-model"] == OTHER
    # A 500 is worth one quick retry on the same target; so is a reset, unless the client has
    # already tried a fresh connection in the place of a stale one.
    sends = {"u12 500": ("3",), "reset": ("2", "3"), "close": ("2", "3")}.get(name, ("2",))
    assert reply.headers["x-llmr-attempts"] in sends
    assert reply.text().startswith(CANONICAL_ANSWER)
    if stream:
        assert reply.events()[-1] == "[DONE]"


@pytest.mark.parametrize("how", ["close", "reset", "clean"])
def test_s03_s04_a_cut_answer_ends_with_an_error_and_never_cleanly(
    server: Server, sandbox: Control, how: str
) -> None:
    sandbox.fault(MODEL, {"kind": "cut", "after_tokens": 10, "how": how})
    reply = server.chat(model=MODEL, stream=True)
    *before, last = reply.events()
    assert reply.status == 200
    assert last["error"]["code"] == "upstream_cut_answer"
    assert all(event["choices"][0]["finish_reason"] is None for event in before)
    assert "[DONE]" not in reply.body.decode()


def test_what_a_cut_stream_brought_is_no_part_of_the_next_targets_whole_answer(
    server: Server, sandbox: Control
) -> None:
    def streamed(*deltas: str) -> dict[str, Any]:
        """A stream that was not asked for."""
        data = "".join(f'data: {{"choices":[{{"index":0,{delta}}}]}}\n\n' for delta in deltas)
        headers = {"content-type": "text/event-stream"}
        return {"kind": "raw", "headers": headers, "pieces": [{"data": data.encode()}]}

    sandbox.fault(MODEL, streamed('"delta":{"content":"lost"}'))
    sandbox.fault(
        OTHER, streamed('"delta":{"content":"kept"}', '"delta":{},"finish_reason":"stop"')
    )
    reply = server.chat(models=LIST)
    assert (reply.headers["x-llmr-model"], reply.text()) == (OTHER, "kept")


def test_s02_an_error_in_the_middle_ends_the_stream_with_it(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "error_event", "at_token": 5})
    *before, last = server.chat(models=LIST, stream=True).events()
    assert before
    assert set(last) == {"error"}
    assert set(last["error"]) == {"message", "type", "param", "code"}


def test_s06_a_stalled_stream_ends_with_an_error_within_the_idle_limit(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "stall", "after_tokens": 5, "seconds": 30})
    with Server(upstream(sandbox_process.base_url, limits={"idle_s": 0.3})) as server:
        begun = time.monotonic()
        *_, last = server.chat(model=MODEL, stream=True).events()
    assert last["error"]["code"] == "upstream_timeout"
    assert time.monotonic() - begun < 5


def test_s06_comments_after_the_first_content_do_not_keep_a_stalled_stream_alive(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    begin = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    comments = [{"data": b": waiting\n\n", "delay": 0.1}] * 60
    headers = {"content-type": "text/event-stream"}
    sandbox.fault(
        MODEL, {"kind": "raw", "headers": headers, "pieces": [{"data": begin}, *comments]}
    )
    limits = {"idle_s": 0.5, "continue": "never"}
    with Server(upstream(sandbox_process.base_url, limits=limits)) as server:
        begun = time.monotonic()
        *_, last = server.chat(model=MODEL, stream=True).events()
        assert last["error"]["code"] == "upstream_timeout"
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("fault", [{"kind": "silent", "seconds": 30}, {"kind": "comments"}])
def test_s07_silence_before_the_first_content_moves_on(
    sandbox_process: SandboxProcess, sandbox: Control, fault: dict[str, Any]
) -> None:
    sandbox.fault(MODEL, fault)
    with Server(upstream(sandbox_process.base_url, limits={"first_event_s": 0.3})) as server:
        reply = server.chat(models=LIST, stream=True)
    assert reply.headers["x-llmr-model"] == OTHER
    assert reply.events()[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [True, False])
def test_s07_a_whole_answer_has_time_to_be_written_and_a_stream_has_not(
    sandbox_process: SandboxProcess, sandbox: Control, stream: bool
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 0.8})
    with Server(upstream(sandbox_process.base_url, limits={"first_event_s": 0.3})) as server:
        reply = server.chat(models=LIST, stream=stream, max_tokens=1000)
    assert reply.headers["x-llmr-model"] == (OTHER if stream else MODEL)


def test_r10_the_deadline_ends_the_call_whatever_is_left_to_try(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault("*", {"kind": "silent", "seconds": 30})
    begun = time.monotonic()
    reply = server.chat(model="auto", deadline_ms=300)
    assert reply.status == 504
    assert reply.error["code"] == "deadline_exceeded"
    assert time.monotonic() - begun < 5


def test_u13_attempts_are_bounded_and_all_of_them_are_told(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault("*", status(503))
    reply = server.chat(model="auto")
    assert reply.status == 503
    assert len(sandbox.attempts()) == 3
    assert reply.error["message"].startswith("All 3 attempts failed")
    assert reply.headers["x-should-retry"] == "true"


def test_fallback_models_come_before_the_other_candidates(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    named = ["anthropic/claude-sonnet-4.6", "openai/gpt-5.4"]
    tree = upstream(sandbox_process.base_url, routing={"fallback_models": named})
    with Server(tree) as server:
        first = server.chat(model="auto").headers["x-llmr-model"]
        sandbox.fault(first, status(503))
        sandbox.fault(named[0], status(503))
        reply = server.chat(model="auto")
        assert reply.headers["x-llmr-model"] == named[1]
        assert reply.headers["x-llmr-attempts"] == "3"


def test_a_pinned_model_is_never_replaced(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url, routing={"fallback_models": [OTHER]})
    sandbox.fault(MODEL, status(503))
    with Server(tree) as server:
        reply = server.chat(model=MODEL)
    assert reply.status == 503
    assert reply.error["code"] == "upstream_overloaded"
    assert {attempt["model"] for attempt in sandbox.attempts()} == {MODEL}


@pytest.mark.parametrize("code", [400, 422])
def test_u08_the_callers_own_mistake_passes_through_with_the_upstreams_reason(
    server: Server, sandbox: Control, code: int
) -> None:
    error = {"message": "temperature must be below 2", "code": "bad_value", "param": "temperature"}
    sandbox.fault(MODEL, status(code, body=json.dumps({"error": error})))
    reply = server.chat(models=LIST)
    assert reply.status == code
    assert reply.error["message"] == error["message"]
    assert (reply.error["param"], reply.error["code"]) == ("temperature", "bad_value")
    assert reply.headers["x-should-retry"] == "false"
    assert len(sandbox.attempts()) == 1
    assert server.request("GET", "/health").json["cooling"] == {}


@pytest.mark.parametrize("code", [400, 403])
def test_u10_a_refusal_is_not_routed_round(server: Server, sandbox: Control, code: int) -> None:
    body = '{"error": {"message": "flagged", "code": "content_policy_violation"}}'
    sandbox.fault(MODEL, status(code, body=body))
    reply = server.chat(models=LIST)
    assert (reply.status, reply.error["code"]) == (code, "content_policy_violation")
    assert reply.error["message"] == "flagged"
    assert len(sandbox.attempts()) == 1


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too long", "code": "context_length_exceeded"},
        {"message": "This model's maximum context length is 128000 tokens."},
    ],
    ids=["code", "prose"],
)
def test_u09_a_prompt_too_long_goes_only_to_larger_windows(
    server: Server, sandbox: Control, error: dict[str, str]
) -> None:
    body = json.dumps({"error": error})
    sandbox.fault("openai/gpt-4o-mini", status(400, body=body))  # 128,000
    smaller, larger = "mistralai/mistral-small-24b-instruct-2501", OTHER
    reply = server.chat(models=["openai/gpt-4o-mini", smaller, larger])
    assert reply.headers["x-llmr-model"] == larger
    assert [a["model"] for a in sandbox.attempts()] == ["openai/gpt-4o-mini", larger]


def test_u07_a_bad_upstream_key_never_blames_the_callers(server: Server, sandbox: Control) -> None:
    sandbox.fault("*", status(401, body='{"error": {"message": "Incorrect key sk-abcdef123456"}}'))
    reply = server.chat(model=MODEL)
    assert reply.status == 502
    assert reply.error["code"] == "upstream_credentials"
    assert "sk-abcdef" not in reply.body.decode()
    assert "openrouter" in reply.error["message"]


@pytest.mark.parametrize("code", [401, 402])
def test_u07_a_refused_account_is_left_and_another_upstream_answers(
    sandbox_process: SandboxProcess, sandbox: Control, code: int
) -> None:
    base = sandbox_process.base_url
    tree: dict[str, Any] = upstream(base)
    tree["upstreams"]["lab"] = {"base_url": base, "models": [{"id": "anthropic/claude-opus-4.8"}]}
    sandbox.fault(MODEL, status(code))
    with Server(tree) as server:
        reply = server.chat(models=[MODEL, OTHER, "anthropic/claude-opus-4.8"])
        assert reply.status == 200
        sent = [a["model"] for a in sandbox.attempts()]
        assert sent[0] == MODEL
        assert OTHER not in sent
        cooling = server.request("GET", "/health").json["cooling"]["openrouter"]
        assert cooling["seconds_left"] > 250
        alone = server.chat(model=MODEL)
        assert alone.status in (502, 503)


@pytest.mark.parametrize("models", [{"model": MODEL}, {"models": LIST}])
def test_u01_u02_a_short_wait_for_the_callers_choice_is_waited_for(
    server: Server, sandbox: Control, models: dict[str, Any]
) -> None:
    sandbox.fault(MODEL, status(429, headers={"Retry-After-Ms": "300"}), times=1)
    reply = server.chat(**models)
    assert reply.headers["x-llmr-model"] == MODEL
    first, second = sandbox.attempts()
    assert second["t"] - first["t"] >= 0.29  # timers of the loop are a millisecond coarse


def test_u01_a_wait_beyond_the_deadline_is_not_begun(server: Server, sandbox: Control) -> None:
    sandbox.fault(MODEL, status(429, headers={"Retry-After": "2"}))
    begun = time.monotonic()
    reply = server.chat(model=MODEL, deadline_ms=1000)
    assert (reply.status, reply.headers["retry-after"]) == (429, "2")
    assert time.monotonic() - begun < 1


def test_u01_a_long_wait_is_told_to_the_caller(server: Server, sandbox: Control) -> None:
    sandbox.fault(MODEL, status(429, headers={"Retry-After": "120"}))
    reply = server.chat(model=MODEL)
    assert reply.status == 429
    assert 119 <= int(reply.headers["retry-after"]) <= 121
    assert len(sandbox.attempts()) == 1


@pytest.mark.parametrize("coding", ["br", "gzip"])
def test_a_refusal_whose_body_cannot_be_read_speaks_by_its_status(
    server: Server, sandbox: Control, coding: str
) -> None:
    sandbox.fault(MODEL, status(429, headers={"Retry-After": "120", "Content-Encoding": coding}))
    reply = server.chat(model=MODEL)
    assert reply.status == 429
    assert 119 <= int(reply.headers["retry-after"]) <= 121


def test_u01_a_routed_request_does_not_wait(server: Server, sandbox: Control) -> None:
    first = server.chat(model="auto").headers["x-llmr-model"]
    sandbox.fault(first, status(429, headers={"Retry-After": "1"}))
    reply = server.chat(model="auto")
    assert reply.headers["x-llmr-model"] != first
    assert server.chat(model="auto").headers["x-llmr-attempts"] == "1"


def test_u13_r03_killing_the_chosen_model_in_a_run_of_200_loses_no_answer(
    server: Server, sandbox: Control
) -> None:
    seen: list[str] = []
    killed = ""
    for number in range(200):
        if number == 50:
            killed = seen[-1]
            sandbox.fault(killed, status(503))
        reply = server.chat(model="auto", stream=number % 2 == 0)
        assert reply.status == 200
        assert reply.text().startswith(CANONICAL_ANSWER)
        seen.append(reply.headers["x-llmr-model"])
    assert killed in seen[:50]
    assert killed not in seen[50:]
    failed = [a for a in sandbox.attempts(killed) if a["status"] == 503]
    assert 1 <= len(failed) <= 10


def test_r04_quick_retries_stay_within_a_fifth_of_the_traffic_and_ten(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, status(500))
    for _ in range(50):
        assert server.chat(model=MODEL).status == 502
    assert 50 + 10 <= len(sandbox.attempts()) <= 50 + 10 + 50 // 5


def test_a_quick_retry_that_fails_too_is_one_fault_and_not_two(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, status(500))
    assert server.chat(models=LIST).headers["x-llmr-model"] == OTHER
    assert len(sandbox.attempts(MODEL)) == 2
    cooling = server.request("GET", "/health").json["cooling"][f"openrouter/{MODEL}"]
    assert 3 < cooling["seconds_left"] <= 5.5  # the first step, not the second


def test_free_rows_are_used_within_their_allowance(server: Server, sandbox: Control) -> None:
    models = [server.chat(model="auto:cost").headers["x-llmr-model"] for _ in range(25)]
    assert sum(name.endswith(":free") for name in models) == 20
    assert server.request("GET", "/health").json["cooling"]["openrouter:free"]["seconds_left"] > 30


# --- callers who leave ---


def leave_after(server: Server, body: dict[str, Any], received: int) -> None:
    """Send a request, read so many bytes of the answer, and go."""
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        got = 0
        while got < received:
            got += len(connection.recv(4096))


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_who_leaves_before_the_answer_closes_the_upstream(
    server: Server, sandbox: Control, stream: bool
) -> None:
    sandbox.fault(MODEL, {"kind": "silent", "seconds": 30})
    body = {"models": LIST, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    eventually(lambda: len(sandbox.attempts()) == 1, "sent upstream")
    connection.close()
    eventually(lambda: sandbox.attempts()[0]["ended"] == "peer_gone", "upstream closed")
    eventually(lambda: server.gateway.in_flight == 0, "request over")
    assert len(sandbox.attempts()) == 1
    assert server.request("GET", "/metrics").json["client_closed_count"] == 1


def test_a_caller_who_leaves_mid_stream_closes_the_upstream(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "stall", "after_tokens": 5, "seconds": 30})
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    leave_after(server, body, 100)
    eventually(lambda: sandbox.attempts()[0]["ended"] == "peer_gone", "upstream closed")
    eventually(lambda: server.gateway.in_flight == 0, "request over")


def test_a_caller_who_leaves_during_a_probe_leaves_the_door_open(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url, limits={"retry_after_wait_s": 0})
    with Server(tree) as server:
        sandbox.fault(MODEL, status(429, headers={"Retry-After-Ms": "200"}), times=1)
        assert server.chat(models=LIST).headers["x-llmr-model"] == OTHER
        eventually(lambda: not server.request("GET", "/health").json["cooling"], "cooled down")
        sandbox.fault(MODEL, {"kind": "silent", "seconds": 30})
        probe = http.client.HTTPConnection("127.0.0.1", server.port)
        wish = {"models": LIST, "messages": [{"role": "user", "content": "Hi"}]}
        probe.request("POST", "/v1/chat/completions", json.dumps(wish))
        eventually(lambda: len(sandbox.attempts(MODEL)) == 2, "the probe is sent")
        assert server.request("GET", "/health").json["cooling"][f"openrouter/{MODEL}"]
        probe.close()
        eventually(lambda: server.gateway.in_flight == 0, "the probe is over")
        sandbox.clear()
        assert server.chat(models=LIST).headers["x-llmr-model"] == MODEL


def test_the_decision_tells_what_came_of_it(server: Server, sandbox: Control) -> None:
    sandbox.fault(MODEL, status(503))
    reply = server.chat(models=LIST)
    account = server.request("GET", f"/v1/decisions/{reply.headers['x-llmr-decision-id']}").json
    told = account["outcome"]
    assert [(a["model"], a["outcome"]) for a in told["attempts"]] == [
        (MODEL, "overloaded"),
        (OTHER, "ok"),
    ]
    assert (told["outcome"], told["model"]) == ("ok", OTHER)


def test_connections_are_used_again_and_none_is_left_over(server: Server, sandbox: Control) -> None:
    settled(server)  # the look at the catalogue has a connection of its own
    replies: list[Reply] = [server.chat(model=MODEL, stream=n % 2 == 0) for n in range(20)]
    assert all(reply.status == 200 for reply in replies)
    assert len({attempt["connection"] for attempt in sandbox.attempts()}) == 1


def test_a_stale_pooled_connection_is_retried_unseen(server: Server, sandbox: Control) -> None:
    server.chat(model=MODEL)
    sandbox.close_idle()
    reply = server.chat(model=MODEL)
    assert reply.status == 200
    assert reply.headers["x-llmr-attempts"] == "1"
    assert server.request("GET", "/health").json["cooling"] == {}
