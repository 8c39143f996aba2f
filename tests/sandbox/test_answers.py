"""What the sandbox answers: text, reasoning, tools, schemas, and what it refuses."""

import json
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import openai
import pydantic
import pytest

from llmr.sandbox import CANONICAL_ANSWER, catalogue, samples, scenarios, text
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.sandbox.wire import (
    HELLO,
    MODEL,
    TOOLS,
    ask,
    complete,
    create,
    get,
    post,
    talk,
)

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
