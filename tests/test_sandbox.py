"""The sandbox, over real sockets: its answers, its faults, its control port, its process."""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import openai
import pydantic
import pytest

from llmr.sandbox import CANONICAL_ANSWER, catalogue, pace, samples, scenarios, text
from llmr.sandbox.control import Control, ControlError
from llmr.sandbox.process import SandboxError, SandboxProcess
from llmr.sandbox.rules import Order, Rules
from llmr.sandbox.server import Listening, run_sandbox
from llmr.sandbox.settings import Settings

MODEL = "openai/gpt-5.4"
HELLO = [{"role": "user", "content": "hello"}]
SHORT = {"retry_after_s": 2, "silent_s": 0.1, "slow_first_token_s": 0.1, "stall_s": 0.1}


@pytest.fixture(scope="module")
def process() -> Iterator[SandboxProcess]:
    with SandboxProcess(speed=0) as running:
        yield running


@pytest.fixture
def sandbox(process: SandboxProcess) -> Iterator[SandboxProcess]:
    before = process.control.settings()
    process.control.reset()
    yield process
    process.control.settings(**before)


@pytest.fixture
def control(sandbox: SandboxProcess) -> Control:
    return sandbox.control


@pytest.fixture
def client(sandbox: SandboxProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=sandbox.base_url,
        api_key="sk-test",
        max_retries=0,
        timeout=5,
        _strict_response_validation=True,
    ) as made:
        yield made


# A client that hides nothing: bytes, and how the connection ended.


class Wire(NamedTuple):
    """All bytes of a reply, and how it ended: "eof", "reset", or "open" after `patience`."""

    data: bytes
    end: str

    @property
    def head(self) -> str:
        return self.data.partition(b"\r\n\r\n")[0].decode()

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1])

    @property
    def raw_body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def chunked(self) -> bool:
        return "transfer-encoding: chunked" in self.head

    @property
    def body(self) -> bytes:
        return dechunked(self.raw_body)[0] if self.chunked else self.raw_body

    @property
    def whole(self) -> bool:
        """Whether the framing says that nothing is missing, and nothing is left over."""
        if self.chunked:
            return dechunked(self.raw_body)[1]
        return f"content-length: {len(self.raw_body)}\r\n" in self.head + "\r\n"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data_lines(self) -> list[str]:
        lines = self.body.decode().split("\n")
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        found = []
        for line in self.data_lines:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    @property
    def pieces(self) -> list[str]:
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", [])]
        return [delta["content"] for delta in deltas if delta.get("content")]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def dechunked(data: bytes) -> tuple[bytes, bool]:
    """The body, and whether it ended with an end chunk and nothing after it."""
    body = b""
    while True:
        line, found, rest = data.partition(b"\r\n")
        try:
            size = int(line, 16)
        except ValueError:
            return body, False
        if not found or len(rest) < size + 2:
            return body + rest[:size], False
        if size == 0:
            return body, rest == b"\r\n"
        body, data = body + rest[:size], rest[size + 2 :]


def connect(sandbox: SandboxProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", sandbox.port), timeout=5)


def post(body: object, path: str = "/api/v1/chat/completions", extra: str = "") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: sandbox\r\ncontent-length: {len(content)}\r\n{extra}\r\n"
    return head.encode() + content


def get(path: str, extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n{extra}\r\n".encode()


def receive(sock: socket.socket, patience: float = 5.0) -> Wire:
    data = b""
    deadline = time.monotonic() + patience
    while True:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            got = sock.recv(65536)
        except TimeoutError:
            return Wire(data, "open")
        except ConnectionResetError:
            return Wire(data, "reset")
        if not got:
            return Wire(data, "eof")
        data += got


def talk(sandbox: SandboxProcess, request: bytes, patience: float = 5.0) -> Wire:
    with connect(sandbox) as sock:
        sock.sendall(request)
        return receive(sock, patience)


def ask(
    sandbox: SandboxProcess,
    model: str = MODEL,
    *,
    stream: bool = True,
    patience: float = 5.0,
    **more: Any,
) -> Wire:
    body = {"model": model, "messages": HELLO, "stream": stream, **more}
    return talk(sandbox, post(body, extra="connection: close\r\n"), patience)


def complete(wire: Wire) -> bool:
    return wire.end == "eof" and wire.whole and wire.data_lines[-1:] == ["[DONE]"]


def create(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **wishes})


# Answers.


def test_json_answer_is_valid_for_the_official_client(client: openai.OpenAI) -> None:
    reply = create(client)
    content = reply.choices[0].message.content
    assert content == f"{CANONICAL_ANSWER} The model asked for was {MODEL}."
    assert reply.id.startswith("gen-")
    assert reply.model == MODEL
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage
    assert reply.usage.completion_tokens == len(text.pieces(content))
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_streamed_answer_is_valid_and_says_the_same(client: openai.OpenAI) -> None:
    stream = create(client, stream=True)
    chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == text.answer_text(MODEL, 0)
    assert {chunk.choices[0].delta.role for chunk in chunks} == {"assistant"}
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:]] == [None, "stop", "stop"]
    assert [bool(chunk.usage) for chunk in chunks[-3:]] == [False, False, True]


def test_a_stream_has_the_shape_of_the_provider(sandbox: SandboxProcess) -> None:
    sandbox.control.settings(speed=1, first_token_s=0.12, tokens_per_s=1e6, comment_every_s=0.05)
    wire = ask(sandbox)
    assert wire.body.startswith(b": OPENROUTER PROCESSING\n\n" * 3 + b"data: {")
    assert complete(wire)
    assert "x-generation-id: gen-" in wire.head
    assert "x-llmr-sandbox: simulated" in wire.head
    assert "content-type: text/event-stream" in wire.head
    first = wire.chunks[0]
    assert list(first) == ["id", "object", "created", "model", "provider", "choices"]
    assert first["choices"][0] == {
        "index": 0,
        "delta": {"content": "This", "role": "assistant"},
        "finish_reason": None,
        "native_finish_reason": None,
        "logprobs": None,
    }


