"""One chat completion as a stream of chunks: tapped, and put in normal form where it is not.

Normal form is what the official clients expect: one finish per choice, one usage in a chunk of its
own where the caller asked for it, tool calls at distinct stable indexes, no finish that is an empty
string. A chunk already in that form goes out as the bytes that came in.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from llmr.core.classify import CUT, INVALID, Failure, from_event
from llmr.core.frame import Frame
from llmr.core.sse import DONE, Event
from llmr.core.tool_calls import Tool, ToolIndexes

_decode = msgspec.json.decode
_encode = msgspec.json.encode
NOTHING_MORE: Mapping[str, Any] = MappingProxyType({})
MOST_COUNTED = 2**53
QUOTE = b'"'[0]
NOTHING = frozenset((b'""', b"null", b"[]", b"{}", b""))


class _Delta(Struct):
    content: Raw | UnsetType = UNSET
    tool_calls: list[Tool] | None = None
    refusal: Raw | UnsetType = UNSET
    reasoning: Raw | UnsetType = UNSET
    reasoning_content: Raw | UnsetType = UNSET
    reasoning_details: Raw | UnsetType = UNSET
    audio: Raw | UnsetType = UNSET
    images: Raw | UnsetType = UNSET
    annotations: Raw | UnsetType = UNSET
    function_call: Raw | UnsetType = UNSET


class _Choice(Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    error: Raw | UnsetType = UNSET


class _Groq(Struct):
    usage: dict[str, Any] | None = None
    error: Any = None


class _Chunk(Struct):
    id: Any = None
    model: Any = None
    created: Any = None
    choices: list[_Choice] | UnsetType | None = UNSET
    usage: dict[str, Any] | UnsetType | None = UNSET
    error: Raw | UnsetType = UNSET
    x_groq: _Groq | None = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode


def _content(delta: _Delta) -> int:
    """Bytes of answer in a delta: text, refusal, tool calls, media."""
    size = 0
    for value in (delta.content, delta.refusal, delta.audio, delta.images, delta.function_call):
        if value is not UNSET and (raw := bytes(value)) not in NOTHING:
            size += len(raw)
    for tool in delta.tool_calls or ():
        size += 1
        if tool.function is not None and tool.function.arguments is not UNSET:
            size += len(memoryview(tool.function.arguments))
    return size


def _signed(delta: _Delta) -> bool:
    """Whether a delta carries reasoning that only the model that made it can go on from."""
    details = delta.reasoning_details
    if details is UNSET or (raw := bytes(details)) in NOTHING:
        return False
    return b'"signature"' in raw or b"encrypted" in raw


def _thoughts(delta: _Delta) -> int:
    size = 0
    for value in (delta.reasoning, delta.reasoning_content, delta.reasoning_details):
        if value is not UNSET and (raw := bytes(value)) not in NOTHING:
            size = max(size, len(raw))
    return size


def believable(usage: Mapping[str, Any] | None) -> bool:
    """Whether the counts of a usage can be true: from 0, and not beyond every machine."""
    values = usage.values() if usage else ()
    return all(0 <= n < MOST_COUNTED for n in values if isinstance(n, int))


class ChunkStream:
    """The state of one streamed answer.

    Feed events to `take`; it gives the bytes to send on. `committed` turns true with the first
    content, reasoning, tool call or finish: until then the caller need not have seen anything.
    `end` gives the closing bytes, or says what is missing. `failure` is an error the stream itself
    carried; nothing after it counts. `parts` is the text of the first choice as JSON strings, while
    the answer is `plain`: text of one choice and nothing that could not be continued.
    """

    __slots__ = (
        "_asked",
        "_choices_asked",
        "_frame",
        "_groq_usage",
        "_held",
        "_strict",
        "_tools",
        "_usage_event",
        "committed",
        "content_bytes",
        "created",
        "degraded",
        "done",
        "failure",
        "finishes",
        "finishing",
        "id",
        "ignored",
        "model",
        "parts",
        "plain",
        "thought_bytes",
        "usage",
        "usage_estimated",
    )

    def __init__(self, include_usage: bool, choices: int = 1, strict: bool = False) -> None:
        """`include_usage`: whether a usage chunk was asked for; `choices`: how many answers.

        `strict`: an event that cannot be read ends the answer; else it is left out and counted.
        """
        self._strict = strict
        self._choices_asked = choices
        self._asked = include_usage
        self._held: list[bytes] = []
        self._tools: dict[int, ToolIndexes] = {}
        self._usage_event: bytes | None = None
        self._frame = Frame()
        self._groq_usage: dict[str, Any] | None = None
        self.committed = False
        self.done = False
        self.failure: Failure | None = None
        self.finishes: dict[int, str | None] = {}
        self.finishing = False  # some choice has its finish
        self.id: Any = None
        self.model: Any = None
        self.created: Any = None
        self.usage: dict[str, Any] | None = None
        self.usage_estimated = False
        self.content_bytes = 0
        self.thought_bytes = 0
        self.degraded = 0
        self.ignored = 0
        self.parts: list[bytes] = []
        self.plain = True

    @property
    def finished(self) -> bool:
        """Whether every choice that began has its finish."""
        return bool(self.finishes) and all(self.finishes.values())

    @property
    def settled(self) -> bool:
        """Whether as many choices as were asked for have their finish: little can follow."""
        return len(self.finishes) >= self._choices_asked and self.finished

    def pass_on(self, data: bytes) -> bool:
        """Take whole events as they are, where that can be told without decoding them."""
        if self.finishing or self.done or self.failure is not None:
            return False
        texts = self._frame.texts(data)
        if texts is None:
            return False
        for text in texts:
            self.content_bytes += len(text)
        if self.plain:
            self.parts += texts
        return True

    def take(self, event: Event) -> bytes:
        """The bytes to send on for one event; empty where there is nothing to send."""
        data = event.data
        if self.done or self.failure is not None:
            self.ignored += 1
            return b""
        if data is None:
            return event.raw
        if data == b"[DONE]":
            self.done = True
            return b""
        try:
            chunk = _read_chunk(data)
            if not data.isascii():
                data.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._bad(event)
            return b""
        if chunk.error is not UNSET and bytes(chunk.error) not in NOTHING:
            self.failure = from_event(_decode(chunk.error))
            return b""
        return self._chunk(chunk, event)

    def _bad(self, event: Event) -> None:
        self.degraded += 1
        if event.name == b"error" and event.data:
            self.failure = from_event(event.data.decode("utf-8", "replace"))
        elif self._strict:
            self.failure = Failure(INVALID, "an event of the upstream's stream is not JSON")

    def _chunk(self, chunk: _Chunk, event: Event) -> bytes:
        self.id = self.id or chunk.id
        self.model = self.model or chunk.model
        self.created = self.created or chunk.created
        if chunk.x_groq is not None and chunk.x_groq.usage:
            self._groq_usage = chunk.x_groq.usage
        usage = chunk.usage if isinstance(chunk.usage, dict) else None
        choices = chunk.choices
        changes = _Changes(event)
        if not isinstance(choices, list):
            changes.put("choices", [])
            choices = []
        finishing = self._choices(choices, changes)
        if self.failure is not None:
            return b""
        if usage is not None and not self._take_usage(usage):
            changes.drop("usage")
            usage = None
        if choices and len(changes.gone) == len(choices):
            choices = []
            if usage is None:
                self.ignored += 1
                return b""
        if usage is not None and not choices:
            return self._usage_alone(event, changes)
        if usage is not None and (self._asked or not finishing):
            changes.drop("usage")
        out = changes.bytes()
        if finishing and usage is None:
            # Its usage may still come, and a caller who did not ask for a chunk of its own gets it
            # in this one; and where an error comes instead, this was no finish.
            self._held.append(out)
            return b""
        if (
            event.normal
            and out is event.raw
            and usage is None
            and self._frame.learns
            and len(choices) == 1
        ):
            self._framed(chunk, choices[0], event)
        waits = not choices and not self._asked
        return out if waits else self._release() + out

    def _framed(self, chunk: _Chunk, choice: _Choice, event: Event) -> None:
        """Learn the frame of an event, if it brings text of the first choice and nothing else."""
        delta = choice.delta
        if choice.index or choice.finish_reason or chunk.x_groq is not None or delta is None:
            return
        if delta.content is UNSET or delta.annotations is not UNSET or _thoughts(delta):
            return
        text = bytes(delta.content)
        if text[0] == QUOTE and len(text) == _content(delta) and not delta.tool_calls:
            self._frame.learn(event.data or b"", text)

    def _usage_alone(self, event: Event, changes: "_Changes") -> bytes:
        """A chunk that brings nothing but usage, and what else the upstream says of the whole."""
        if not self._asked:
            return self._release(_decode(event.data or b"{}"))
        own = event.normal and not changes.gone
        self._usage_event = (
            event.raw if own else _line({**_decode(event.data or b"{}"), "choices": []})
        )
        return self._release()

    def _choices(self, choices: list[_Choice], changes: "_Changes") -> bool:
        """Look at every choice; True where one of them finishes here."""
        finishing = False
        for position, choice in enumerate(choices):
            if choice.error is not UNSET and bytes(choice.error) not in NOTHING:
                self.failure = from_event(_decode(choice.error))
            reason = choice.finish_reason
            if reason == "error" and self.failure is None:
                self.failure = Failure(CUT, "the upstream ended the answer with an error")
            if self.failure is not None:
                return False
            delta = choice.delta
            if self.finishes.get(choice.index):
                changes.gone.append(position)
                continue
            self.finishes.setdefault(choice.index, None)
            if delta is None:
                changes.choice(position, "delta", {})
            else:
                self._delta(choice, delta, position, changes)
            if reason:
                self.finishes[choice.index] = reason
                self.committed = self.finishing = finishing = True
            elif reason is not None:
                changes.choice(position, "finish_reason", None)
        return finishing

    def _delta(self, choice: _Choice, delta: _Delta, position: int, changes: "_Changes") -> None:
        content, thoughts = _content(delta), _thoughts(delta)
        self.content_bytes += content
        self.thought_bytes += thoughts
        if content or thoughts:
            self.committed = True
            self._keep(choice, delta, content)
        if delta.tool_calls:
            tools = self._tools.setdefault(choice.index, ToolIndexes())
            for place, tool in enumerate(delta.tool_calls):
                index, new_id = tools.place(tool)
                if index != tool.index:
                    changes.tool(position, place, "index", index)
                if new_id is not None:
                    changes.tool(position, place, "id", new_id)

    def _keep(self, choice: _Choice, delta: _Delta, content: int) -> None:
        """Remember the text as it came, for a continuation; anything but text rules one out."""
        text = delta.content
        if choice.index or delta.tool_calls or _signed(delta):
            self.plain = False
        if content and self.plain:
            raw = bytes(text) if text is not UNSET else b""
            if raw.startswith(b'"') and content == len(raw):
                self.parts.append(raw)
            else:
                self.plain = False

    def _take_usage(self, usage: dict[str, Any]) -> bool:
        """Whether its counts can be true; what is no usage is counted and goes no further."""
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        if all(isinstance(n, int) for n in counts) and believable(usage):
            self.usage = usage
            return True
        self.degraded += 1
        return False

    def _release(self, more: Mapping[str, Any] = NOTHING_MORE) -> bytes:
        """Send on the finish chunks that waited; what came after them goes into the last one."""
        held, self._held = self._held, []
        if held and more:
            last = _decode(held[-1][6:])
            held[-1] = _line({**last, **{k: v for k, v in more.items() if k != "choices"}})
        return b"".join(held)

    def abandon(self) -> bytes:
        """What waited when the answer broke off: its content, but not as a finish."""
        held, self._held = self._held, []
        out = []
        for line in held:
            chunk = _decode(line[6:])
            for choice in chunk["choices"]:
                choice["finish_reason"] = None
            out.append(_line(chunk))
        return b"".join(out)

    def end(self, prompt_tokens: int) -> bytes:
        """The closing bytes of a whole answer; raises `Failure` where it is cut or empty.

        `prompt_tokens` is the estimate to report, labelled, where the upstream reported no usage.
        """
        if self.failure is not None:
            raise self.failure
        if not self.finishes:
            raise Failure(INVALID, "the upstream's stream was empty")
        if not self.finished:
            raise Failure(CUT, "the upstream's stream ended before the answer did")
        if self.usage is None and self._groq_usage is not None:
            self._take_usage(self._groq_usage)
        if self.usage is None:
            self.usage_estimated = True
            self.usage = self.estimated_usage(prompt_tokens)
        closing = self._release(NOTHING_MORE if self._asked else {"usage": self.usage})
        if self._asked:
            closing += self._usage_event if self._usage_event else self._usage_chunk()
        return closing + DONE

    def estimated_usage(self, prompt_tokens: int) -> dict[str, Any]:
        """Usage worked out from bytes, labelled as such."""
        completion = max(1, (self.content_bytes + self.thought_bytes) // 4)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": prompt_tokens + completion,
            "estimated": True,
        }

    def _usage_chunk(self) -> bytes:
        return _line(
            {
                "id": self.id,
                "object": "chat.completion.chunk",
                "created": self.created,
                "model": self.model,
                "choices": [],
                "usage": self.usage,
            }
        )


class _Changes:
    """What has to differ from the bytes that came. Decoded again only where something does."""

    __slots__ = ("_edits", "_event", "gone")

    def __init__(self, event: Event) -> None:
        self._event = event
        self._edits: list[tuple[Any, ...]] = []
        self.gone: list[int] = []

    def put(self, key: str, value: Any) -> None:
        self._edits.append((key, value))

    def drop(self, key: str) -> None:
        self._edits.append((key,))

    def choice(self, position: int, key: str, value: Any) -> None:
        self._edits.append(("choices", position, key, value))

    def tool(self, position: int, place: int, key: str, value: Any) -> None:
        self._edits.append(("choices", position, "delta", "tool_calls", place, key, value))

    def bytes(self) -> bytes:
        if not self._edits and not self.gone:
            return self._event.raw
        full = _decode(self._event.data or b"")
        for edit in self._edits:
            if len(edit) == 1:
                full.pop(edit[0], None)
                continue
            *path, key, value = edit
            at = full
            for step in path:
                at = at[step]
            at[key] = value
        for position in reversed(self.gone):
            del full["choices"][position]
        return _line(full)


def _line(value: Any) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"
