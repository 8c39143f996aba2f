"""What a plain client gets from an answer: a reference reader that shares no code with the router.

It is slow and naive on purpose. A stream is read by the rules of server-sent events; of everything
that can be given twice, the last one that says something counts.
"""

import json
from dataclasses import dataclass, field
from typing import Any

TEXT = ("reasoning", "reasoning_content", "refusal")
GROWING = ("text", "summary", "data")
# What differs from chunk to chunk by nature, or is counted by itself.
NOT_EXTRA = ("choices", "usage", "object", "error", "created", "obfuscation", "p")


@dataclass
class ToolCall:
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass
class Choice:
    """One choice. `content` has its text joined; parts that are no text stand between."""

    content: list[Any] = field(default_factory=list)
    reasoning: str = ""
    reasoning_content: str = ""
    reasoning_details: list[dict[str, Any]] = field(default_factory=list)
    refusal: str = ""
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    annotations: list[Any] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish: str | None = None


@dataclass
class Answer:
    """A whole answer. `error` is the first error seen; `extras` are the other top-level fields."""

    choices: dict[int, Choice] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    error: Any = None
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return "".join(p for p in self.choices[0].content if isinstance(p, str))


@dataclass
class Event:
    name: str
    data: str


def sse(stream: bytes) -> list[Event]:
    """The events of a whole stream; comments and events without data are none."""
    text = stream.decode("utf-8").removeprefix("\ufeff")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    events: list[Event] = []
    name = ""
    data: list[str] = []
    # A last event without its blank line is taken as well, as the common clients do.
    for line in [*text.split("\n"), ""]:
        if line == "":
            if data:
                events.append(Event(name or "message", "\n".join(data)))
            name, data = "", []
        elif not line.startswith(":"):
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "data":
                data.append(value)
            elif key == "event":
                name = value
    return events


def read_stream(stream: bytes) -> Answer:
    """The answer in a stream of chunks, up to its `[DONE]` or its error."""
    answer = Answer()
    for event in sse(stream):
        if event.data == "[DONE]":
            break
        chunk = json.loads(event.data)
        if event.name == "error" or chunk.get("error"):
            answer.error = chunk.get("error") or chunk
            break
        _top(answer, chunk)
        for choice in chunk.get("choices") or []:
            _choice(answer, choice, choice.get("delta") or {})
    return answer


def read_json(body: bytes) -> Answer:
    """The answer in a completion object."""
    answer = Answer()
    completion = json.loads(body)
    _top(answer, completion)
    answer.error = completion.get("error")
    for choice in completion.get("choices") or []:
        _choice(answer, choice, choice.get("message") or {})
    return answer


def _top(answer: Answer, got: dict[str, Any]) -> None:
    answer.usage = got.get("usage") or answer.usage
    for key, value in got.items():
        if key not in NOT_EXTRA and value is not None:
            answer.extras[key] = value


def _choice(answer: Answer, choice: dict[str, Any], delta: dict[str, Any]) -> None:
    into = answer.choices.setdefault(choice.get("index", 0), Choice())
    into.finish = choice.get("finish_reason") or into.finish
    into.logprobs += (choice.get("logprobs") or {}).get("content") or []
    into.logprobs += (choice.get("logprobs") or {}).get("refusal") or []
    content = delta.get("content") or []
    for part in [content] if isinstance(content, str) else content:
        _part(into.content, part)
    for key in TEXT:
        setattr(into, key, getattr(into, key) + (delta.get(key) or ""))
    for detail in delta.get("reasoning_details") or []:
        _detail(into.reasoning_details, detail)
    into.annotations += delta.get("annotations") or []
    for place, fragment in enumerate(delta.get("tool_calls") or []):
        _tool(into, place, fragment)


def _part(parts: list[Any], part: Any) -> None:
    if isinstance(part, dict) and part.get("type") == "text":
        part = part["text"]
    if isinstance(part, str) and parts and isinstance(parts[-1], str):
        parts[-1] += part
    else:
        parts.append(part)


def _detail(details: list[dict[str, Any]], detail: dict[str, Any]) -> None:
    """Fragments in a row of one type and index are one detail."""
    key = ("type", "index")
    if not details or any(details[-1].get(k) != detail.get(k) for k in key):
        details.append({})
    for name, value in detail.items():
        if name in GROWING:
            details[-1][name] = details[-1].get(name, "") + (value or "")
        elif value not in (None, ""):
            details[-1][name] = value


def _tool(into: Choice, place: int, fragment: dict[str, Any]) -> None:
    call = into.tool_calls.setdefault(fragment.get("index", place), ToolCall())
    function = fragment.get("function") or {}
    call.id = fragment.get("id") or call.id
    call.name = function.get("name") or call.name
    call.arguments += function.get("arguments") or ""