def test_json_answer_has_every_field_of_the_provider(sandbox: SandboxProcess) -> None:
    wire = ask(sandbox, stream=False)
    assert wire.whole
    body = wire.json
    assert f"x-generation-id: {body['id']}" in wire.head
    assert body["object"] == "chat.completion"
    assert (body["provider"], body["system_fingerprint"]) == ("Sandbox", None)
    choice = body["choices"][0]
    assert (choice["index"], choice["logprobs"]) == (0, None)
    assert choice["native_finish_reason"] == "stop"
    assert choice["message"]["refusal"] is choice["message"]["reasoning"] is None
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_the_canonical_answer_says_that_it_is_simulated() -> None:
    assert CANONICAL_ANSWER.startswith("This is a simulated answer")
    assert 55 <= len(text.pieces(CANONICAL_ANSWER)) <= 65


@pytest.mark.parametrize(
    "words", ["", "a  b\n\nc ", " x" * 9, "y" * 40, CANONICAL_ANSWER, "é\t漢字 "]
)
def test_pieces_join_to_the_text(words: str) -> None:
    assert "".join(text.pieces(words)) == words


def test_answers_repeat_to_the_letter(sandbox: SandboxProcess) -> None:
    assert ask(sandbox).pieces == ask(sandbox).pieces
    assert ask(sandbox).text != ask(sandbox, "openai/gpt-5.4-mini").text


def test_cost_is_exact(sandbox: SandboxProcess) -> None:
    wire = ask(sandbox, stream=False, messages=[{"role": "user", "content": "x" * 4000}])
    usage = json.loads(wire.body, parse_float=Decimal)["usage"]
    assert usage["prompt_tokens"] == 1000
    row = catalogue.load().rows[MODEL]
    prompt = Decimal(row["pricing"]["prompt"]) * 1000
    completion = Decimal(row["pricing"]["completion"]) * usage["completion_tokens"]
    assert usage["cost"] == prompt + completion > 0
    assert usage["cost_details"]["upstream_inference_prompt_cost"] == prompt


def test_long_prompts_cost_what_the_catalogue_says() -> None:
    row = catalogue.load().rows["anthropic/claude-haiku-5.5"]
    assert catalogue.prices(row, 100_000).prompt == Decimal("0.0000001")
    assert catalogue.prices(row, 100_001).prompt == Decimal("0.0000005")


def test_negative_prices_are_not_charged() -> None:
    row = {"pricing": {"prompt": "-1", "completion": "-1"}}
    assert set(catalogue.prices(row, 1)) == {Decimal(0)}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_cuts_the_answer(sandbox: SandboxProcess, field: str) -> None:
    wish: dict[str, Any] = {field: 7}
    wire = ask(sandbox, **wish)
    assert wire.pieces == text.pieces(CANONICAL_ANSWER)[:7]
    assert wire.chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert wire.chunks[-1]["usage"]["completion_tokens"] == 7


def test_a_stop_string_ends_the_answer(sandbox: SandboxProcess) -> None:
    assert ask(sandbox, stop="sandbox").text == "This is a simulated answer from the llmr "
    assert ask(sandbox, stop=["order", " simulated"]).text == "This is a"


def test_several_choices_each_get_their_end(client: openai.OpenAI) -> None:
    reply = create(client, n=3)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    stream = create(client, n=3, stream=True)
    said = ["", "", ""]
    ends = set()
    for chunk in stream:
        choice = chunk.choices[0]
        said[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends.add(choice.index)
    assert said == [text.answer_text(MODEL, 0)] * 3
    assert ends == {0, 1, 2}


def test_images_are_counted_in_the_text(sandbox: SandboxProcess) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    content = [{"type": "text", "text": "what is this?"}, picture, picture]
    assert "given 2 images." in ask(sandbox, messages=[{"role": "user", "content": content}]).text


def test_reasoning_comes_first_where_asked_and_supported(sandbox: SandboxProcess) -> None:
    wire = ask(sandbox, reasoning={"effort": "high"})
    deltas = [chunk["choices"][0]["delta"] for chunk in wire.chunks]
    thought = [delta["reasoning"] for delta in deltas if "reasoning" in delta]
    assert "".join(thought) == text.REASONING
    assert all("reasoning" in delta for delta in deltas[: len(thought)])
    assert deltas[0]["reasoning_details"][0]["type"] == "reasoning.text"
    usage = wire.chunks[-1]["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == len(thought)
    assert usage["completion_tokens"] == len(thought) + len(wire.pieces)
    message = ask(sandbox, stream=False, reasoning_effort="low").json["choices"][0]["message"]
    assert message["reasoning"] == text.REASONING


@pytest.mark.parametrize(
    ("model", "wish"),
    [
        (MODEL, {"reasoning_effort": "none"}),
        (MODEL, {"reasoning": {"enabled": False}}),
        ("fb-ok", {"reasoning_effort": "high"}),
    ],
)
def test_no_reasoning_otherwise(sandbox: SandboxProcess, model: str, wish: dict[str, Any]) -> None:
    assert (
        ask(sandbox, model, stream=False, **wish).json["choices"][0]["message"]["reasoning"] is None
    )


def test_hidden_reasoning_is_still_counted(sandbox: SandboxProcess) -> None:
    body = ask(sandbox, stream=False, reasoning={"effort": "low", "exclude": True}).json
    assert body["choices"][0]["message"]["reasoning"] is None
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_a_prefill_is_continued(sandbox: SandboxProcess) -> None:
    begun = CANONICAL_ANSWER[:50]
    prefilled = [*HELLO, {"role": "assistant", "content": begun}]
    assert begun + ask(sandbox, "fb-ok", messages=prefilled).text == CANONICAL_ANSWER
    other = [*HELLO, {"role": "assistant", "content": "Something else"}]
    assert ask(sandbox, "fb-ok", messages=other).text == CANONICAL_ANSWER


def test_a_prefill_is_refused_by_the_model_that_says_so(sandbox: SandboxProcess) -> None:
    prefilled = [*HELLO, {"role": "assistant", "content": "This"}]
    refused = ask(sandbox, "fb-ok-noprefill", messages=prefilled)
    assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_prefill")
    assert ask(sandbox, "fb-ok-noprefill").text == CANONICAL_ANSWER


# Tools and schemas.

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 3},
                "unit": {"enum": ["celsius", "kelvin"]},
            },
            "required": ["city", "days", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
TOOLS = [WEATHER, CLOCK]


def test_tools_are_called(client: openai.OpenAI) -> None:
    reply = create(client, tools=TOOLS)
    (choice,) = reply.choices
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert (call.id[:5], call.function.name) == ("call_", "weather")
    arguments = json.loads(call.function.arguments)
    assert arguments == {"city": "simulated", "days": 3, "unit": "celsius"}


def test_a_streamed_tool_call_names_itself_once(client: openai.OpenAI) -> None:
    stream = create(client, tools=TOOLS, stream=True, tool_choice="required")
    calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", "")
    assert len(calls) > 2
    assert all(call.id is None and call.function.name is None for call in calls[1:])
    assert json.loads("".join(call.function.arguments for call in calls))["days"] == 3


def test_a_named_tool_is_the_one_called(sandbox: SandboxProcess) -> None:
    named = {"type": "function", "function": {"name": "clock"}}
    body = ask(sandbox, stream=False, tools=TOOLS, tool_choice=named).json
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "clock"
    named["function"] = {"name": "nobody"}
    assert ask(sandbox, tools=TOOLS, tool_choice=named).status == 400


def test_text_follows_a_tool_result_or_a_ban(sandbox: SandboxProcess) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    turns = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    assert ask(sandbox, messages=turns, tools=TOOLS).text.startswith(CANONICAL_ANSWER)
    assert ask(sandbox, tools=TOOLS, tool_choice="none").text.startswith(CANONICAL_ANSWER)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(pydantic.BaseModel):
    kind: Literal["leaf"]
    size: Annotated[float, pydantic.Field(gt=0.25, lt=0.5)]


class Tree(pydantic.BaseModel):
    kind: Literal["tree"]
    branches: Annotated[list["Tree | Leaf"], pydantic.Field(min_length=1)]


class Everything(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(min_length=12, max_length=14)]
    age: Annotated[int, pydantic.Field(ge=18, le=30, multiple_of=7)]
    below: Annotated[int, pydantic.Field(lt=-3)]
    colour: Colour
    flag: bool
    maybe: str | None
    pair: tuple[int, str]
    days: Annotated[list[int], pydantic.Field(min_length=3, max_length=3)]
    table: dict[str, int]
    next: "Everything | None" = None


@pytest.mark.parametrize(
    "shape", [Leaf, Everything, list[int], int | None, dict[str, Leaf], Colour]
)
def test_samples_are_valid_for_their_schema(shape: Any) -> None:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(shape)
    value = samples.sample(adapter.json_schema())
    adapter.validate_json(json.dumps(value), strict=True)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 3}, 3),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": "string", "maxLength": 3}, "sim"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"type": ["integer", "null"]}, 1),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2}, [1, 1]),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "simulated"}),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]},
            {"a": 1, "b": 2},
        ),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "string", "format": "date"}}}, "2026-01-01"),
        (True, None),
    ],
)
def test_sample_by_keyword(schema: Any, value: Any) -> None:
    assert samples.sample(schema) == value


