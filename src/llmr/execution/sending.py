"""The body that one attempt sends: the caller's, with what the router has to put into it."""

from typing import Any

import msgspec

from llmr.core.body import Body, Pieces
from llmr.core.catalogue import Model
from llmr.core.request import REMOVED
from llmr.execution.types import Call

LIMITS = ("max_completion_tokens", "max_tokens")


def body_for(
    call: Call, model: Model, max_tokens: int | None = None, delivered: str | None = None
) -> tuple[Pieces, str | None]:
    """(pieces, what was added in words) of a send, cut where the model name belongs.

    `max_tokens`: what the answer is to be held to. `delivered`: the beginning of the answer, to be
    gone on from.
    """
    asks = call.asking is not None and model.upstream != "openrouter"
    thinkers = call.decision.request.thinkers
    foreign = bool(thinkers) and not thinkers <= {model.id.lstrip("~").split("/", 1)[0]}
    if max_tokens is None and delivered is None and not foreign:
        if asks and call.asking is not None:
            return call.asking, "stream_options.include_usage"
        return call.pieces, None
    body = Body(call.data)
    put: dict[str, bytes | None] = {"model": None}
    told = []
    if delivered is not None:
        put["messages"] = _going_on(bytes(body.fields["messages"]), delivered)
        told.append("assistant prefill")
    if foreign:
        # Signed thoughts of another family are refused; without them the text still stands.
        put["messages"] = _without_thoughts(put.get("messages") or bytes(body.fields["messages"]))
        told.append("without reasoning_details")
    if asks:
        put["stream_options"] = with_usage(body)
        told.append("stream_options.include_usage")
    if max_tokens is not None:
        number = str(max_tokens).encode()
        given = [name for name in LIMITS if bytes(body.fields.get(name, b"null")) != b"null"]
        for name in given or ("max_tokens",):
            put[name] = number
        told.append(f"max_tokens {max_tokens}")
    return body.splice(REMOVED, put), ", ".join(told)


def with_usage(body: Body) -> bytes:
    """The caller's stream options with the usage chunk the router needs for its accounts."""
    options: Any = body.get("stream_options", dict[str, Any], "an object") or {}
    return msgspec.json.encode({**options, "include_usage": True})


def _without_thoughts(messages: bytes) -> bytes:
    """The messages without the thoughts that models signed."""
    found = msgspec.json.decode(messages, type=list[dict[str, msgspec.Raw]])
    for message in found:
        message.pop("reasoning_details", None)
    return msgspec.json.encode(found)


def _going_on(messages: bytes, delivered: str) -> bytes:
    """The messages with what was delivered as the beginning of the assistant's answer."""
    message = msgspec.json.encode({"role": "assistant", "content": delivered})
    return messages.rstrip()[:-1] + b"," + message + b"]"
