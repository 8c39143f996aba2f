"""Recorded answers of real providers, played to a running router: its callers get the same."""

import base64
import json
import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from llmr.core.chunks import ChunkStream
from llmr.core.sse import Event, EventReader
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import Reply, Server, each_split, upstream
from tests.plain_reader import Answer, read_json, read_stream, sse

MODEL = "openai/gpt-5.4"
FOLDER = pathlib.Path(__file__).parent / "recordings"
BROKEN = ("groq-mid-stream-tool-use-failed", "openrouter-error-mid-stream-2025-11")
STREAMS = sorted(path.stem for path in (FOLDER / "sse").glob("*.txt"))
WHOLE_STREAMS = [name for name in STREAMS if name not in BROKEN]
RESPONSES = sorted(path.stem for path in (FOLDER / "responses").glob("*.json"))
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
BOTH = pytest.mark.parametrize("include_usage", [True, False], ids=["usage", "no-usage"])

# Streams that need nothing changed where the caller asked for usage.
NORMAL_ALREADY = (
    "azure-foundry-plain",
    "ollama-openai-compat-plain",
    "openai-finish-length-2024-09",
    "openai-n3-choices-structured-2024-09",
    "openai-parallel-tool-calls-2024-09",
    "openai-refusal-2024-09",
    "openai-refusal-logprobs-2024-09",
    "openai-tool-call-strict-2024-09",
    "openai-usage-final-chunk",
    "openrouter-usage-empty-choices-2026-03",
)


@pytest.fixture(scope="module")
def router(sandbox_process: SandboxProcess) -> Iterator[Server]:
    with Server(upstream(sandbox_process.base_url), sandbox=True) as running:
        yield running


def stream_bytes(name: str) -> bytes:
    return (FOLDER / "sse" / f"{name}.txt").read_bytes()


def record(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / kind / f"{name}.json").read_bytes())
    return found


def play(
    sandbox: Control,
    *pieces: bytes,
    headers: dict[str, str] = SSE,
    delay: float = 0.0,
    **more: Any,
) -> None:
    """Let the upstream answer with these bytes; with a delay every piece is a write of its own."""
    encoded = [{"data": base64.b64encode(p).decode(), "delay": delay} for p in pieces]
    sandbox.fault(MODEL, {"kind": "raw", "pieces": encoded, "headers": headers, **more})


def ask(router: Server, include_usage: bool, path: str = "/v1/chat/completions") -> Reply:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    return router.chat(path, model=MODEL, stream=True, **options)


def same(got: Answer, recorded: Answer) -> None:
    """The same answer; where a stream had no usage the router adds an estimate, labelled as one."""
    assert got.choices == recorded.choices
    if recorded.usage is None:
        assert got.usage is not None
        assert got.usage["estimated"] is True
    else:
        assert got.usage == recorded.usage


def assert_normal_form(stream: bytes, include_usage: bool) -> None:
    assert stream.endswith(b"}\n\ndata: [DONE]\n\n")
    blocks = stream.decode().removesuffix("\n\n").split("\n\n")
    assert all(b.startswith(("data: {", "data: [DONE]", ":")) and "\n" not in b for b in blocks)
    chunks = [json.loads(event.data) for event in sse(stream)[:-1]]
    finishes: Counter[int] = Counter()
    for chunk in chunks:
        assert "error" not in chunk
        for choice in chunk["choices"]:
            index = choice["index"]
            assert finishes[index] == 0, "something of a choice came after its finish"
            assert isinstance(choice["delta"], dict)
            assert choice.get("finish_reason") != ""
            finishes[index] += choice.get("finish_reason") is not None
    assert finishes
    assert set(finishes.values()) == {1}
    (usage,) = [chunk for chunk in chunks if chunk.get("usage")]
    if include_usage:
        assert usage["choices"] == []
        assert usage is chunks[-1]
    else:
        assert usage["choices"][-1]["finish_reason"]
    assert len({chunk["id"] for chunk in chunks if chunk.get("id")}) == 1


# --- streams as streams ---


@BOTH
@pytest.mark.parametrize("name", WHOLE_STREAMS)
def test_a_stream_brings_the_caller_what_was_recorded(
    router: Server, sandbox: Control, name: str, include_usage: bool
) -> None:
    play(sandbox, stream_bytes(name))
    reply = ask(router, include_usage)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert_normal_form(reply.body, include_usage)
    same(read_stream(reply.body), read_stream(stream_bytes(name)))
    assert len(sandbox.attempts(MODEL)) == 1


@pytest.mark.parametrize("name", NORMAL_ALREADY)
def test_a_stream_in_normal_form_goes_out_as_the_bytes_that_came(
    router: Server, sandbox: Control, name: str
) -> None:
    play(sandbox, stream_bytes(name))
    assert ask(router, True).body == stream_bytes(name)