def test_an_endless_schema_ends() -> None:
    assert samples.sample({"$ref": "#"}) is None
    adapter = pydantic.TypeAdapter(Tree)
    assert samples.sample(adapter.json_schema())["kind"] == "tree"


def test_a_schema_shapes_the_answer(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(
        model=MODEL,
        messages=HELLO,  # type: ignore[arg-type]
        response_format=Everything,
    )
    assert reply.choices[0].message.parsed
    assert 18 <= reply.choices[0].message.parsed.age <= 30


def test_a_json_object_is_given_where_asked(sandbox: SandboxProcess) -> None:
    assert json.loads(ask(sandbox, response_format={"type": "json_object"}).text)["simulated"]


# Refusals, models, keys.


def test_an_unknown_model_is_refused_as_the_provider_does(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, model="no/such")
    assert caught.value.body == {"message": "no/such is not a valid model ID", "code": 400}


@pytest.mark.parametrize("model", [f"{MODEL}:nitro", f"{MODEL}:floor", "x/fb-ok", "fb-s11:free"])
def test_variants_and_prefixes_are_known(sandbox: SandboxProcess, model: str) -> None:
    assert ask(sandbox, model).text.startswith(CANONICAL_ANSWER)
    assert ask(sandbox, f"{MODEL}:wrong").status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        {"model": MODEL},
        {"model": MODEL, "messages": []},
        {"model": MODEL, "messages": ["x"]},
        {"messages": HELLO},
        {"model": 7, "messages": HELLO},
        {"model": MODEL, "messages": HELLO, "max_tokens": "many"},
    ],
)
def test_a_broken_request_is_a_400(sandbox: SandboxProcess, body: object) -> None:
    wire = talk(sandbox, post(body, extra="connection: close\r\n"))
    assert (wire.status, wire.json["error"]["code"]) == (400, 400)


def test_a_prompt_beyond_the_window_is_refused(sandbox: SandboxProcess) -> None:
    wire = ask(sandbox, "fb-ok", messages=[{"role": "user", "content": "x" * 4 * 128_001}])
    assert wire.status == 400
    assert "maximum context length is 128000 tokens" in wire.json["error"]["message"]


@pytest.mark.parametrize("prefix", ["", "/v1", "/api/v1"])
def test_the_catalogue_lists_models_and_fault_names(sandbox: SandboxProcess, prefix: str) -> None:
    page = talk(sandbox, get(f"{prefix}/models")).json
    rows = {row["id"]: row for row in page["data"]}
    assert page["total_count"] == len(rows) > 500
    assert page["links"] == {"next": None}
    assert rows[MODEL]["name"] == "Openai: Gpt 5.4"
    assert set(scenarios.MODEL_NAMES) <= set(rows)
    assert all(rows[name]["kind"] == "fault" for name in scenarios.MODEL_NAMES)
    assert rows["fb-ok"]["pricing"] == {"prompt": "0", "completion": "0"}


