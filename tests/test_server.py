"""The HTTP surface: contract, bad input, keys, documentation."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import Server, eventually, upstream

HI = [{"role": "user", "content": "Hello"}]
MODEL = "openai/gpt-5.4-mini"


@pytest.fixture(scope="module")
def shared(sandbox_process: SandboxProcess) -> Iterator[Server]:
    """One server for the tests that leave nothing behind."""
    with Server(upstream(sandbox_process.base_url), sandbox=True) as server:
        yield server


# --- the native call ---


def test_route_answers_as_the_contract_says(shared: Server) -> None:
    reply = shared.request("POST", "/route", {"messages": HI, "priority": "quality"})
    answer = reply.json
    assert set(answer) == {
        *("id", "model", "choices", "usage", "routing_decision", "latency_ms", "cached"),
        "timestamp",
    }
    decision = answer["routing_decision"]
    assert decision["selected_model"] == answer["model"] == reply.headers["x-llmr-model"]
    assert decision["id"] == reply.headers["x-llmr-decision-id"]
    assert decision["priority"] == "quality"
    assert decision["weights_used"] == {"latency": 0.1, "cost": 0.2, "quality": 0.7}
    assert [a["outcome"] for a in decision["attempts"]] == ["ok"]
    scores = [c["composite_score"] for c in decision["candidates"]]
    assert scores == sorted(scores, reverse=True)
    for name in ("latency_score", "cost_score", "quality_score", "composite_score"):
        assert name in decision["candidates"][0]
    assert decision["reason"]
    assert decision["estimated_latency_ms"] > 0


def test_wishes_by_header_equal_wishes_in_the_body(shared: Server) -> None:
    fields = {"priority": "cost", "max_latency_ms": 4000.0}
    by_body = shared.request("POST", "/v1/decisions", {"messages": HI, **fields}).json
    headers = {"x-llmr-priority": "cost", "x-llmr-max-latency-ms": "4000"}
    by_header = shared.request("POST", "/v1/decisions", {"messages": HI}, headers).json
    for key in ("selected_model", "weights_used", "candidates", "excluded", "request"):
        assert by_body[key] == by_header[key]


def test_only_what_the_contract_names_is_taken_out_of_the_body(
    shared: Server, sandbox: Control
) -> None:
    body = (
        b'{"priority": "cost", "model":"' + MODEL.encode() + b'", "unknown" : {"b": 1.50, "a": []},'
        b'"messages": [{"content": "caf\\u00e9", "role": "user"}], "temperature": 1e0,'
        b'"deadline_ms": 9000}'
    )
    assert shared.request("POST", "/v1/chat/completions", body).status == 200
    sent = sandbox.attempts()[0]
    assert sent["body"] == {
        "model": MODEL,
        "unknown": {"b": 1.5, "a": []},
        "messages": [{"content": "café", "role": "user"}],
        "temperature": 1.0,
    }
    assert list(sent["body"]) == ["model", "unknown", "messages", "temperature"]
    assert sent["headers"]["authorization"] == "Bearer sk-test-key"
    assert sent["headers"]["x-openrouter-title"] == "llmr"
    assert "x-llmr-priority" not in sent["headers"]


def test_usage_is_asked_for_where_only_asking_brings_it(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    base = sandbox_process.base_url
    tree = upstream(base)
    tree["upstreams"]["lab"] = {"base_url": base, "models": [{"id": "anthropic/claude-opus-4.8"}]}
    tree["upstreams"]["openrouter"]["models"] = [{"id": "openai/gpt-5.4"}]
    with Server(tree) as server:
        for model, asked in (("anthropic/claude-opus-4.8", True), ("openai/gpt-5.4", False)):
            reply = server.chat(model=model, stream=True)
            *events, done = reply.events()
            assert done == "[DONE]"
            assert all(event["choices"] for event in events)  # no chunk the caller did not ask for
            assert events[-1]["usage"]["completion_tokens"] > 0
            sent = sandbox.attempts(model)[0]["body"]
            assert ("stream_options" in sent) is asked


def test_the_callers_credentials_and_addresses_go_nowhere(shared: Server, sandbox: Control) -> None:
    headers = {
        "authorization": "Bearer caller-secret",
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
    }
    body = {"model": MODEL, "messages": HI, "base_url": "http://127.0.0.1:1", "api_key": "x"}
    assert shared.request("POST", "/v1/chat/completions", body, headers).status == 200
    sent = sandbox.attempts()[0]
    assert "caller-secret" not in json.dumps(sent["headers"])
    assert "cookie" not in sent["headers"]
    assert "x-forwarded-for" not in sent["headers"]


@pytest.mark.parametrize("stream", [True, False])
def test_response_headers(shared: Server, stream: bool) -> None:
    reply = shared.chat(model="auto:cost", stream=stream, headers={"x-request-id": "mine-1"})
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.headers["x-llmr-decision-id"].startswith("dec-")
    assert reply.headers["x-llmr-attempts"] == "1"
    assert reply.headers["x-llmr-cache"] == "bypass"
    assert ("x-llmr-cost-usd" in reply.headers) is not stream
    phases = dict(p.split(";dur=") for p in reply.headers["server-timing"].split(", "))
    parts = sum(float(phases[name]) for name in ("wait", "decide", "prepare", "upstream"))
    assert abs(parts - float(phases["total"])) < 0.01


@pytest.mark.parametrize("odd", ["a b", "x" * 200, "a\tb", "ä"])
def test_odd_request_ids_are_replaced(shared: Server, odd: str) -> None:
    reply = shared.chat(model="auto", headers={"x-request-id": odd.encode("latin-1")})
    assert reply.headers["x-request-id"].startswith("req-")


# --- bad input ---


def hello(**fields: Any) -> bytes:
    """A good body, but for these fields."""
    return json.dumps({"messages": [{"role": "user", "content": "x"}], **fields}).encode()


def deep(levels: int) -> bytes:
    return b'{"model":"auto","messages":' + b"[" * levels + b"]" * levels + b"}"


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "invalid_json"),
    "not json": (b"hello", "invalid_json"),
    "cut": (b'{"model": "auto", "mess', "invalid_json"),
    "array": (b"[1]", "invalid_json"),
    "nan": (b'{"model":"auto","messages":[],"temperature":NaN}', "invalid_json"),
    "byte order mark": (b"\xef\xbb\xbf{}", "invalid_json"),
    "bad utf-8": (b'{"model":"\xff"}', "invalid_json"),
    "lone surrogate": (b'{"model":"\\ud800","messages":[]}', "invalid_json"),
    "deep 1000": (deep(1000), "too_deep"),
    "deep 1000000": (deep(1_000_000), "too_deep"),
    "doubled key": (b'{"model":"a","model":"b","messages":[]}', "duplicate_key"),
    "no model": (hello(), "missing_model"),
    "model is a number": (hello(model=1), "invalid_type"),
    "no messages": (b'{"model":"auto"}', "empty_messages"),
    "empty messages": (hello(model="auto", messages=[]), "empty_messages"),
    "messages is text": (hello(model="auto", messages="hi"), "invalid_type"),
    "unknown priority": (hello(model="auto:fast"), "unknown_priority"),
    "stream is text": (hello(model="auto", stream="yes"), "invalid_type"),
    "negative wish": (hello(model="auto", max_latency_ms=-1), "out_of_range"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_a_400_that_says_what_is_wrong(shared: Server, name: str) -> None:
    body, code = BAD_BODIES[name]
    reply = shared.request("POST", "/v1/chat/completions", body)
    assert (reply.status, reply.error["code"]) == (400, code)
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"]
    assert reply.headers["x-should-retry"] == "false"


def test_a_model_that_does_not_exist_is_a_404_with_the_nearest_names(shared: Server) -> None:
    reply = shared.chat(model="gpt-5.4")
    assert (reply.status, reply.error["code"], reply.error["param"]) == (
        404,
        "model_not_found",
        "model",
    )
    assert "openai/gpt-5.4" in reply.error["message"]


def test_a_limit_nobody_meets_names_the_nearest_that_is_met(shared: Server) -> None:
    reply = shared.chat(model="auto", max_latency_ms=1)
    assert (reply.status, reply.error["param"]) == (400, "max_latency_ms")
    nearest = float(reply.error["message"].split("that does is ")[1].split(" ")[0])
    assert shared.chat(model="auto", max_latency_ms=nearest).status == 200


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_a_413(sandbox_process: SandboxProcess, chunked: bool) -> None:
    tree = upstream(sandbox_process.base_url, limits={"body_mb": 0.01})
    with Server(tree) as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        framing = "transfer-encoding: chunked" if chunked else "content-length: 900000000"
        head = f"POST /route HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n"
        raw.sendall(head.encode())
        if chunked:
            raw.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert raw.recv(65536).startswith(b"HTTP/1.1 413")


def test_without_a_key_the_answer_says_what_to_set() -> None:
    with Server({}) as server:
        for model in ("auto", MODEL):
            reply = server.chat(model=model)
            assert (reply.status, reply.error["code"]) == (503, "no_upstream_key")
            assert "OPENROUTER_API_KEY" in reply.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/route", 405),
        ("PUT", "/cache", 405),
        ("GET", "/v1/x", 404),
    ],
)
def test_unknown_paths_and_methods_are_clean_errors(
    shared: Server, method: str, path: str, status: int
) -> None:
    reply = shared.request(method, path)
    assert reply.status == status
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"]


# --- keys, and other sites ---


def test_keys_are_asked_for_and_compared(sandbox_process: SandboxProcess) -> None:
    tree = upstream(sandbox_process.base_url, server={"api_keys": ["right-key"]})
    with Server(tree) as server:
        for value in (None, "", "Bearer", "Bearer wrong", "Basic right-key", "right-key"):
            headers = {} if value is None else {"authorization": value}
            reply = server.chat(model="auto", headers=headers)
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert (
            server.chat(model="auto", headers={"authorization": "Bearer right-key"}).status == 200
        )
        assert server.request("GET", "/models").status == 401
        for path in ("/livez", "/readyz", "/health", "/docs", "/openapi.json"):
            assert server.request("GET", path).status == 200


def test_a_decision_is_shown_to_its_own_caller_only(sandbox_process: SandboxProcess) -> None:
    tree = upstream(sandbox_process.base_url, server={"api_keys": ["one", "two"]})
    with Server(tree) as server:
        mine, other = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        found = server.chat(model="auto", headers=mine).headers["x-llmr-decision-id"]
        assert server.request("GET", f"/v1/decisions/{found}", headers=mine).status == 200
        reply = server.request("GET", f"/v1/decisions/{found}", headers=other)
        assert (reply.status, reply.error["code"]) == (404, "decision_not_found")


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}])
def test_an_open_router_answers_no_other_site(shared: Server, headers: dict[str, str]) -> None:
    assert shared.chat(model="auto", headers=headers).status == 403


# --- looking at it ---


def test_models_have_their_figures_and_sources(shared: Server) -> None:
    rows = shared.request("GET", "/models").json["models"]
    assert 300 <= len(rows) <= 400
    for row in rows:
        assert {"id", "avg_latency_ms", "avg_total_ms", "quality_score", "quality_sd"} <= set(row)
        assert row["avg_total_ms"] > row["avg_latency_ms"] > 0
        assert set(row["sources"].values()) <= {
            *("measured", "recorded", "published", "configured", "estimated", "unknown")
        }
        assert not row["id"].startswith(("fb-", "~"))
    reply = shared.request("GET", "/v1/models", headers={"x-request-id": "mine-2"})
    assert reply.headers["x-request-id"] == "mine-2"
    listed = reply.json
    assert listed["object"] == "list"
    assert {"auto", "auto:speed", MODEL} <= {row["id"] for row in listed["data"]}


def test_metrics_count_what_happened(server: Server, sandbox: Control) -> None:
    for stream in (True, False, False):
        server.chat(model=MODEL, temperature=0, stream=stream)
    server.chat(model="no/such-model")
    sandbox.fault(MODEL, {"kind": "status", "status": 500})
    server.chat(model=MODEL)
    figures = server.request("GET", "/metrics").json
    assert figures["total_requests"] == 5
    assert figures["cached_requests"] == 2
    assert figures["cache_hit_rate"] == 0.4
    assert figures["errors_count"] == 2
    assert figures["model_usage"] == {MODEL: 3}
    assert figures["tokens"]["completion"] > 0
    assert figures["cost_usd"] > 0
    for part in (figures, figures["first_token"]):
        assert part["p50_latency_ms"] <= part["p95_latency_ms"] <= part["p99_latency_ms"]
        assert part["avg_latency_ms"] > 0


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/metrics", "text/plain"),
        ("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
        ("/metrics?format=prometheus", "*/*"),
    ],
)
def test_metrics_for_prometheus(server: Server, path: str, accept: str) -> None:
    server.chat(model=MODEL)
    reply = server.request("GET", path, headers={"accept": accept})
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith(("text/plain", "application/openmetrics-text"))
    assert 'llmr_requests_total{cache="bypass",outcome="ok",surface="v1"} 1.0' in text
    assert f'llmr_model_requests_total{{model="{MODEL}"}} 1.0' in text
    assert "gen_ai_client_operation_duration_seconds_bucket" in text


def test_invented_model_names_never_become_labels(server: Server) -> None:
    for number in range(50):
        server.chat(model=f"made/up-{number}")
    text = server.request("GET", "/metrics?format=prometheus").body.decode()
    assert "made/up" not in text
    assert 'llmr_errors_total{code="model_not_found"} 50.0' in text
    assert server.request("GET", "/metrics").json["model_usage"] == {}


def test_health_tells_what_was_probed(server: Server) -> None:
    eventually(
        lambda: bool(server.request("GET", "/health").json["openrouter_accessible"]), "probed"
    )
    health = server.request("GET", "/health").json
    assert health["status"] == "ok"
    assert health["sandbox"] is True
    assert health["redis_connected"] is False
    assert health["upstreams"]["openrouter"]["catalogue"] == "live"
    assert server.request("GET", "/livez").status == server.request("GET", "/readyz").status == 200


def test_an_unreachable_upstream_is_degraded_and_the_bundled_rows_serve() -> None:
    with Server(upstream("http://127.0.0.1:1/v1")) as server:
        found = server.request("GET", "/health").json
        eventually(lambda: server.request("GET", "/health").json["status"] == "degraded", "probed")
        assert found["openrouter_accessible"] is False
        rows = server.request("GET", "/models").json["models"]
        assert len(rows) > 300


# --- decisions ---


def test_a_decision_can_be_asked_for_without_sending(shared: Server, sandbox: Control) -> None:
    account = shared.request("POST", "/v1/decisions", {"messages": HI, "model": "auto:speed"}).json
    assert len(account["candidates"]) + len(account["excluded"]) > 500
    assert account["priority"] == "speed"
    reasons = {row["reason"] for row in account["excluded"]}
    assert {"batch", "alias", "router", "not_chat"} <= reasons
    assert sandbox.attempts() == []
    again = shared.request("GET", f"/v1/decisions/{account['id']}").json
    assert account.pop("telling_words").keys() == {"hello"}  # told once, and not kept
    assert {**again, "outcome": None} == {**account, "outcome": None}


def test_unknown_and_expired_decisions_are_told_apart(server: Server) -> None:
    first = server.request("POST", "/v1/decisions", {"messages": HI}).json["id"]
    kept = server.gateway.decisions._kept[1]
    assert kept is not None
    for _ in range(1000):
        server.gateway.decisions.add(kept.decision, b"open")
    gone = server.request("GET", f"/v1/decisions/{first}")
    assert (gone.status, gone.error["code"]) == (404, "decision_expired")
    never = server.request("GET", "/v1/decisions/dec-0-1")
    assert (never.status, never.error["code"]) == (404, "decision_not_found")


# --- documentation ---


def test_the_documentation_needs_no_network(shared: Server) -> None:
    page = shared.request("GET", "/docs")
    assert page.status == 200
    html = page.body.decode()
    assert "https://" not in html
    assert "http://" not in html
    for part in html.split('"'):
        if part.startswith("/docs/assets/"):
            assert shared.request("GET", part).status == 200


def test_every_route_of_the_contract_is_documented(shared: Server) -> None:
    paths = shared.request("GET", "/openapi.json").json["paths"]
    wanted: dict[str, Any] = {
        "/route": "post",
        "/models": "get",
        "/metrics": "get",
        "/health": "get",
        "/livez": "get",
        "/readyz": "get",
        "/cache/stats": "get",
        "/cache": "delete",
        "/v1/chat/completions": "post",
        "/v1/models": "get",
        "/v1/decisions": "post",
        "/v1/decisions/{decision_id}": "get",
        "/v1/feedback": "post",
    }
    for path, method in wanted.items():
        assert method in paths[path]
