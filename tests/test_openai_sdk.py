"""The official client against the router: what it parses, streams, raises and retries."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageParam,
)

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import Server, upstream

MODEL = "openai/gpt-5.4"
OTHER = "anthropic/claude-sonnet-4.6"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


class Trip(pydantic.BaseModel):
    city: str
    days: int
    sights: list[str]


@pytest.fixture(scope="module")
def router(sandbox_process: SandboxProcess) -> Iterator[Server]:
    with Server(upstream(sandbox_process.base_url), sandbox=True) as running:
        yield running


def options(router: Server, **more: Any) -> dict[str, Any]:
    """A client that lets nothing pass that is not as the API describes it."""
    return {
        "base_url": f"{router.url}/v1",
        "api_key": "sk-caller",
        "max_retries": 0,
        "timeout": 10,
        "_strict_response_validation": True,
        **more,
    }


@pytest.fixture
def client(router: Server, sandbox: Control) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**options(router)) as made:
        yield made


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def finishes(chunks: list[ChatCompletionChunk]) -> list[str]:
    return [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]


# --- answers ---


def test_auto_answers_with_a_whole_completion(client: openai.OpenAI, sandbox: Control) -> None:
    completion = client.chat.completions.create(model="auto", messages=HELLO)
    assert completion.object == "chat.completion"
    assert completion.model == sandbox.attempts()[0]["model"] != "auto"
    (choice,) = completion.choices
    assert choice.finish_reason == "stop"
    assert "simulated" in (choice.message.content or "")
    assert completion.usage is not None
    assert completion.usage.total_tokens > completion.usage.completion_tokens > 0


def test_auto_streams_the_same_text(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=HELLO)
    with client.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert text_of(chunks) == whole.choices[0].message.content
    assert finishes(chunks) == ["stop"]
    assert all(chunk.choices for chunk in chunks)
    assert {chunk.model for chunk in chunks} == {MODEL}


def test_usage_comes_in_a_chunk_of_its_own_where_asked(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_several_choices_are_kept_apart(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=HELLO, n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    with client.chat.completions.stream(model=MODEL, messages=HELLO, n=3) as stream:
        final = stream.get_final_completion()
    assert [c.message.content for c in final.choices] == [
        c.message.content for c in completion.choices
    ]


def test_the_streaming_helper_accumulates_a_whole_completion(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="auto", messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("content.done") == 1
    assert "simulated" in (final.choices[0].message.content or "")
    assert final.usage is not None


def test_wishes_in_the_body_and_in_headers_steer_the_choice(client: openai.OpenAI) -> None:
    by_body = client.chat.completions.create(
        model="auto", messages=HELLO, extra_body={"preferred_models": [OTHER]}
    )
    by_header = client.chat.completions.create(
        model="auto", messages=HELLO, extra_headers={"x-llmr-preferred-models": OTHER}
    )
    assert by_body.model == by_header.model == OTHER


def test_models_are_listed_with_auto_among_them(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"auto", "auto:speed", "auto:cost", "auto:quality", "auto:balanced", MODEL} <= set(
        listed
    )
    assert listed[MODEL].object == "model"


# --- tools, schemas, images ---


def test_a_tool_is_called_and_its_result_answered(client: openai.OpenAI, sandbox: Control) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Rain in Rome?"}]
    first = client.chat.completions.create(model="auto", messages=messages, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    messages += [
        first.choices[0].message.to_dict(),  # type: ignore[list-item]  # as the README of the client
        {"role": "tool", "tool_call_id": call.id, "content": "No rain."},
    ]
    second = client.chat.completions.create(model="auto", messages=messages, tools=[WEATHER])
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content
    sent = sandbox.attempts()[-1]["body"]["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.id


def test_a_tool_call_streams_in_fragments_that_add_up(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="auto", messages=HELLO, tools=[WEATHER], tool_choice="required"
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("tool_calls.function.arguments.done") == 1
    assert kinds.count("tool_calls.function.arguments.delta") > 1
    (call,) = final.choices[0].message.tool_calls or []
    assert final.choices[0].finish_reason == "tool_calls"
    assert isinstance(call.function.parsed_arguments, dict)
    assert set(call.function.parsed_arguments) == {"city", "days"}


def test_a_schema_gives_an_object_of_its_class(client: openai.OpenAI, sandbox: Control) -> None:
    completion = client.chat.completions.parse(model="auto", messages=HELLO, response_format=Trip)
    assert isinstance(completion.choices[0].message.parsed, Trip)
    sent = sandbox.attempts()[-1]["body"]["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["strict"] is True
    with client.chat.completions.stream(
        model="auto", messages=HELLO, response_format=Trip
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Trip)


def test_an_image_goes_to_a_model_that_sees(
    router: Server, client: openai.OpenAI, sandbox: Control
) -> None:
    url = f"data:image/png;base64,{PIXEL}"
    messages: list[ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        }
    ]
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=messages)
    answer = raw.parse().choices[0].message.content
    assert "image" in (answer or "")
    rows = router.request("GET", "/models").json["models"]
    (row,) = [row for row in rows if row["id"] == raw.headers["x-llmr-model"]]
    assert "vision" in row["supports"]
    sent = sandbox.attempts()[-1]["body"]["messages"][0]["content"][1]
    assert sent["image_url"]["url"] == url


def test_every_parameter_reaches_the_upstream_as_it_was_given(
    client: openai.OpenAI, sandbox: Control
) -> None:
    given: dict[str, Any] = {
        "frequency_penalty": -2,
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "max_completion_tokens": 0,
        "max_tokens": 0,
        "metadata": {"a": "b"},
        "modalities": ["text"],
        "n": 1,
        "parallel_tool_calls": True,
        "prediction": {"type": "content", "content": "string"},
        "presence_penalty": -2,
        "prompt_cache_key": "cache-1",
        "response_format": {"type": "text"},
        "safety_identifier": "user-1",
        "seed": -9007199254740991,
        "service_tier": "auto",
        "stop": "\n",
        "store": True,
        "temperature": 1.0,
        "tool_choice": "none",
        "tools": [WEATHER],
        "top_logprobs": 0,
        "top_p": 0.1,
        "user": "user-1",
        "verbosity": "low",
        "web_search_options": {"search_context_size": "low"},
        "extra_body": {"provider": {"order": ["x"]}, "nobody_knows": [1, {"a": None}]},
    }
    assert client.chat.completions.create(model=MODEL, messages=HELLO, **given).choices
    extra = given.pop("extra_body")
    sent = sandbox.attempts(MODEL)[0]["body"]
    assert sent == {"model": MODEL, "messages": HELLO, **given, **extra}


# --- headers ---


def test_the_headers_say_what_the_router_did(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, extra_headers={"x-request-id": "mine-1"}
    )
    completion = raw.parse()
    assert raw.headers["x-llmr-model"] == completion.model == MODEL
    assert raw.headers["x-llmr-attempts"] == "1"
    assert raw.headers["x-llmr-cache"] == "bypass"
    assert raw.headers["x-llmr-decision-id"]
    assert completion.usage is not None
    assert float(raw.headers["x-llmr-cost-usd"]) == completion.usage.to_dict()["cost"]
    assert "total;dur=" in raw.headers["server-timing"]
    assert completion._request_id == raw.headers["x-request-id"] == "mine-1"


def test_the_headers_of_a_stream_come_before_its_end(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=HELLO, stream=True
    )
    assert raw.headers["content-type"].startswith("text/event-stream")
    with raw.parse() as stream:
        chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {raw.headers["x-llmr-model"]}


# --- errors ---


def refusal(status: int, message: str, **error: Any) -> dict[str, Any]:
    body = json.dumps({"error": {"message": message, "code": status, **error}})
    return {"kind": "status", "status": status, "body": body}


@pytest.mark.parametrize(
    ("fault", "raised", "status", "code"),
    [
        (refusal(400, "temperature is odd"), openai.BadRequestError, 400, "invalid_request"),
        (refusal(404, "gone", type="not_found"), openai.NotFoundError, 404, "model_not_found"),
        (refusal(429, "slow down"), openai.RateLimitError, 429, "rate_limited"),
        (refusal(503, "down"), openai.InternalServerError, 503, "upstream_overloaded"),
        (refusal(500, "oops"), openai.InternalServerError, 502, "upstream_error"),
        (refusal(401, "bad key"), openai.InternalServerError, 502, "upstream_credentials"),
        (refusal(402, "no credit"), openai.InternalServerError, 503, "upstream_out_of_credit"),
        ({"kind": "reset"}, openai.InternalServerError, 502, "upstream_unreachable"),
    ],
    ids=["400", "404", "429", "503", "500", "401", "402", "reset"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_upstreams_failure_raises_the_fitting_error(
    client: openai.OpenAI,
    sandbox: Control,
    fault: dict[str, Any],
    raised: type[openai.APIStatusError],
    status: int,
    code: str,
    stream: bool,
) -> None:
    sandbox.fault(MODEL, fault)
    with pytest.raises(raised) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.code == code
    assert caught.value.request_id


def test_an_unknown_model_is_not_found(client: openai.OpenAI, sandbox: Control) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean") as caught:
        client.chat.completions.create(model="openai/gpt-5.4x", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert sandbox.attempts() == []


def test_a_wish_nobody_knows_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="auto", messages=HELLO, extra_body={"priority": "cheapest"}
        )
    assert caught.value.param == "priority"


def test_c14_all_candidates_failing_is_an_internal_server_error(
    client: openai.OpenAI, sandbox: Control
) -> None:
    sandbox.fault("*", refusal(503, "down"))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="auto", messages=HELLO)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-should-retry"] == "true"


def test_a_caller_without_the_key_is_not_authenticated(sandbox_process: SandboxProcess) -> None:
    tree = upstream(sandbox_process.base_url, server={"api_keys": ["caller-key-1"]})
    with Server(tree, sandbox=True) as router:
        with (
            openai.OpenAI(**options(router)) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.chat.completions.create(model="auto", messages=HELLO)
        with openai.OpenAI(**options(router, api_key="caller-key-1")) as known:
            assert known.chat.completions.create(model="auto", messages=HELLO).choices


def test_an_error_in_mid_stream_is_raised_after_the_text_so_far(
    client: openai.OpenAI, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "error_event", "at_token": 5})
    chunks: list[ChatCompletionChunk] = []
    with (
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream,
        pytest.raises(openai.APIError, match="Provider disconnected") as caught,
    ):
        chunks.extend(stream)
    assert isinstance(caught.value.code, str)
    assert text_of(chunks)
    assert finishes(chunks) == []


def test_c14_the_client_does_not_repeat_what_cannot_succeed(
    router: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, refusal(401, "bad key"))
    with (
        openai.OpenAI(**options(router, max_retries=2)) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(sandbox.attempts(MODEL)) == 1


# --- the asynchronous client ---


def test_the_asynchronous_client_gets_whole_answers_streams_and_errors(
    router: Server, sandbox: Control
) -> None:
    async def talk() -> None:
        async with openai.AsyncOpenAI(**options(router)) as client:
            whole, *_ = await asyncio.gather(
                *(client.chat.completions.create(model=MODEL, messages=HELLO) for _ in range(8))
            )
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            async with stream:
                chunks = [chunk async for chunk in stream]
            assert text_of(chunks) == whole.choices[0].message.content
            assert finishes(chunks) == ["stop"]
            async with client.chat.completions.stream(
                model="auto", messages=HELLO, tools=[WEATHER]
            ) as helper:
                final = await helper.get_final_completion()
            assert final.choices[0].message.tool_calls
            sandbox.fault(MODEL, refusal(503, "down"))
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(model=MODEL, messages=HELLO)

    asyncio.run(talk())


def test_leaving_a_stream_early_leaves_the_router_well(
    client: openai.OpenAI, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "endless"})
    with client.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
        assert next(iter(stream)).model == MODEL
    sandbox.clear()
    assert client.chat.completions.create(model=MODEL, messages=HELLO).choices