def test_endpoints_show_latency_only_to_those_with_a_key(sandbox: SandboxProcess) -> None:
    path = "/api/v1/models/anthropic/claude-sonnet-4.6/endpoints"
    (anonymous,) = talk(sandbox, get(path)).json["data"]["endpoints"]
    assert anonymous["latency_last_30m"] is anonymous["throughput_last_30m"] is None
    (known,) = talk(sandbox, get(path, "authorization: Bearer k\r\n")).json["data"]["endpoints"]
    recorded = catalogue.load().latency("anthropic/claude-sonnet-4.6")
    assert recorded
    assert known["latency_last_30m"]["p50"] == pytest.approx(recorded[0].p50 * 1000)
    assert known["throughput_last_30m"]["p90"] == pytest.approx(recorded[1].p90)
    assert talk(sandbox, get("/v1/models/no/such/endpoints")).status == 404


def test_everything_else_is_a_404_in_the_envelope(sandbox: SandboxProcess) -> None:
    for request in (get("/v1/else"), get("/faults"), post({}, "/faults", "connection: close\r\n")):
        wire = talk(sandbox, request)
        assert (wire.status, wire.json["error"]["code"]) == (404, 404)


def test_a_key_can_be_required(sandbox: SandboxProcess, control: Control) -> None:
    assert talk(sandbox, get("/v1/key")).json["data"]["label"] == "sandbox"
    control.settings(require_key="right")
    assert ask(sandbox).json == {"error": {"message": "Missing Authentication header", "code": 401}}
    assert talk(sandbox, get("/v1/key", "authorization: Bearer wrong\r\n")).status == 401
    body = {"model": "fb-ok", "messages": HELLO}
    right = post(body, extra="authorization: Bearer right\r\nconnection: close\r\n")
    assert talk(sandbox, right).status == 200


# HTTP.


def test_a_connection_serves_many_requests(sandbox: SandboxProcess, control: Control) -> None:
    with connect(sandbox) as sock:
        for _ in range(2):
            sock.sendall(post({"model": "fb-ok", "messages": HELLO}))
            assert receive(sock, 0.1).whole
        sock.sendall(post({"model": "fb-ok", "messages": HELLO}) * 2)
        assert receive(sock, 0.1).data.count(b"HTTP/1.1 200 OK") == 2
    assert len({attempt["connection"] for attempt in control.attempts()}) == 1


def test_a_request_may_come_in_chunks_and_drops(sandbox: SandboxProcess) -> None:
    body = json.dumps({"model": "fb-ok", "messages": HELLO}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n"
    chunks = b"".join(b"%x;x=y\r\n%b\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
    with connect(sandbox) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head + b"connection: close\r\n\r\n" + chunks + b"0\r\ntrailer: x\r\n\r\n":
            sock.send(bytes([byte]))
        assert receive(sock).json["model"] == "fb-ok"


def test_expect_continue_is_answered(sandbox: SandboxProcess) -> None:
    request = post({"model": "fb-ok", "messages": HELLO}, extra="expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    with connect(sandbox) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert receive(sock, 0.1).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
    ],
)
def test_what_is_not_http_is_refused(
    sandbox: SandboxProcess, request_bytes: bytes, status: int
) -> None:
    wire = talk(sandbox, request_bytes)
    assert wire.status == status


# Faults that replace the answer.


def test_status(sandbox: SandboxProcess, control: Control) -> None:
    headers = {"Retry-After": ["1", "2"], "x-a": "b"}
    control.fault(MODEL, {"kind": "status", "status": 429, "headers": headers})
    wire = ask(sandbox)
    assert (wire.status, wire.json["error"]["code"], wire.whole) == (429, 429, True)
    assert "retry-after: 1\r\nretry-after: 2\r\nx-a: b" in wire.head


def test_status_with_a_body_of_ones_own(sandbox: SandboxProcess, control: Control) -> None:
    page = {"kind": "status", "status": 529, "body": "<h1>", "content_type": "text/html"}
    control.fault(MODEL, page, times=1)
    control.fault(MODEL, {"kind": "status", "status": 502, "body_base64": b"\xff\x00"})
    html, binary = ask(sandbox), ask(sandbox)
    assert (html.status, html.body) == (529, b"<h1>")
    assert "content-type: text/html" in html.head
    assert (binary.status, binary.body) == (502, b"\xff\x00")


@pytest.mark.parametrize("body", ['{"error": "text"}', '{"choices": [', "", "<html>"])
def test_json_body(sandbox: SandboxProcess, control: Control, body: str) -> None:
    control.fault(MODEL, {"kind": "json_body", "body": body})
    wire = ask(sandbox, stream=False)
    assert (wire.status, wire.body.decode(), wire.whole) == (200, body, True)


def test_redirect(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "redirect", "location": "http://evil.test/", "status": 307})
    wire = ask(sandbox)
    assert wire.status == 307
    assert "location: http://evil.test/" in wire.head


@pytest.mark.parametrize(("kind", "end"), [("reset", "reset"), ("close", "eof")])
def test_gone_before_any_byte(
    sandbox: SandboxProcess, control: Control, kind: str, end: str
) -> None:
    control.fault(MODEL, {"kind": kind})
    assert ask(sandbox) == (b"", end)


def test_silent(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "silent", "seconds": 0.15})
    assert ask(sandbox, patience=0.1) == (b"", "open")
    began = time.monotonic()
    assert ask(sandbox) == (b"", "eof")
    assert time.monotonic() - began >= 0.15


def test_empty_stream(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "empty_stream"})
    wire = ask(sandbox)
    assert (wire.status, wire.body, wire.whole) == (200, b"", True)


@pytest.mark.parametrize(
    ("stream", "sign"), [(True, b": OPENROUTER PROCESSING\n\n"), (False, b"\n")]
)
def test_comments(sandbox: SandboxProcess, control: Control, stream: bool, sign: bytes) -> None:
    control.fault(MODEL, {"kind": "comments", "interval_s": 0.02})
    wire = ask(sandbox, stream=stream, patience=0.2)
    assert wire.end == "open"
    count, rest = divmod(len(wire.body), len(sign))
    assert (wire.body, rest) == (sign * count, 0)
    assert 3 <= count <= 11


def test_raw_is_sent_to_the_letter(sandbox: SandboxProcess, control: Control) -> None:
    pieces = [{"data": "/w=="}, {"data": base64.b64encode(b"data: x").decode(), "delay": 0.05}]
    control.fault(MODEL, {"kind": "raw", "pieces": pieces, "headers": {"a": "b"}, "status": 203})
    wire = ask(sandbox)
    assert wire.raw_body == b"1\r\n\xff\r\n7\r\ndata: x\r\n0\r\n\r\n"
    assert (wire.status, "a: b" in wire.head) == (203, True)


