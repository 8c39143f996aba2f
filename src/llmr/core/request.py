"""What routing needs to know of a chat request: the model asked for, the wishes, the needs.

`parse` is the only place where the fields of a body are read. Nothing here keeps the words.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf, log2
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from llmr.core import capability
from llmr.core.body import Body
from llmr.core.boundless import bounded
from llmr.core.conversation import families_in, session_of
from llmr.core.quality.curve import Curve
from llmr.core.quality.task import Task, task_of_turns
from llmr.errors import bad_request

PRIORITIES: dict[str, tuple[float, float, float]] = {
    "speed": (0.70, 0.20, 0.10),
    "cost": (0.20, 0.70, 0.10),
    "quality": (0.10, 0.20, 0.70),
    "balanced": (0.40, 0.30, 0.30),
}
WISHES = (
    "priority",
    "weights",
    "preferred_models",
    "max_latency_ms",
    "max_cost_per_1k",
    "max_cost_usd",
    "deadline_ms",
)
WISHED = frozenset(WISHES)
REMOVED = frozenset((*WISHES, "models"))

MOST_NAMES, LONGEST_NAME = 64, 256
DEFAULT_OUTPUT_TOKENS = 300
MOST_TOKENS, MOST_CHOICES = 10**9, 128
IMAGE_TOKENS = 800  # between the cheapest and the dearest rule of the large providers
FREE_CHOICE = (b'"auto"', b'"none"', b"null")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


Reader = Callable[[Task], Curve]
NOBODY: frozenset[str] = frozenset()


class Request(Struct, frozen=True):
    """A chat request as routing sees it.

    `mode` is auto, pinned or list. Token counts are estimates on a grid of 9 % steps, finer than
    the estimate is good. `weights` are (latency, cost, quality) and add up to 1. `curve` is what
    its prompt makes of the skill of a model, None where it was not read. `writes_cache`: it asks
    for the prompt to be cached, which may cost more than reading it; looked at under a ceiling.
    `session` is a digest of the conversation, which it may go on with (`continues`); `thinkers` are
    the authors of the models whose thoughts it carries.
    """

    mode: str
    models: tuple[str, ...]
    priority: str
    weights: tuple[float, float, float]
    preferred: tuple[str, ...] = ()
    max_latency_ms: float | None = None
    max_cost_per_1k: float | None = None
    max_cost_usd: float | None = None
    deadline_ms: float | None = None
    needs: int = 0
    prompt_tokens: int = 1
    output_tokens: int = DEFAULT_OUTPUT_TOKENS
    max_tokens: int | None = None
    effort: str | None = None
    stream: bool = False
    choices: int = 1
    curve: Curve | None = None
    writes_cache: bool = False
    session: bytes = b""
    continues: bool = False
    thinkers: frozenset[str] = NOBODY


class _Part(Struct):
    type: str = "text"
    text: str | None = None


class Message(Struct):
    """A message as far as routing looks at it."""

    role: str
    content: str | list[_Part] | None = None
    tool_calls: Raw | UnsetType = UNSET
    reasoning_details: Raw | UnsetType = UNSET


class _Format(Struct):
    type: str = "text"


class _Reasoning(Struct):
    effort: str | None = None
    enabled: bool | None = None
    max_tokens: int | None = None


class _Provider(Struct):
    """What a caller asks of whoever serves the request. OpenRouter's field, and kept to for all."""

    data_collection: str | None = None
    zdr: bool | None = None


class _Fields(Struct):
    """The fields of a body that routing looks at, read in one pass. Null counts as absent."""

    model: str | None = None
    models: list[str] | None = None
    messages: list[Message] | None = None
    stream: bool | None = None
    tools: list[Raw] | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None
    reasoning: _Reasoning | None = None
    n: int | None = None
    response_format: _Format | None = None
    modalities: list[str] | None = None
    tool_choice: Raw | UnsetType = UNSET
    provider: _Provider | None = None
    priority: str | None = None
    preferred_models: list[str] | None = None
    weights: dict[str, float] | None = None
    max_latency_ms: float | None = None
    max_cost_per_1k: float | None = None
    max_cost_usd: float | None = None
    deadline_ms: float | None = None