@BOTH
@pytest.mark.parametrize("name", WHOLE_STREAMS)
def test_fields_the_router_does_not_know_reach_the_caller(
    router: Server, sandbox: Control, name: str, include_usage: bool
) -> None:
    play(sandbox, stream_bytes(name))
    reply = ask(router, include_usage)
    assert read_stream(reply.body).extras == read_stream(stream_bytes(name)).extras


def test_the_native_call_streams_the_same(router: Server, sandbox: Control) -> None:
    name = "openrouter-tool-call-turn1-2026-06"
    play(sandbox, stream_bytes(name))
    reply = ask(router, True, "/route")
    assert_normal_form(reply.body, True)
    same(read_stream(reply.body), read_stream(stream_bytes(name)))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/route"])
@pytest.mark.parametrize("name", WHOLE_STREAMS)
def test_a_stream_nobody_asked_for_becomes_one_object(
    router: Server, sandbox: Control, name: str, path: str
) -> None:
    play(sandbox, stream_bytes(name))
    reply = router.chat(path, {"cache-control": "no-store"}, model=MODEL)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    same(read_json(reply.body), read_stream(stream_bytes(name)))
    if path != "/route":
        assert reply.json["object"] == "chat.completion"


# --- streams that end in an error ---


@BOTH
@pytest.mark.parametrize("name", BROKEN)
def test_s02_an_error_in_mid_stream_ends_it_with_one_error_event(
    router: Server, sandbox: Control, name: str, include_usage: bool
) -> None:
    play(sandbox, stream_bytes(name))
    reply = ask(router, include_usage)
    assert reply.status == 200
    last = sse(reply.body)[-1]
    error = json.loads(last.data)["error"]
    recorded = read_stream(stream_bytes(name))
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == recorded.error["message"]
    assert isinstance(error["code"], str)
    assert reply.body.count(b'"error"') == 1
    assert b"[DONE]" not in reply.body
    # Whether a finish that came before the error was already on its way does not matter.
    got = read_stream(reply.body)
    for choice in (*got.choices.values(), *recorded.choices.values()):
        choice.finish = None
    assert got.choices == recorded.choices


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kept", ["role", "nothing"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_s01_an_error_before_any_content_is_an_http_error(
    router: Server, sandbox: Control, name: str, kept: str, stream: bool
) -> None:
    blocks = stream_bytes(name).split(b"\n\n")
    failed = next(block for block in blocks if b'"error":{' in block)
    role = b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
    play(sandbox, b"\n\n".join([role, failed, b""] if kept == "role" else [failed, b""]))
    reply = router.chat(model=MODEL, stream=stream)
    assert reply.status == 400
    assert reply.headers["content-type"] == "application/json"
    assert reply.error["message"] == read_stream(stream_bytes(name)).error["message"]


# --- the same bytes in other pieces ---


def read(pieces: list[bytes]) -> list[Event]:
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.flush()


def relayed(events: list[Event], include_usage: bool) -> bytes:
    stream = ChunkStream(include_usage)
    out = b"".join(stream.take(event) for event in events)
    return out + (repr(stream.failure).encode() if stream.failure else stream.end(7))


def test_s02_an_event_named_error_is_one_whatever_it_holds() -> None:
    stream = ChunkStream(True)
    for event in read([b"event: error\ndata: gone away\n\n"]):
        assert stream.take(event) == b""
    assert stream.failure is not None
    assert stream.failure.message == "gone away"


def test_s16_what_comes_after_done_is_nothing() -> None:
    data = stream_bytes("deepseek-plain")
    more = b'data: {"choices":[{"index":1,"delta":{"content":"more"}}]}\n\n'
    assert relayed(read([data + more]), True) == relayed(read([data]), True)


def places(data: bytes) -> list[int]:
    """Every offset of short recordings; of long ones a part, all of them near lines' ends."""
    step = 1 + len(data) // 4000
    offsets = set(range(1, len(data), step))
    if step > 1:
        ends = [i for i, byte in enumerate(data) if byte in b"\r\n" or byte > 127]
        offsets.update(j for i in ends for j in range(i - 2, i + 4))
    return sorted(offset for offset in offsets if 0 < offset < len(data))


@pytest.mark.parametrize("name", STREAMS)
def test_s12_a_cut_at_any_offset_changes_nothing(name: str) -> None:
    data = stream_bytes(name)
    whole = read([data])
    expected = [relayed(whole, asked) for asked in (True, False)]
    for offset in places(data):
        events = read([data[:offset], data[offset:]])
        if events != whole:  # the same events give the same bytes
            assert [relayed(events, asked) for asked in (True, False)] == expected, offset