def raw(**fields: Any) -> dict[str, Any]:
    return {"kind": "raw", "pieces": [{"data": b"one"}, {"data": b"two"}], **fields}


@pytest.mark.parametrize(
    ("fault", "header", "body", "end"),
    [
        (raw(framing="length"), "content-length: 6", b"onetwo", "eof"),
        (raw(framing="close"), "connection: close", b"onetwo", "eof"),
        (raw(end="close"), "chunked", b"3\r\none\r\n3\r\ntwo\r\n", "eof"),
        (raw(end="reset"), "chunked", b"3\r\none\r\n3\r\ntwo\r\n", "reset"),
        (raw(end="hold"), "chunked", b"3\r\none\r\n3\r\ntwo\r\n", "open"),
    ],
)
def test_raw_framings_and_ends(
    sandbox: SandboxProcess,
    control: Control,
    fault: dict[str, Any],
    header: str,
    body: bytes,
    end: str,
) -> None:
    control.fault(MODEL, fault)
    wire = ask(sandbox, patience=0.2)
    assert header in wire.head
    assert (wire.raw_body, wire.end) == (body, end)


def test_raw_without_a_status_writes_nothing_of_its_own(
    sandbox: SandboxProcess, control: Control
) -> None:
    control.fault(MODEL, raw(status=None, end="close"))
    assert ask(sandbox) == (b"onetwo", "eof")


def test_raw_can_repeat_for_ever(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, raw(status=None, repeat=True))
    with connect(sandbox) as sock:
        sock.sendall(post({"model": MODEL, "messages": HELLO}))
        data = b""
        while len(data) < 1_000_000:
            data += sock.recv(65536)
    assert data.startswith(b"onetwotwotwo")


# Faults that spoil the answer.


def test_delay(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "delay", "seconds": 0.15}, times=2)
    began = time.monotonic()
    assert ask(sandbox, patience=0.1) == (b"", "open")
    assert complete(ask(sandbox))
    assert time.monotonic() - began >= 0.25


def test_tokens_per_s(sandbox: SandboxProcess, control: Control) -> None:
    control.fault("fb-ok", {"kind": "tokens_per_s", "tokens_per_s": 20})
    wire = ask(sandbox, "fb-ok", patience=0.25)
    assert wire.end == "open"
    assert 3 <= len(wire.pieces) <= 7


def test_slow_first_token(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "slow_first_token", "seconds": 0.15})
    early = ask(sandbox, patience=0.1)
    assert (early.status, early.pieces, early.end) == (200, [], "open")
    assert early.body == b": OPENROUTER PROCESSING\n\n"
    assert complete(ask(sandbox))
    early = ask(sandbox, stream=False, patience=0.1)
    assert (early.status, early.body, early.end) == (200, b"", "open")


@pytest.mark.parametrize(
    ("how", "end", "whole"),
    [("close", "eof", False), ("reset", "reset", False), ("clean", "eof", True)],
)
def test_cut(sandbox: SandboxProcess, control: Control, how: str, end: str, whole: bool) -> None:
    control.fault("fb-ok", {"kind": "cut", "after_tokens": 5, "how": how})
    wire = ask(sandbox, "fb-ok")
    assert (wire.end, wire.whole) == (end, whole)
    assert wire.pieces == text.pieces(CANONICAL_ANSWER)[:5]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in wire.chunks)
    assert "[DONE]" not in wire.data_lines
    as_json = ask(sandbox, "fb-ok", stream=False)
    assert (as_json.end, as_json.whole) == (end, whole)
    with pytest.raises(json.JSONDecodeError):
        json.loads(as_json.body)


def test_cut_before_the_first_token(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "cut", "after_tokens": 0})
    wire = ask(sandbox)
    assert (wire.status, wire.chunks, wire.whole) == (200, [], False)


def test_a_tool_call_is_cut_in_its_arguments(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "cut", "after_tokens": 1})
    calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in ask(sandbox, tools=TOOLS).chunks]
    assert [call.get("id", "")[:5] for call in calls] == ["call_", ""]
    assert calls[1]["function"]["arguments"].startswith('{"')


@pytest.mark.parametrize("stream", [True, False])
def test_stall(sandbox: SandboxProcess, control: Control, stream: bool) -> None:
    control.fault("fb-ok", {"kind": "stall", "after_tokens": 3, "seconds": 0.15})
    early = ask(sandbox, "fb-ok", stream=stream, patience=0.1)
    assert early.end == "open"
    assert early.body
    late = ask(sandbox, "fb-ok", stream=stream)
    assert (late.end, late.whole) == ("eof", False)
    if stream:
        assert len(early.pieces) == len(late.pieces) == 3


@pytest.mark.parametrize(("replace", "lost"), [(False, 0), (True, 1)])
def test_malformed(sandbox: SandboxProcess, control: Control, replace: bool, lost: int) -> None:
    control.fault("fb-ok", {"kind": "malformed", "at_token": 2, "data": "{bad", "replace": replace})
    wire = ask(sandbox, "fb-ok")
    assert wire.data_lines[2] == "{bad"
    assert complete(wire)
    expected = text.pieces(CANONICAL_ANSWER)
    assert wire.pieces == expected[:2] + expected[2 + lost :]
    with pytest.raises(json.JSONDecodeError):
        json.loads(ask(sandbox, "fb-ok", stream=False).body)


def test_no_done(sandbox: SandboxProcess, control: Control) -> None:
    control.fault("fb-ok", {"kind": "no_done"})
    wire = ask(sandbox, "fb-ok")
    assert (wire.whole, wire.text) == (True, CANONICAL_ANSWER)
    assert wire.chunks[-1]["usage"]["completion_tokens"] == len(wire.pieces)
    assert "[DONE]" not in wire.data_lines


@pytest.mark.parametrize("at_token", [0, 3])
def test_error_event(sandbox: SandboxProcess, control: Control, at_token: int) -> None:
    control.fault(MODEL, {"kind": "error_event", "at_token": at_token})
    wire = ask(sandbox)
    assert (wire.status, len(wire.pieces), wire.whole) == (200, at_token, True)
    assert wire.chunks[-1]["error"]["code"] == 502
    assert wire.chunks[-1]["choices"][0]["finish_reason"] == "error"
    assert ask(sandbox, stream=False).json["error"]["code"] == 502


