"""From what went wrong to what is said of it: bodies, transport errors, and the caller's error."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from llmr.core import classify
from llmr.core.catalogue import Model
from llmr.core.classify import Failure
from llmr.errors import ApiError
from llmr.upstreams.base import TransportError

BUSY_AGAIN_S = 1.0  # what a caller is told where all connections are taken


class _Message(Struct):
    """Of a message nothing is needed but that it is one."""


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None
    error: Raw | UnsetType = UNSET


class Whole(Struct):
    """What the router reads of a whole answer. The rest goes on as the bytes that came."""

    choices: Annotated[list[_Choice], Meta(min_length=1)]
    usage: dict[str, Any] | None = None
    error: Raw | UnsetType = UNSET


_read_whole = msgspec.json.Decoder(Whole).decode


def whole_in(body: bytes) -> Whole:
    """The answer in a 200 reply; raises `Failure` for anything that is none."""
    try:
        found = _read_whole(body)
        if not body.isascii():
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if (
        found is None
        or found.error is not UNSET
        or any(c.error is not UNSET or c.finish_reason == "error" for c in found.choices)
    ):
        return _looked_at(body)
    return found


def _looked_at(body: bytes) -> Whole:
    """The same, word by word: what is wrong with it, where something is."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Failure(classify.INVALID, "the upstream's answer is not JSON") from None
    if not isinstance(parsed, dict):
        raise Failure(classify.INVALID, "the upstream's answer is not an object")
    choices = parsed.get("choices")
    if parsed.get("error") or (not choices and "detail" in parsed):
        raise classify.from_event(parsed.get("error") or parsed["detail"])
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Failure(classify.INVALID, "the upstream's answer has no choices")
    found = []
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise Failure(classify.INVALID, "a choice of the upstream's answer has no message")
        reason = choice.get("finish_reason")
        if not isinstance(reason, str | None):
            raise Failure(classify.INVALID, "a finish reason of the upstream's answer is no word")
        if choice.get("error"):
            raise classify.from_event(choice["error"])
        if reason == "error":
            raise Failure(classify.CUT, "the upstream ended the answer with an error")
        found.append(_Choice(_Message(), reason))
    usage = parsed.get("usage")
    return Whole(found, usage if isinstance(usage, dict) else None)


def of_transport(error: TransportError, committed: bool) -> Failure:
    if error.kind in ("closed", "reset") and committed:
        return Failure(
            classify.CUT, "the upstream closed the connection in the middle of the answer"
        )
    if error.kind == "protocol" and committed:
        return Failure(classify.CUT, str(error))
    if error.kind == "reset":
        return Failure(classify.RESET, str(error))
    if error.kind == "busy":
        return Failure(classify.BUSY, str(error), retry_after_s=BUSY_AGAIN_S)
    if error.kind == "connect_timeout":
        return Failure(classify.TIMEOUT, str(error))
    if error.kind in ("protocol", "too_large", "closed"):
        return Failure(classify.INVALID, str(error))
    return Failure(classify.TRANSPORT, str(error))


def final(failures: list[tuple[Model, Failure]], named: bool) -> ApiError:
    """The error the caller sees once nothing is left to try.

    `named`: the caller named the models; else a missing one is no fault of the request.
    """
    if not failures:
        text = "The deadline passed before an attempt could begin."
        return ApiError(504, "deadline_exceeded", text, retryable=True)
    model, failure = failures[-1]
    kind = failure.kind
    own = kind.own_status and (named or kind is not classify.MISSING)
    if not own and (len(failures) > 1 or kind.own_status):
        return _all_failed(failures)
    status = failure.status if kind.own_status and failure.status else kind.status
    if kind.own_status:
        message = failure.message
    else:
        message = f"{model.id} on {model.upstream} failed: {failure.message.rstrip('. ')}."
        if kind is classify.CREDENTIALS:
            message += f" Check the key of upstream {model.upstream!r}."
    return ApiError(
        status,
        (failure.code if kind.own_status else None) or kind.code,
        message,
        param=failure.param,
        retry_after_s=failure.retry_after_s,
        retryable=kind.retryable,
        label=kind.code,
    )


def come_back(error: ApiError, soonest_s: float, targets: int) -> None:
    """Say when it is worth coming back: once the first of all the targets may be tried again.

    Several that all are to be left alone are a service that is away, whatever each of them said.
    """
    if soonest_s <= 0.0 or not error.retryable:
        return
    error.retry_after_s = soonest_s
    if targets > 1 and error.status == 502:
        error.status = 503


def _all_failed(failures: list[tuple[Model, Failure]]) -> ApiError:
    told = "; ".join(f"{m.id} on {m.upstream}: {f.message.rstrip('. ')}" for m, f in failures)
    kinds = {failure.kind for _, failure in failures}
    waits = [f.retry_after_s for _, f in failures if f.retry_after_s is not None]
    last = failures[-1][1].kind
    same = last if len(kinds) == 1 or last is classify.DEADLINE else None
    return ApiError(
        same.status if same and not same.own_status else 503,
        same.code if same and not same.own_status else "all_attempts_failed",
        f"All {len(failures)} attempts failed. {told}.",
        retry_after_s=min(waits) if waits else None,
        retryable=any(failure.kind.retryable for _, failure in failures),
    )
