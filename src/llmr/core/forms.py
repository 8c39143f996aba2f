"""The two forms of one answer: a completion object, and the chunks of a stream."""

from collections.abc import Iterator
from typing import Any

import msgspec

from llmr.core.sse import DONE

_decode = msgspec.json.decode
_encode = msgspec.json.encode

GROWING = frozenset(
    ("content", "refusal", "reasoning", "reasoning_content", "annotations", "images")
)


class Assembler:
    """Puts the chunks of a stream together into one completion object."""

    __slots__ = ("_choices", "_head", "usage")

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self.usage: dict[str, Any] | None = None

    def add(self, data: bytes) -> None:
        """Take events in normal form, as they are sent on to the caller."""
        for block in data.split(b"\n\n"):
            if block.startswith(b"data: {"):
                self._chunk(_decode(block[6:]))

    def _chunk(self, chunk: dict[str, Any]) -> None:
        for key, value in chunk.items():
            if key not in ("choices", "usage", "object") and value is not None:
                self._head.setdefault(key, value)
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices") or ():
            self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index", 0)
        out = self._choices.setdefault(
            index,
            {
                "index": index,
                "message": {"role": "assistant", "content": None, "refusal": None},
                "logprobs": None,
                "finish_reason": None,
            },
        )
        for key in ("finish_reason", "native_finish_reason"):
            if choice.get(key) is not None:
                out[key] = choice[key]
        if logprobs := choice.get("logprobs"):
            out["logprobs"] = _merge_lists(out["logprobs"] or {}, logprobs)
        message = out["message"]
        for key, value in (choice.get("delta") or {}).items():
            if value is None or key == "role":
                continue
            if key == "tool_calls":
                _add_tools(message, value)
            elif key == "reasoning_details":
                _add_details(message, value)
            elif isinstance(value, str | list) and key in GROWING:
                message[key] = _joined(message.get(key), value)
            else:
                message[key] = value

    def completion(self) -> dict[str, Any]:
        """The whole answer as a `chat.completion` object."""
        choices = [_settled(self._choices[index]) for index in sorted(self._choices)]
        for choice in choices:
            for call in choice["message"].get("tool_calls") or ():
                call.pop("index", None)
        out = {**self._head, "object": "chat.completion", "choices": choices}
        return out if self.usage is None else {**out, "usage": self.usage}


class _Text:
    """Text that grows piece by piece, joined once at the end."""

    __slots__ = ("parts",)

    def __init__(self, first: str) -> None:
        self.parts = [first]


def _joined(before: Any, more: Any) -> Any:
    """Text grows as text; once a part came as a list, all of it is a list of parts."""
    if isinstance(before, _Text) and isinstance(more, str):
        before.parts.append(more)
        return before
    if before is None:
        return _Text(more) if isinstance(more, str) else list(more)
    grown = _parts(before)
    grown += _parts(more)
    return grown


def _parts(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    text = "".join(value.parts) if isinstance(value, _Text) else value
    return [{"type": "text", "text": text}] if text else []


def _settled(value: Any) -> Any:
    """Plain data, with every growing text joined."""
    if isinstance(value, _Text):
        return "".join(value.parts)
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_settled(inner) for inner in value]
    return value


def _merge_lists(into: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    for key, value in more.items():
        if isinstance(value, list):
            into.setdefault(key, [])
            into[key] = into[key] or []
            into[key] += value
        else:
            into[key] = value
    return into


def _add_tools(message: dict[str, Any], fragments: list[dict[str, Any]]) -> None:
    calls = message.setdefault("tool_calls", [])
    for fragment in fragments:
        call = next((c for c in calls if c.get("index") == fragment.get("index")), None)
        if call is None:
            call = {"index": fragment.get("index"), "id": None, "type": "function", "function": {}}
            calls.append(call)
        for key, value in fragment.items():
            if key == "function":
                _add_function(call["function"], value or {})
            elif value is not None:
                call[key] = value
        call["function"].setdefault("arguments", "")


def _add_function(function: dict[str, Any], fragment: dict[str, Any]) -> None:
    for name, text in fragment.items():
        if name == "arguments" and isinstance(text, str):
            function[name] = _joined(function.get(name) or None, text)
        elif text:
            function[name] = text


def _add_details(message: dict[str, Any], details: list[dict[str, Any]]) -> None:
    """Fragments of one reasoning block join; a block of another index or type begins anew."""
    blocks = message.setdefault("reasoning_details", [])
    for detail in details:
        last = blocks[-1] if blocks else None
        if last is None or any(last.get(k) != detail.get(k) for k in ("index", "type")):
            last = {}
            blocks.append(last)
        for key, value in detail.items():
            if key in ("text", "summary", "data") and isinstance(value, str):
                last[key] = _joined(last.get(key), value)
            elif value or key not in last:
                last[key] = value


def events(completion: dict[str, Any], include_usage: bool) -> Iterator[bytes]:
    """A whole answer as the events of a stream in normal form."""
    head = {
        key: value for key, value in completion.items() if key not in ("choices", "usage", "object")
    } | {"object": "chat.completion.chunk"}
    usage = completion.get("usage")
    choices = completion["choices"]
    for choice in choices:
        message = dict(choice.get("message") or {})
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [{**call, "index": i} for i, call in enumerate(calls)]
        part = {"index": choice.get("index", 0), "delta": message, "finish_reason": None}
        if choice.get("logprobs"):
            part["logprobs"] = choice["logprobs"]
        yield _line({**head, "choices": [part]})
    for position, choice in enumerate(choices):
        finish = {"index": choice.get("index", 0), "delta": {}}
        finish["finish_reason"] = choice.get("finish_reason") or "stop"
        if choice.get("native_finish_reason") is not None:
            finish["native_finish_reason"] = choice["native_finish_reason"]
        chunk = {**head, "choices": [finish]}
        if usage is not None and not include_usage and position == len(choices) - 1:
            chunk["usage"] = usage
        yield _line(chunk)
    if include_usage and usage is not None:
        yield _line({**head, "choices": [], "usage": usage})
    yield DONE


def _line(value: Any) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"
