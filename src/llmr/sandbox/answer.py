"""What the simulated model says to a request, before any of it is put on the wire."""

import secrets
import time
from decimal import Decimal
from typing import Any

import msgspec

from llmr.sandbox import billing, catalogue, samples, scenarios, text
from llmr.sandbox.request import ChatRequest, InvalidRequestError


class ToolCall(msgspec.Struct):
    """One call; the arguments are JSON text in fragments, a token each."""

    id: str
    name: str
    arguments: list[str]


class Choice(msgspec.Struct):
    """One answer in tokens. `thought` counts reasoning tokens that are not shown."""

    reasoning: list[str] = []
    content: list[str] = []
    tool_call: ToolCall | None = None
    finish_reason: str = "stop"
    thought: int = 0

    @property
    def tokens(self) -> int:
        arguments = self.tool_call.arguments if self.tool_call else ()
        return self.thought + len(self.reasoning) + len(self.content) + len(arguments)


class Answer(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: dict[str, Any]


def generation_id() -> str:
    return f"gen-{int(time.time())}-{secrets.token_hex(10)}"


def compose(
    request: ChatRequest, model: str, row: catalogue.Row, answer_id: str, cached: int = 0
) -> tuple[Answer, billing.Bill]:
    """The answer of `model` to `request`, and its bill. Raises `InvalidRequestError`.

    `cached`: tokens of the prompt that the provider had seen before.
    """
    choices = [_choice(request, model, row) for _ in range(max(1, min(request.n or 1, 128)))]
    usage = _usage(request.prompt_tokens, cached, choices)
    bill = billing.bill_of(model, usage, catalogue.prices(row, request.prompt_tokens))
    usage["cost"] = _plain(bill.whole_usd)
    usage["cost_details"] = {
        "upstream_inference_cost": _plain(bill.whole_usd),
        "upstream_inference_prompt_cost": _plain(bill.prompt_usd),
        "upstream_inference_completions_cost": _plain(bill.whole_usd - bill.prompt_usd),
    }
    return Answer(answer_id, int(time.time()), model, choices, usage), bill


def _choice(request: ChatRequest, model: str, row: catalogue.Row) -> Choice:
    choice = Choice()
    if request.wants_reasoning and "reasoning" in row["supported_parameters"]:
        choice.reasoning = text.pieces(text.REASONING)
    tool = _wanted_tool(request)
    if tool:
        arguments = msgspec.json.encode(samples.sample(tool.get("parameters") or {})).decode()
        call_id = f"call_{secrets.token_hex(12)}"
        choice.tool_call = ToolCall(call_id, str(tool.get("name")), text.pieces(arguments))
        choice.finish_reason = "tool_calls"
    else:
        choice.content = text.pieces(_content(request, model))
    _shorten(choice, request.limit)
    if request.hides_reasoning:
        choice.thought, choice.reasoning = len(choice.reasoning), []
    return choice


def _wanted_tool(request: ChatRequest) -> dict[str, Any] | None:
    """The function to call: the one named, else the first; None where text is due."""
    choice = request.tool_choice
    functions: list[dict[str, Any]] = [
        tool["function"] for tool in request.tools or () if "function" in tool
    ]
    if request.messages[-1].role in ("tool", "assistant") or choice == "none" or not functions:
        return None
    if not isinstance(choice, dict) or "function" not in choice:
        return functions[0]
    named = choice["function"].get("name")
    for function in functions:
        if function.get("name") == named:
            return function
    raise InvalidRequestError(f"tool_choice names {named!r}, which is not among the tools")


def _content(request: ChatRequest, model: str) -> str:
    whole = _whole_content(request, model)
    prefill = request.prefill
    if prefill and whole.startswith(prefill):
        whole = whole[len(prefill) :]
    return text.up_to_stop(whole, request.stops)


def _whole_content(request: ChatRequest, model: str) -> str:
    form = request.response_format or {}
    if form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema") or {}
        return msgspec.json.encode(samples.sample(schema)).decode()
    if form.get("type") == "json_object":
        return msgspec.json.encode({"simulated": True, "answer": text.CANONICAL_ANSWER}).decode()
    if scenarios.scenario_of(model):
        return text.CANONICAL_ANSWER
    return text.answer_text(model, request.images)


def _shorten(choice: Choice, limit: int | None) -> None:
    if limit is None or choice.tokens <= limit:
        return
    choice.reasoning = choice.reasoning[:limit]
    left = limit - len(choice.reasoning)
    choice.content = choice.content[:left]
    if choice.tool_call:
        choice.tool_call.arguments = choice.tool_call.arguments[:left]
    choice.finish_reason = "length"


def _usage(prompt_tokens: int, cached: int, choices: list[Choice]) -> dict[str, Any]:
    completion_tokens = sum(choice.tokens for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "is_byok": False,
        "prompt_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": 0,
            "audio_tokens": 0,
            "video_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": sum(c.thought + len(c.reasoning) for c in choices),
            "image_tokens": 0,
            "audio_tokens": 0,
        },
    }


def _plain(cost: Decimal) -> Decimal:
    return cost.normalize() if cost else Decimal(0)