def folded(data: bytes) -> bytes:
    """The same stream with every event on two lines, cut after its first field."""
    return re.sub(rb'^(data: \{"\w+": ?[^,{[]+,)', rb"\1\ndata:", data, flags=re.MULTILINE)


@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
@pytest.mark.parametrize("name", [n for n in WHOLE_STREAMS if len(stream_bytes(n)) < 4000])
def test_s11_s12_other_line_ends_change_nothing_wherever_cut(name: str, end: bytes) -> None:
    recorded = folded(stream_bytes(name))
    assert recorded.count(b"\n") > stream_bytes(name).count(b"\n")
    expected = relayed(read([recorded]), True)
    same(read_stream(expected), read_stream(stream_bytes(name)))
    data = b"\xef\xbb\xbf" + recorded.replace(b"\n", end)
    for offset in range(1, len(data)):
        assert relayed(read([data[:offset], data[offset:]]), True) == expected, offset


@pytest.mark.parametrize("name", STREAMS)
def test_s12_pieces_of_any_size_change_nothing(name: str) -> None:
    data = stream_bytes(name)
    for include_usage in (True, False):
        expected = relayed(read([data]), include_usage)
        for pieces in each_split(data, (1, 2, 3, 7, 64, 1000)):
            assert relayed(read(pieces), include_usage) == expected


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (1, "mistral-tool-call"),
        (3, "openrouter-usage-empty-choices-2026-03"),
        (7, "openrouter-error-mid-stream-2025-11"),
        (64, "deepseek-plain"),
        (64, "perplexity-citations"),
    ],
)
def test_s12_pieces_of_any_size_change_nothing_on_a_socket(
    router: Server, sandbox: Control, size: int, name: str
) -> None:
    data = stream_bytes(name)
    play(sandbox, data)
    expected = ask(router, True).body
    sandbox.reset()
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    play(sandbox, *pieces, delay=0.0011)
    assert ask(router, True).body == expected


@pytest.mark.parametrize("framing", ["length", "close"])
@pytest.mark.parametrize("name", ["gpustack-vllm-plain", "openrouter-plain-2026-06"])
def test_the_framing_of_the_body_changes_nothing(
    router: Server, sandbox: Control, name: str, framing: str
) -> None:
    play(sandbox, stream_bytes(name))
    expected = ask(router, True).body
    sandbox.reset()
    play(sandbox, stream_bytes(name), framing=framing)
    assert ask(router, True).body == expected


# --- whole answers ---


@pytest.mark.parametrize("name", RESPONSES)
def test_a_whole_answer_is_relayed_byte_for_byte(
    router: Server, sandbox: Control, name: str
) -> None:
    body = b"\n\n" + json.dumps(record("responses", name)["body"], indent=1).encode()
    play(sandbox, body, headers=JSON)
    reply = router.chat(model=MODEL)
    assert reply.status == 200
    assert reply.body == body


@pytest.mark.parametrize("name", RESPONSES)
def test_the_native_call_has_the_upstreams_id_choices_and_usage(
    router: Server, sandbox: Control, name: str
) -> None:
    body = record("responses", name)["body"]
    play(sandbox, json.dumps(body).encode(), headers=JSON)
    got = router.chat("/route", {"cache-control": "no-store"}, model=MODEL).json
    assert {key: got[key] for key in ("id", "choices", "usage")} == {
        key: body[key] for key in ("id", "choices", "usage")
    }
    assert got["model"] == got["routing_decision"]["selected_model"] == MODEL


@BOTH
@pytest.mark.parametrize("name", RESPONSES)
def test_a_whole_answer_becomes_a_stream_where_one_was_asked(
    router: Server, sandbox: Control, name: str, include_usage: bool
) -> None:
    body = json.dumps(record("responses", name)["body"]).encode()
    play(sandbox, body, headers=JSON)
    reply = ask(router, include_usage)
    assert_normal_form(reply.body, include_usage)
    got, recorded = read_stream(reply.body), read_json(body)
    same(got, recorded)
    assert got.extras == recorded.extras


def test_several_tool_calls_of_a_whole_answer_stay_apart_in_a_stream(
    router: Server, sandbox: Control
) -> None:
    body = record("responses", "openai-parallel-tools")["body"]
    (call,) = body["choices"][0]["message"]["tool_calls"]
    body["choices"][0]["message"]["tool_calls"] = [{**call, "id": f"call_{n}"} for n in range(3)]
    play(sandbox, json.dumps(body).encode(), headers=JSON)
    got = read_stream(ask(router, True).body)
    assert [got.choices[0].tool_calls[n].id for n in range(3)] == ["call_0", "call_1", "call_2"]
    assert got.choices == read_json(json.dumps(body).encode()).choices


# --- errors ---


class Told(NamedTuple):
    """What the caller is told: status, code, words of the message, seconds to wait, field."""

    status: int
    code: str
    words: str
    wait: tuple[str, ...] = ()
    param: str | None = None


