"""An answer in OpenRouter's wire format: one JSON object, or a stream of events."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import msgspec

from llmr.sandbox.answer import Answer, Choice, ToolCall
from llmr.sandbox.script import DONE, Step

_encode = msgspec.json.Encoder(decimal_format="number").encode

Delta = dict[str, Any]


def completion(answer: Answer) -> bytes:
    """The body of a reply that is not streamed."""
    return _encode(
        {
            "id": answer.id,
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.model,
            "provider": "Sandbox",
            "system_fingerprint": None,
            "choices": [_choice(i, choice) for i, choice in enumerate(answer.choices)],
            "usage": answer.usage,
        }
    )


def events(answer: Answer) -> list[Step]:
    """All events of the stream, `[DONE]` the last; those that bring a token say so."""
    chunks = _Chunks(answer)
    steps: list[Step] = []
    for row in zip_longest(*(_deltas(choice) for choice in answer.choices)):
        for index, delta in enumerate(row):
            if delta:
                tokens = 0 if _opens_tool_call(delta) else 1
                steps.append(Step(chunks.delta(index, delta), tokens))
    steps += [Step(chunks.finish(i, choice)) for i, choice in enumerate(answer.choices)]
    last = len(answer.choices) - 1
    steps.append(Step(chunks.finish(last, answer.choices[last], answer.usage)))
    return [*steps, Step(DONE)]


def role_event(answer: Answer) -> bytes:
    """An event with a role and nothing said yet."""
    return _Chunks(answer).delta(0, _content(""))


def error_event(answer: Answer, error: dict[str, Any]) -> bytes:
    """OpenRouter's event for an error on a started stream."""
    return _Chunks(answer).error(error)


class _Chunks:
    """Events of one answer, around what they have in common."""

    def __init__(self, answer: Answer) -> None:
        common = {
            "id": answer.id,
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.model,
            "provider": "Sandbox",
        }
        self._opening = b"data: " + _encode(common)[:-1]

    def delta(self, index: int, delta: Delta, reason: str | None = None) -> bytes:
        return self._event(index, delta, reason, b"")

    def finish(self, index: int, choice: Choice, usage: dict[str, Any] | None = None) -> bytes:
        tail = b',"usage":' + _encode(usage) if usage else b""
        return self._event(index, _content(""), choice.finish_reason, tail)

    def error(self, error: dict[str, Any]) -> bytes:
        return self._event(0, _content(""), "error", b',"error":' + _encode(error))

    def _event(self, index: int, delta: Delta, reason: str | None, tail: bytes) -> bytes:
        ended = _encode(reason)
        return b"".join(
            (
                self._opening,
                b',"choices":[{"index":%d,"delta":' % index,
                _encode(delta),
                b',"finish_reason":%b,"native_finish_reason":%b,"logprobs":null}]' % (ended, ended),
                tail,
                b"}\n\n",
            )
        )


def _deltas(choice: Choice) -> Iterator[Delta]:
    for piece in choice.reasoning:
        thought = {"reasoning": piece, "reasoning_details": [_reasoning_detail(piece)]}
        yield {**_content(""), **thought}
    for piece in choice.content:
        yield _content(piece)
    if call := choice.tool_call:
        yield _call_delta({**_call_head(call), "function": {"name": call.name, "arguments": ""}})
        for fragment in call.arguments:
            yield _call_delta({"index": 0, "function": {"arguments": fragment}})


def _opens_tool_call(delta: Delta) -> bool:
    return "id" in delta.get("tool_calls", [{}])[0]


def _content(content: str) -> Delta:
    return {"content": content, "role": "assistant"}


def _call_delta(call: dict[str, Any]) -> Delta:
    return {"content": None, "role": "assistant", "tool_calls": [call]}


def _call_head(call: ToolCall) -> dict[str, Any]:
    return {"index": 0, "id": call.id, "type": "function"}


def _reasoning_detail(words: str) -> dict[str, Any]:
    return {"type": "reasoning.text", "text": words, "format": "unknown", "index": 0}


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if choice.tool_call else "".join(choice.content),
        "refusal": None,
        "reasoning": "".join(choice.reasoning) or None,
    }
    if choice.reasoning:
        message["reasoning_details"] = [_reasoning_detail("".join(choice.reasoning))]
    if call := choice.tool_call:
        function = {"name": call.name, "arguments": "".join(call.arguments)}
        message["tool_calls"] = [{**_call_head(call), "function": function}]
    return {
        "index": index,
        "logprobs": None,
        "finish_reason": choice.finish_reason,
        "native_finish_reason": choice.finish_reason,
        "message": message,
    }