def test_error_event_of_ones_own(sandbox: SandboxProcess, control: Control) -> None:
    mapped = {"kind": "error_event", "event": {"error": "text"}, "role_first": True, "done": True}
    control.fault(MODEL, mapped, times=1)
    control.fault(MODEL, {"kind": "error_event", "event": "event: error\ndata: {}\n\n"})
    wire = ask(sandbox)
    assert wire.chunks[0]["choices"][0]["delta"] == {"content": "", "role": "assistant"}
    assert wire.data_lines[1:] == ['{"error":"text"}', "[DONE]"]
    assert ask(sandbox).body.endswith(b"PROCESSING\n\nevent: error\ndata: {}\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_endless(sandbox: SandboxProcess, control: Control, stream: bool) -> None:
    control.fault(MODEL, {"kind": "endless"})
    with connect(sandbox) as sock:
        sock.sendall(post({"model": MODEL, "messages": HELLO, "stream": stream}))
        size = 0
        while size < 2_000_000:
            size += len(sock.recv(65536))
    assert control.stats()["requests"] > 0


@pytest.mark.parametrize("stream", [True, False])
def test_wrong_form(sandbox: SandboxProcess, control: Control, stream: bool) -> None:
    control.fault(MODEL, {"kind": "wrong_form"})
    wire = ask(sandbox, stream=stream)
    assert ("text/event-stream" in wire.head) is not stream
    assert wire.text if not stream else wire.json["object"] == "chat.completion"


def test_drip_headers(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "drip_headers", "interval_s": 0.02})
    wire = ask(sandbox, patience=0.2)
    assert wire.end == "open"
    assert b"HTTP/1.1 200 OK\r\n".startswith(wire.data)
    assert 3 <= len(wire.data) <= 11
    control.clear()
    control.fault(MODEL, {"kind": "drip_headers", "interval_s": 0})
    assert complete(ask(sandbox))


def test_drip_body(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "drip_body", "interval_s": 0.02, "size": 2}, times=1)
    wire = ask(sandbox, stream=False, patience=0.2)
    assert (wire.status, wire.end) == (200, "open")
    assert 4 <= len(wire.body) <= 20
    control.fault("fb-ok", {"kind": "drip_body", "interval_s": 0, "size": 7})
    assert complete(ask(sandbox, "fb-ok"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("by", [10, -10])
def test_content_length(sandbox: SandboxProcess, control: Control, by: int, stream: bool) -> None:
    control.fault(MODEL, {"kind": "content_length", "by": by})
    wire = ask(sandbox, stream=stream)
    claimed = int(wire.head.partition("content-length: ")[2].split("\r\n")[0])
    assert claimed == len(wire.raw_body) + by


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["size", "missing_end"])
def test_bad_chunk(sandbox: SandboxProcess, control: Control, how: str, stream: bool) -> None:
    control.fault(MODEL, {"kind": "bad_chunk", "how": how})
    wire = ask(sandbox, stream=stream)
    assert (wire.end, wire.whole, wire.chunked) == ("eof", False, True)
    assert wire.raw_body.endswith(b"ZZ\r\n") is (how == "size")


def test_a_fault_can_come_late(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "reset", "delay_s": 0.15})
    assert ask(sandbox, patience=0.1) == (b"", "open")
    assert ask(sandbox) == (b"", "reset")


# The control port.


def test_rules_go_in_order_and_are_used_up(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "ok"}, times=1)
    control.fault(MODEL, {"kind": "status", "status": 429}, times=2)
    control.fault("*", {"kind": "status", "status": 503}, times=1)
    assert [ask(sandbox).status for _ in range(5)] == [200, 429, 429, 503, 200]


def test_a_rule_may_name_a_path(sandbox: SandboxProcess, control: Control) -> None:
    control.fault("/models", {"kind": "json_body", "body": "[]"}, times=1)
    assert talk(sandbox, get("/api/v1/models")).body == b"[]"
    assert talk(sandbox, get("/api/v1/models")).json["total_count"]
    assert [a["fault"] for a in control.attempts()] == ["json_body"]
    control.fault("/models", {"kind": "delay", "seconds": 0.15})
    assert talk(sandbox, get("/api/v1/models"), 0.1) == (b"", "open")


def test_rules_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules()
    now = time.monotonic()
    order = {"model": "m", "fault": {"kind": "reset"}, "until_s": 10}
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rules.add(msgspec.convert(order, Order))
    monkeypatch.setattr(time, "monotonic", lambda: now + 9.9)
    assert rules.take("m")
    monkeypatch.setattr(time, "monotonic", lambda: now + 10)
    assert rules.take("m") is None


def test_rules_are_cleared_by_model_or_all(sandbox: SandboxProcess, control: Control) -> None:
    for model in ("fb-ok", MODEL, "*"):
        control.fault(model, {"kind": "status", "status": 500})
    control.clear("*")
    control.clear(MODEL)
    assert [ask(sandbox, model).status for model in ("fb-ok", MODEL)] == [500, 200]
    control.clear()
    assert ask(sandbox, "fb-ok").status == 200


@pytest.mark.parametrize(
    "fault", [{}, {"kind": "nonsense"}, {"kind": "cut", "where": 1}, raw(repeat=True, pieces=[])]
)
def test_a_fault_that_cannot_be_read_is_refused(control: Control, fault: dict[str, Any]) -> None:
    with pytest.raises(ControlError):
        control.fault(MODEL, fault)


def test_settings_are_checked(control: Control) -> None:
    assert control.settings(silent_s=3)["silent_s"] == 3
    with pytest.raises(ControlError):
        control.settings(silent="x")
    with pytest.raises(ControlError):
        control.settings(speed=-1)
    assert control.settings()["silent_s"] == 3