# What a field has to be, in the order in which the first wrong one is told.
SHAPES: dict[str, tuple[Any, str]] = {
    "model": (str, "a model id, or auto"),
    "models": (list[str], "a list of model ids"),
    "priority": (str, "a word"),
    "weights": (dict[str, float], "an object with latency, cost and quality, numbers from 0"),
    "preferred_models": (list[str], "a list of model ids"),
    "max_latency_ms": (float, "a number"),
    "max_cost_per_1k": (float, "a number"),
    "max_cost_usd": (float, "a number"),
    "deadline_ms": (float, "a number"),
    "messages": (
        list[Message],
        "a list of {role, content}, content a text or a list of parts",
    ),
    "tools": (list[Raw], "a list of tools"),
    "max_completion_tokens": (int, "a whole number"),
    "max_tokens": (int, "a whole number"),
    "reasoning_effort": (str, "a word"),
    "reasoning": (_Reasoning, "an object"),
    "n": (int, "a whole number"),
    "response_format": (_Format, "an object with a type"),
    "modalities": (list[str], "a list of words"),
    "stream": (bool, "true or false"),
    "provider": (_Provider, "an object, its data_collection 'allow' or 'deny', its zdr a boolean"),
}
_read_fields = msgspec.json.Decoder(_Fields).decode


PART_NEEDS = {
    "image_url": capability.VISION,
    "input_image": capability.VISION,
    "input_audio": capability.AUDIO,
    "file": capability.FILE,
    "video_url": capability.VIDEO,
    "input_video": capability.VIDEO,
}
FORMAT_NEEDS = {"json_schema": capability.JSON_SCHEMA, "json_object": capability.JSON_OBJECT}


def grid(tokens: float) -> int:
    """The nearest of 1, 2, … in steps of an eighth of an octave."""
    return 1 if tokens <= 1 else round(2.0 ** (round(8.0 * log2(tokens)) / 8.0))


def parse(
    body: Body,
    headers: Mapping[str, str],
    *,
    priority: str = "balanced",
    balanced: tuple[float, float, float] = PRIORITIES["balanced"],
    model_optional: bool = False,
    reader: Reader | None = None,
) -> Request:
    """The request in `body`, with wishes from `headers` (`x-llmr-…`) where the body has none.

    `priority` and `balanced` are the configured default priority and its weights; `reader` reads
    the prompts of those who leave the choice to the router. Raises a 400 that
    names the field for every value routing relies on and cannot use.
    """
    read = _read(body)
    mode, models, asked = _models(read, model_optional)
    wishes = NO_WISHES
    if headers or not WISHED.isdisjoint(body.fields):
        wishes = _wishes(body, read, headers)
    name = asked if asked is not None else wishes.priority or priority
    if name not in PRIORITIES:
        raise bad_request(
            "unknown_priority",
            f"Unknown priority {name[:80]!r}. Use one of: {', '.join(PRIORITIES)}.",
            "model" if asked is not None else "priority",
        )
    tokens, needs = _messages(read.messages)
    if read.provider is not None or headers:
        needs |= _binding(read.provider, headers)
    if read.tools:
        needs |= capability.TOOLS
        if read.tool_choice is not UNSET and bytes(read.tool_choice) not in FREE_CHOICE:
            needs |= capability.TOOL_CHOICE
        tokens += len(memoryview(body.fields["tools"])) / 4
    first, second = _limit(read.max_completion_tokens), _limit(read.max_tokens)
    max_tokens = min(first, second) if first and second else first or second
    choices = min(max(read.n or 1, 1), MOST_CHOICES)
    effort = None
    if read.reasoning_effort is not None or read.reasoning is not None:
        effort = _effort(read)
        if effort not in (None, "none"):
            needs |= capability.REASONING
    if read.response_format is not None:
        needs |= FORMAT_NEEDS.get(read.response_format.type, 0)
    if read.modalities:
        needs |= capability.mask_of(read.modalities, capability.OUTPUTS)
    curve = None
    if reader is not None and mode == "auto":
        curve = reader(task(read.messages or (), len(read.tools or ())))
    output = min(max_tokens or DEFAULT_OUTPUT_TOKENS, DEFAULT_OUTPUT_TOKENS) * choices
    return Request(
        mode,
        models,
        name,
        wishes.weights or (balanced if name == "balanced" else PRIORITIES[name]),
        wishes.preferred,
        wishes.max_latency_ms,
        wishes.max_cost_per_1k,
        wishes.max_cost_usd,
        wishes.deadline_ms,
        needs,
        grid(tokens),
        grid(output),
        max_tokens,
        effort,
        read.stream or False,
        choices,
        curve,
        wishes.max_cost_usd is not None and bounded(body, models, read.tools or ()),
        *(_session(body, read.messages or (), headers) if mode == "auto" else (b"", False)),
        _thinkers(read.messages or ()) if mode != "pinned" else NOBODY,
    )


