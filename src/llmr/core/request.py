"""What routing needs to know of a chat request: the model asked for, the wishes, the needs.

`parse` is the only place where the fields of a body are read. Nothing here keeps the words.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from llmr.core import capability
from llmr.core.body import Body
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
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class Request(Struct, frozen=True):
    """A chat request as routing sees it.

    `mode` is auto, pinned or list. Token counts are estimates on a grid of 9 % steps, finer than
    the estimate is good. `weights` are (latency, cost, quality) and add up to 1.
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


class _Part(Struct):
    type: str = "text"
    text: str | None = None


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: Raw | UnsetType = UNSET


class _Format(Struct):
    type: str = "text"


class _Reasoning(Struct):
    effort: str | None = None
    enabled: bool | None = None
    max_tokens: int | None = None


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
    return 1 if tokens <= 1 else round(2.0 ** (round(8.0 * math.log2(tokens)) / 8.0))


def parse(
    body: Body,
    headers: Mapping[str, str],
    *,
    priority: str = "balanced",
    balanced: tuple[float, float, float] = PRIORITIES["balanced"],
    model_optional: bool = False,
) -> Request:
    """The request in `body`, with wishes from `headers` (`x-llmr-…`) where the body has none.

    `priority` and `balanced` are the configured default priority and its weights. Raises a 400 that
    names the field for every value routing relies on and cannot use.
    """
    fields = body.fields
    mode, models, asked = _models(body, model_optional)
    wishes = _wishes(body, headers)
    name = asked if asked is not None else wishes.priority or priority
    if name not in PRIORITIES:
        raise bad_request(
            "unknown_priority",
            f"Unknown priority {name[:80]!r}. Use one of: {', '.join(PRIORITIES)}.",
            "model" if asked is not None else "priority",
        )
    weights = wishes.weights or (balanced if name == "balanced" else PRIORITIES[name])
    tokens, needs = _messages(body)
    if "tools" in fields:
        tools = fields["tools"]
        if body.get("tools", list[Any], "a list of tools"):
            needs |= capability.TOOLS
            tokens += len(memoryview(tools)) / 4
    limits = (_limit(body, "max_completion_tokens"), _limit(body, "max_tokens"))
    max_tokens = min((n for n in limits if n is not None), default=None)
    effort = _effort(body)
    choices = (body.get("n", int, "a whole number") or 1) if "n" in fields else 1
    choices = min(max(choices, 1), MOST_CHOICES)
    if "response_format" in fields:
        shape = body.get("response_format", _Format, "an object with a type")
        needs |= FORMAT_NEEDS.get(shape.type, 0) if shape else 0
    if "modalities" in fields:
        kinds = body.get("modalities", list[str], "a list of words") or []
        needs |= capability.mask_of(kinds, capability.OUTPUTS)
    if effort not in (None, "none"):
        needs |= capability.REASONING
    visible = (
        DEFAULT_OUTPUT_TOKENS if max_tokens is None else min(max_tokens, DEFAULT_OUTPUT_TOKENS)
    )
    return Request(
        mode=mode,
        models=models,
        priority=name,
        weights=weights,
        preferred=wishes.preferred,
        max_latency_ms=wishes.max_latency_ms,
        max_cost_per_1k=wishes.max_cost_per_1k,
        max_cost_usd=wishes.max_cost_usd,
        deadline_ms=wishes.deadline_ms,
        needs=needs,
        prompt_tokens=grid(tokens),
        output_tokens=grid(min(visible * choices, 1e9)),
        max_tokens=max_tokens,
        effort=effort,
        stream=bool(body.get("stream", bool, "true or false")) if "stream" in fields else False,
        choices=choices,
    )


def _models(body: Body, optional: bool) -> tuple[str, tuple[str, ...], str | None]:
    """(mode, ids, priority named by `auto:…`)."""
    model = body.get("model", str, "a model id, or auto")
    listed = body.get("models", list[str], "a list of model ids")
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


def _wishes(body: Body, headers: Mapping[str, str]) -> _Wishes:
    """Wishes of the body, or of the `x-llmr-…` headers for clients that cannot set fields."""
    if not headers and WISHED.isdisjoint(body.fields):
        return NO_WISHES

    def given(key: str) -> str | None:
        return headers.get("x-llmr-" + key.replace("_", "-"))

    def number(key: str) -> float | None:
        value: float | None
        if key in body.fields:
            value = body.get(key, float, "a number")
        elif (text := given(key)) is None:
            return None
        else:
            try:
                value = float(text)
            except ValueError:
                raise bad_request("invalid_type", f"{key!r} must be a number.", key) from None
        if value is not None and not 0 < value < math.inf:
            raise bad_request("out_of_range", f"{key!r} must be a number above 0.", key)
        return value

    if "priority" in body.fields:
        priority = body.get("priority", str, "a word")
    else:
        priority = given("priority")
    if "preferred_models" in body.fields:
        preferred = body.get("preferred_models", list[str], "a list of model ids") or ()
    else:
        words = (word.strip() for word in (given("preferred_models") or "").split(","))
        preferred = [word for word in words if word]
    return _Wishes(
        priority,
        _weights(body, given("weights")),
        _names(preferred, "preferred_models"),
        number("max_latency_ms"),
        number("max_cost_per_1k"),
        number("max_cost_usd"),
        number("deadline_ms"),
    )


def _weights(body: Body, text: str | None) -> tuple[float, float, float] | None:
    key, what = "weights", "an object with latency, cost and quality, numbers from 0"
    value: dict[str, float] | None = None
    if key in body.fields:
        value = body.get(key, dict[str, float], what)
    elif text is not None:
        try:
            value = msgspec.json.decode(text, type=dict[str, float])
        except msgspec.DecodeError:
            raise bad_request("invalid_type", f"{key!r} must be {what}.", key) from None
    return None if value is None else normalised(value)


def normalised(weights: Mapping[str, float]) -> tuple[float, float, float]:
    """(latency, cost, quality), adding up to 1; absent ones count 0."""
    unknown = set(weights) - {"latency", "cost", "quality"}
    values = [weights.get(name, 0.0) for name in ("latency", "cost", "quality")]
    total = sum(values)
    if unknown or min(values) < 0 or not 0 < total < math.inf:
        raise bad_request(
            "invalid_weights",
            "'weights' takes latency, cost and quality: numbers from 0, at least one above 0.",
            "weights",
        )
    return values[0] / total, values[1] / total, values[2] / total


def _messages(body: Body) -> tuple[float, int]:
    """(estimated prompt tokens, needs) of the messages: bytes / 4, 4 a message, images by rule."""
    messages = body.get(
        "messages", list[_Message], "a list of {role, content}, content a text or a list of parts"
    )
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


def _limit(body: Body, key: str) -> int | None:
    if key not in body.fields:
        return None
    value: int | None = body.get(key, int, "a whole number")
    # The upstream judges what is no bound at all; what is beyond every model is one bound.
    return min(value, MOST_TOKENS) if value is not None and value > 0 else None


def _effort(body: Body) -> str | None:
    """The reasoning effort asked for, or None where the request leaves it to the model."""
    if (word := body.get("reasoning_effort", str, "a word")) is not None:
        return _word(word)
    if "reasoning" not in body.fields:
        return None
    reasoning = body.get("reasoning", _Reasoning, "an object")
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