def test_attempts_tell_everything(sandbox: SandboxProcess, control: Control) -> None:
    before = time.monotonic()
    body = {"model": "fb-s03", "messages": HELLO}
    talk(
        sandbox,
        post(body, extra="Authorization: Bearer k\r\nX-A: b\r\nx-a: c\r\nconnection: close\r\n"),
    )
    wire = ask(sandbox, "fb-s03")
    talk(sandbox, post(b"oops", extra="connection: close\r\n"))
    first, second, third = control.attempts()
    assert (first["n"], first["model"], first["path"]) == (1, "fb-s03", "/api/v1/chat/completions")
    assert (first["headers"]["authorization"], first["headers"]["x-a"]) == ("Bearer k", "b, c")
    assert (first["body"], first["stream"]) == (body, False)
    assert (first["fault"], first["status"], first["ended"]) == ("status", 500, "fault")
    assert before <= first["t"] <= second["t"] <= time.monotonic()
    assert (second["model_n"], second["stream"], second["fault"]) == (2, True, None)
    assert (second["ended"], second["peer_gone_t"]) == ("complete", None)
    assert second["bytes_sent"] == len(wire.data)
    assert second["tokens_sent"] == len(wire.pieces)
    assert second["connection"] == first["connection"] + 1
    assert (third["body"], third["model"], third["status"]) == ("oops", None, 400)
    assert [a["n"] for a in control.attempts("fb-s03")] == [1, 2]
    control.reset()
    assert control.attempts() == []
    assert ask(sandbox, "fb-s03").status == 500


def until(happened: Any, patience: float = 2.0) -> Any:
    deadline = time.monotonic() + patience
    while not (found := happened()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "silent", "seconds": 60},
        {"kind": "delay", "seconds": 60},
        {"kind": "tokens_per_s", "tokens_per_s": 20},
        {"kind": "stall", "seconds": 60},
        {"kind": "endless"},
    ],
)
@pytest.mark.parametrize("abruptly", [True, False])
def test_a_peer_that_leaves_is_noticed_at_once(
    sandbox: SandboxProcess, control: Control, fault: dict[str, Any], abruptly: bool
) -> None:
    control.fault(MODEL, fault)
    with connect(sandbox) as sock:
        if abruptly:
            linger = b"\x01\0\0\0\0\0\0\0"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        sock.sendall(post({"model": MODEL, "messages": HELLO, "stream": True}))
        until(lambda: control.attempts(MODEL))
    left = time.monotonic()
    (attempt,) = until(lambda: [a for a in control.attempts() if a["ended"]])
    assert attempt["ended"] == "peer_gone"
    assert left - 0.05 <= attempt["peer_gone_t"] <= left + 0.1
    assert until(lambda: control.stats()["connections"] == 0)


def test_a_request_is_logged_even_if_its_sender_left_at_once(
    sandbox: SandboxProcess, control: Control
) -> None:
    control.fault(MODEL, {"kind": "silent", "seconds": 60})
    for _ in range(20):
        with connect(sandbox) as sock:
            sock.sendall(post({"model": MODEL, "messages": HELLO}))
    ended = until(lambda: [a["ended"] for a in control.attempts() if a["ended"]][19:])
    assert ended == ["peer_gone"]
    assert until(lambda: control.stats()["connections"] == 0)


def test_idle_connections_are_counted_and_closed(sandbox: SandboxProcess, control: Control) -> None:
    until(lambda: control.stats()["connections"] == 0)
    with connect(sandbox) as sock:
        sock.sendall(post({"model": "fb-ok", "messages": HELLO}))
        receive(sock, 0.05)
        counts = control.stats()
        assert (counts["connections"], counts["busy"]) == (1, 0)
        with connect(sandbox) as busy:
            busy.sendall(post({"model": "fb-s06", "messages": HELLO}))
            assert until(lambda: control.stats()["busy"] == 1)
            assert control.close_idle() == 1
            assert receive(sock) == (b"", "eof")
            assert receive(busy, 0.05) == (b"", "open")


# The Failover Bench names.


def statuses(sandbox: SandboxProcess, model: str, count: int) -> list[int]:
    return [ask(sandbox, model).status for _ in range(count)]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("fb-ok", [200, 200]),
        ("fb-s01-429-retry-after", [429, 200, 200]),
        ("fb-s02-429-persistent", [429, 429, 429]),
        ("fb-s03-500-then-200", [500, 200, 200]),
        ("fb-s04-503-persistent", [503, 503]),
        ("fb-s12-context-length", [400, 400]),
        ("fb-s13-content-filter", [400, 400]),
        ("fb-s16-503-persistent", [503, 503]),
        ("sandbox/fb-s04", [503]),
    ],
)
def test_scenarios_by_status(sandbox: SandboxProcess, model: str, expected: list[int]) -> None:
    assert statuses(sandbox, model, len(expected)) == expected


def test_scenario_bodies_and_hints(sandbox: SandboxProcess) -> None:
    assert "retry-after: 2\r\n" in ask(sandbox, "fb-s01").head + "\r\n"
    assert "retry-after" not in ask(sandbox, "fb-s02").head
    assert ask(sandbox, "fb-s12").json["error"]["code"] == "context_length_exceeded"
    assert ask(sandbox, "fb-s13").json["error"]["code"] == "content_policy_violation"


def test_s05_resets_once(sandbox: SandboxProcess) -> None:
    assert ask(sandbox, "fb-s05-reset") == (b"", "reset")
    assert ask(sandbox, "fb-s05-reset").text == CANONICAL_ANSWER


def test_s06_and_s07_are_slow(sandbox: SandboxProcess, control: Control) -> None:
    defaults = control.settings()
    assert (defaults["silent_s"], defaults["slow_first_token_s"]) == (120, 20)
    control.settings(**SHORT)
    assert ask(sandbox, "fb-s06-no-response", patience=0.05) == (b"", "open")
    assert ask(sandbox, "fb-s06-no-response") == (b"", "eof")
    early = ask(sandbox, "fb-s07-slow-ttft", patience=0.05)
    assert (early.status, early.pieces) == (200, [])
    assert complete(ask(sandbox, "fb-s07-slow-ttft"))


@pytest.mark.parametrize("model", ["fb-s08-stream-cut", "fb-s14-stream-cut"])
def test_s08_and_s14_cut_every_time(sandbox: SandboxProcess, model: str) -> None:
    for _ in range(2):
        wire = ask(sandbox, model)
        assert (len(wire.pieces), wire.end, wire.whole) == (40, "eof", False)
        assert CANONICAL_ANSWER.startswith(wire.text)