def _session(
    body: Body, messages: Sequence[Message], headers: Mapping[str, str]
) -> tuple[bytes, bool]:
    opening = []
    for message in messages[:4]:
        opening.append((message.role, "".join(_said(message.content))))
        if message.role == "user":
            break
    session, named = session_of(body, opening, headers)
    return session, named or any(message.role == "assistant" for message in messages)


def _thinkers(messages: Sequence[Message]) -> frozenset[str]:
    found = NOBODY
    for message in messages:
        if message.reasoning_details is not UNSET:
            found |= families_in(bytes(message.reasoning_details))
    return found


def _binding(provider: _Provider | None, headers: Mapping[str, str]) -> int:
    """What a caller may rely on wherever the request goes: privacy, and the region it stays in."""
    needs = 0
    if provider is not None:
        if provider.data_collection not in (None, "allow", "deny"):
            text = "'provider.data_collection' must be 'allow' or 'deny'."
            raise bad_request("invalid_type", text, "provider")
        needs |= capability.NO_TRAINING if provider.data_collection == "deny" else 0
        needs |= capability.NO_RETENTION if provider.zdr else 0
    region = headers.get("x-llmr-region")
    if region is not None:
        if region.lower() not in capability.REGIONS:
            text = f"'x-llmr-region' must be one of: {', '.join(capability.REGIONS)}."
            raise bad_request("unknown_region", text, "x-llmr-region")
        needs |= capability.REGIONS[region.lower()]
    return needs


def _read(body: Body) -> _Fields:
    try:
        return _read_fields(body.data)
    except (msgspec.DecodeError, RecursionError):
        for key, (shape, what) in SHAPES.items():
            body.get(key, shape, what)
        raise bad_request("invalid_json", "The body cannot be read.") from None


def _models(read: _Fields, optional: bool) -> tuple[str, tuple[str, ...], str | None]:
    """(mode, ids, priority named by `auto:…`)."""
    model, listed = read.model, read.models
    if model == "auto" and not listed:
        return "auto", (), None
    if model is None and listed is None and not optional:
        raise bad_request(
            "missing_model", "Say which model: an id from /v1/models, or 'auto'.", "model"
        )
    if model is not None and not model.strip():
        raise bad_request("invalid_model", "The model must not be empty; 'auto' routes.", "model")
    auto = model is None or model == "auto" or model.startswith("auto:")
    asked = model[5:] if model and model.startswith("auto:") else None
    if listed:
        if model is not None and not auto and model not in listed:
            listed = [model, *listed]
        return "list", _names(listed, "models"), asked
    if auto or model is None:
        return "auto", (), asked
    return "pinned", _names([model], "model"), None


def _names(names: Sequence[str], key: str) -> tuple[str, ...]:
    """Model ids as they are kept: few enough, and no longer than any id is."""
    if len(names) > MOST_NAMES or any(len(name) > LONGEST_NAME for name in names):
        text = f"{key!r} takes at most {MOST_NAMES} ids of at most {LONGEST_NAME} characters."
        raise bad_request("out_of_range", text, key)
    return tuple(dict.fromkeys(names))


class _Wishes(Struct, frozen=True):
    """What a caller wants of the routing, as far as it says."""

    priority: str | None = None
    weights: tuple[float, float, float] | None = None
    preferred: tuple[str, ...] = ()
    max_latency_ms: float | None = None
    max_cost_per_1k: float | None = None
    max_cost_usd: float | None = None
    deadline_ms: float | None = None


NO_WISHES = _Wishes()