CONTEXT = "context_length_exceeded"
BAD_KEY = Told(502, "upstream_credentials", "Check the key of upstream 'openrouter'")
OWN_WAIT = tuple(map(str, range(17, 24)))  # no hint: how long the router leaves it after 3 sends
ERRORS = {
    "anthropic-400-context-length": Told(400, CONTEXT, "prompt is too long: 3333404 tokens"),
    "anthropic-401": BAD_KEY,
    "azure-401": BAD_KEY,
    "azure-429-rate-limit": Told(429, "rate_limited", "have exceeded rate limit", ("0", "1")),
    "deepseek-400-context-length": Told(400, CONTEXT, "maximum context length is 1048565"),
    "deepseek-401": BAD_KEY,
    "gemini-400-invalid-key": BAD_KEY,
    "gemini-429-quota": Told(429, "rate_limited", "exceeded your current quota", ("48", "49")),
    "groq-400-tool-use-failed": Told(400, "tool_use_failed", "did not match schema"),
    "groq-404-model-not-found": Told(404, "model_not_found", "does not exist"),
    "mistral-401": BAD_KEY,
    "ollama-400-context-length": Told(400, CONTEXT, "exceeded max context length"),
    "ollama-401": BAD_KEY,
    "openai-400-bad-request": Told(
        400, "unsupported_parameter", "Use 'max_completion_tokens'", param="max_tokens"
    ),
    "openai-400-context-length": Told(400, CONTEXT, "exceeds the context window", param="input"),
    "openai-400-no-messages": Told(400, "empty_array", "minimum length 1", param="messages"),
    "openai-401": BAD_KEY,
    "openai-404-unknown-model": Told(404, "model_not_found", "does not exist"),
    "openrouter-400-context-length": Told(400, CONTEXT, "maximum context length is 200000"),
    "openrouter-401-missing-authentication": BAD_KEY,
    "openrouter-429-upstream-rate-limited": Told(
        429, "rate_limited", "temporarily rate-limited upstream", OWN_WAIT
    ),
    "xai-400-invalid-key": BAD_KEY,
}
ACCOUNT = {"openai-organization": "org-planted0123456789", "x-request-id": "req_planted"}
PRIVATE = ("user_", "org-", "planted", "REDACTED", "sk-", "invalid-key", "****")


def refuse(sandbox: Control, found: dict[str, Any], body: bytes) -> None:
    headers = {**found["response_headers"], **ACCOUNT}
    fault = {"kind": "status", "status": found["status"], "body": body.decode(), "headers": headers}
    sandbox.fault(MODEL, fault)


def test_the_table_names_every_recorded_error() -> None:
    assert sorted(ERRORS) == sorted(path.stem for path in (FOLDER / "errors").glob("*.json"))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", list(ERRORS))
def test_an_upstreams_error_is_told_cleanly(
    server: Server, sandbox: Control, name: str, stream: bool
) -> None:
    told, found = ERRORS[name], record("errors", name)
    refuse(sandbox, found, json.dumps(found["body"]).encode())
    reply = server.chat(model=MODEL, stream=stream)
    assert reply.status == told.status
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json) == {"error"}
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.error["code"] == told.code
    assert told.words in reply.error["message"]
    assert reply.error["param"] == told.param
    assert reply.headers.get("retry-after") in (told.wait or (None,))
    assert reply.headers["x-should-retry"] == ("true" if told.status == 429 else "false")
    assert reply.headers["x-request-id"]
    if told.status in (400, 404):
        assert len(sandbox.attempts(MODEL)) == 1
    everything = reply.body.decode() + json.dumps(dict(reply.headers))
    assert [word for word in PRIVATE if word in everything] == []


KEYS = {
    "OpenRouter": "sk-or-v1-4f0c9d1e7a",
    "Azure": "0123456789abcdef0123456789abcdef",
    "Mistral": "f9KdQ2mZx7Lp0TqRw4Ys8UbNc1VeHgJa",
    "made up": "invalid-key",
}


@pytest.mark.parametrize("whose", list(KEYS))
def test_a_key_the_upstream_repeats_never_reaches_the_caller(
    sandbox_process: SandboxProcess, sandbox: Control, whose: str
) -> None:
    key = KEYS[whose]
    found = record("errors", "openai-401")
    refuse(sandbox, found, json.dumps(found["body"]).replace("invalid-key", key).encode())
    tree = upstream(sandbox_process.base_url)
    tree["upstreams"]["openrouter"]["api_key"] = key
    with Server(tree, sandbox=True) as router:
        reply = router.chat(model=MODEL)
    assert sandbox.attempts(MODEL)[0]["headers"]["authorization"] == f"Bearer {key}"
    assert reply.status == 502
    assert key not in reply.body.decode() + str(reply.headers)