def test_s09_stalls_then_closes(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(**SHORT)
    assert ask(sandbox, "fb-s09-stream-stall", patience=0.05).end == "open"
    wire = ask(sandbox, "fb-s09-stream-stall")
    assert (len(wire.pieces), wire.end, wire.whole) == (20, "eof", False)


def test_s10_and_s11_are_otherwise_whole(sandbox: SandboxProcess) -> None:
    malformed, no_done = ask(sandbox, "fb-s10-malformed-chunk"), ask(sandbox, "fb-s11-no-done")
    assert malformed.text == no_done.text == CANONICAL_ANSWER
    assert complete(malformed)
    with pytest.raises(json.JSONDecodeError):
        json.loads(malformed.data_lines[10])
    assert no_done.whole
    assert not complete(no_done)


def test_s15_is_well_after_its_time(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(flap_s=0.2)
    began = time.monotonic()
    assert statuses(sandbox, "fb-s15-flap", 2) == [503, 503]
    assert until(lambda: ask(sandbox, "fb-s15-flap").status == 200)
    assert time.monotonic() - began >= 0.2
    control.reset()
    assert ask(sandbox, "fb-s15-flap").status == 503


def test_every_published_name_is_a_scenario() -> None:
    found = [scenarios.scenario_of(name) for name in scenarios.MODEL_NAMES]
    assert len(set(found)) == len(found) == 18
    assert scenarios.scenario_of("fb-s17-other") is scenarios.scenario_of("fb-s1") is None
    assert scenarios.scenario_of("fb-okay") is None


# Pace.


def test_a_quantile_passes_through_the_record() -> None:
    known = catalogue.Percentiles(0.5, 1.0, 4.0)
    shares = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    values = [pace.quantile(known, share) for share in shares]
    assert values == pytest.approx([0.5, 0.5, 0.5**0.5, 1.0, 2.0, 4.0, 4.0])


def test_latencies_follow_the_seed_and_the_attempt() -> None:
    known = catalogue.load().latency(MODEL)
    assert known
    draws = [pace.draw(known, MODEL, n, Settings(seed=1)) for n in range(300)]
    assert draws == [pace.draw(known, MODEL, n, Settings(seed=1)) for n in range(300)]
    assert draws != [pace.draw(known, MODEL, n, Settings(seed=2)) for n in range(300)]
    first = sorted(one.first_s for one in draws)
    assert known[0].p10 <= first[0] < first[-1] <= known[0].p90
    assert first[150] == pytest.approx(known[0].p50, rel=0.15)


def test_a_model_without_a_record_has_the_median_of_all() -> None:
    drawn = pace.draw(None, "x", 1, Settings(speed=2))
    assert tuple(drawn) == pytest.approx((2.2, 2 / 41))


def test_speed_scales_what_is_recorded(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(speed=0.1, first_token_s=1.0, tokens_per_s=100)
    began = time.monotonic()
    tokens = ask(sandbox, stream=False).json["usage"]["completion_tokens"]
    assert time.monotonic() - began == pytest.approx(0.1 + tokens / 1000, abs=0.08)


def test_tokens_arrive_one_after_another(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(speed=1, fb_first_token_s=0.05, fb_token_s=0.02)
    wire = ask(sandbox, "fb-ok", patience=0.35)
    assert wire.end == "open"
    assert 8 <= len(wire.pieces) <= 16


# The process.


def test_start_is_quick_and_stop_is_clean() -> None:
    sandbox = SandboxProcess(require_key="k")
    began = time.monotonic()
    sandbox.start()
    assert time.monotonic() - began < 2
    assert ask(sandbox).status == 401
    assert sandbox.pid
    began = time.monotonic()
    assert sandbox.stop() == 0
    assert time.monotonic() - began < 1
    assert sandbox.pid is sandbox.stop() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_at_once_even_in_mid_answer(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "llmr.sandbox"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout
        told = json.loads(child.stdout.readline())
        assert told["pid"] == child.pid
        assert told["port"] != told["control_port"]
        with socket.create_connection(("127.0.0.1", told["port"])) as sock:
            sock.sendall(post({"model": "fb-s06", "messages": HELLO}))
            child.send_signal(number)
            assert child.wait(timeout=2) == 0
            assert receive(sock).end != "open"


def test_it_ends_with_its_parent() -> None:
    parent = (
        "import os; from llmr.sandbox.process import SandboxProcess;"
        "s = SandboxProcess().start(); print(s.pid, flush=True); os._exit(1)"
    )
    command = [sys.executable, "-c", parent]
    pid = int(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = pathlib.Path(f"/proc/{pid}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"

    assert until(gone)


def test_a_taken_port_is_an_error(sandbox: SandboxProcess) -> None:
    with pytest.raises(SandboxError):
        SandboxProcess(port=sandbox.port).start()


async def stopped_in_mid_answer() -> set[str]:
    """Runs a sandbox on this loop, stops it, and returns the tasks it left behind."""
    stop, listening = asyncio.Event(), asyncio.Queue[Listening]()
    task = asyncio.create_task(run_sandbox(stop, listening.put_nowait))
    where = await listening.get()
    reader, writer = await asyncio.open_connection(where.host, where.port)
    writer.write(post({"model": "fb-s06", "messages": HELLO}))
    await asyncio.sleep(0.05)
    stop.set()
    await task
    assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()
    await writer.wait_closed()
    return {left.get_name() for left in asyncio.all_tasks()} - {"main"}


def test_it_can_be_stopped_on_a_loop_that_goes_on() -> None:
    async def main() -> set[str]:
        task = asyncio.current_task()
        assert task
        task.set_name("main")
        return await stopped_in_mid_answer()

    assert asyncio.run(main()) == set()


def test_hundreds_of_streams_at_once(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(speed=1)
    request = post(
        {"model": "fb-ok", "messages": HELLO, "stream": True}, extra="connection: close\r\n"
    )
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(sandbox)) for _ in range(200)]
        for sock in socks:
            sock.sendall(request)
        began = time.monotonic()
        assert all(complete(receive(sock)) for sock in socks)
        assert time.monotonic() - began < 4
    ended = [attempt["ended"] for attempt in control.attempts()]
    assert ended == ["complete"] * 200