def _wishes(body: Body, read: _Fields, headers: Mapping[str, str]) -> _Wishes:
    """Wishes of the body, or of the `x-llmr-…` headers for clients that cannot set fields."""

    def given(key: str) -> str | None:
        return headers.get("x-llmr-" + key.replace("_", "-"))

    def number(key: str) -> float | None:
        value: float | None
        if key in body.fields:
            value = getattr(read, key)
        elif (text := given(key)) is None:
            return None
        else:
            try:
                value = float(text)
            except ValueError:
                raise bad_request("invalid_type", f"{key!r} must be a number.", key) from None
        if value is not None and not 0 < value < inf:
            raise bad_request("out_of_range", f"{key!r} must be a number above 0.", key)
        return value

    if "preferred_models" in body.fields:
        preferred = read.preferred_models or ()
    else:
        words = (word.strip() for word in (given("preferred_models") or "").split(","))
        preferred = [word for word in words if word]
    return _Wishes(
        read.priority if "priority" in body.fields else given("priority"),
        _weights(body, read, given("weights")),
        _names(preferred, "preferred_models"),
        number("max_latency_ms"),
        number("max_cost_per_1k"),
        number("max_cost_usd"),
        number("deadline_ms"),
    )


def _weights(body: Body, read: _Fields, text: str | None) -> tuple[float, float, float] | None:
    value: dict[str, float] | None = None
    if "weights" in body.fields:
        value = read.weights
    elif text is not None:
        try:
            value = msgspec.json.decode(text, type=dict[str, float])
        except msgspec.DecodeError:
            what = SHAPES["weights"][1]
            raise bad_request("invalid_type", f"'weights' must be {what}.", "weights") from None
    return None if value is None else normalised(value)


def normalised(weights: Mapping[str, float]) -> tuple[float, float, float]:
    """(latency, cost, quality), adding up to 1; absent ones count 0."""
    unknown = set(weights) - {"latency", "cost", "quality"}
    values = [weights.get(name, 0.0) for name in ("latency", "cost", "quality")]
    total = sum(values)
    if unknown or min(values) < 0 or not 0 < total < inf:
        raise bad_request(
            "invalid_weights",
            "'weights' takes latency, cost and quality: numbers from 0, at least one above 0.",
            "weights",
        )
    return values[0] / total, values[1] / total, values[2] / total


def _messages(messages: Sequence[Message] | None) -> tuple[float, int]:
    """(estimated prompt tokens, needs) of the messages: bytes / 4, 4 a message, images by rule."""
    if not messages:
        raise bad_request(
            "empty_messages", "'messages' must be a list with at least one message.", "messages"
        )
    size, needs, tokens = 0, 0, 3.0 + 4 * len(messages)
    for message in messages:
        content = message.content
        if isinstance(content, str):
            size += len(content) if content.isascii() else len(content.encode())
        elif content:
            for part in content:
                size += len(part.text.encode()) if part.text else 0
                if need := PART_NEEDS.get(part.type):
                    needs |= need
                    tokens += IMAGE_TOKENS
        if message.tool_calls is not UNSET:
            size += len(memoryview(message.tool_calls))
    return tokens + size / 4, needs


def task_of(body: Body) -> Task:
    """What the request in a body asks for."""
    read = _read(body)
    return task(read.messages or (), len(read.tools or ()))


def task(messages: Sequence[Message], tools: int = 0) -> Task:
    """What is asked for, from the end of the conversation: its last turns and the system prompt."""
    return task_of_turns([(message.role, _said(message.content)) for message in messages], tools)


def _said(content: str | list[_Part] | None) -> Sequence[str]:
    if isinstance(content, str):
        return (content,)
    return [part.text for part in content or () if part.text]


def _limit(value: int | None) -> int | None:
    # The upstream judges what is no bound at all; what is beyond every model is one bound.
    return min(value, MOST_TOKENS) if value is not None and value > 0 else None


def _effort(read: _Fields) -> str | None:
    """The reasoning effort asked for, or None where the request leaves it to the model."""
    reasoning = read.reasoning
    if read.reasoning_effort is not None:
        return _word(read.reasoning_effort)
    if reasoning is None:
        return None
    if reasoning.enabled is False:
        return "none"
    if reasoning.effort is not None:
        return _word(reasoning.effort)
    return "medium" if reasoning.enabled or reasoning.max_tokens else None


def _word(effort: str | None) -> str | None:
    """A known effort as it is; one that is not known yet counts as medium and goes on unchanged."""
    return effort if effort is None or effort in EFFORTS else "medium"
