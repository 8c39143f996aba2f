"""The script for a healthy answer, and for each fault: a different reply, or a changed one."""

from collections.abc import Iterator
from itertools import chain, cycle, repeat
from typing import Any

import msgspec

from llmr.sandbox import faults, wire
from llmr.sandbox.answer import Answer
from llmr.sandbox.pace import Pace
from llmr.sandbox.script import (
    COMMENT,
    DONE,
    Headers,
    Script,
    Step,
    error_reply,
    head,
    json_reply,
    whole,
)

FOR_EVER_S = 365 * 86_400.0

_MESSAGES = {
    402: "Insufficient credits",
    404: "No endpoints found",
    429: "Provider returned error: rate limited",
    500: "Internal Server Error",
    502: "Provider returned error",
    503: "No provider available",
}


class Material(msgspec.Struct):
    """What a script is made of. `headers` go on every reply."""

    answer: Answer
    pace: Pace
    stream: bool
    headers: Headers
    comment_every_s: float = 0.5


def instead(fault: faults.Fault, *, stream: bool, headers: Headers) -> Script | None:
    """The script of a fault that needs no answer; None for the others."""
    match fault:
        case faults.Status():
            return _status(fault, headers)
        case faults.JsonBody():
            form = {"content-type": "application/json"}
            return whole(200, fault.body.encode(), {**headers, **form, **fault.headers})
        case faults.Redirect():
            return json_reply(fault.status, {}, {**headers, "location": fault.location})
        case faults.Reset():
            return Script(end="reset")
        case faults.Close():
            return Script(end="close")
        case faults.Silent():
            return Script(steps=[Step(b"", wait=fault.seconds)], end="close")
        case faults.EmptyStream():
            return Script(200, _body_head(stream, headers), chunked=True)
        case faults.Comments():
            sign = COMMENT if stream else b"\n"
            steps = chain([Step(sign)], repeat(Step(sign, wait=fault.interval_s)))
            return Script(200, _body_head(stream, headers), steps, chunked=True)
        case faults.Raw():
            return _raw(fault)
        case _:
            return None


def healthy(material: Material) -> Script:
    """The whole answer, in the form that was asked."""
    return _streamed(material) if material.stream else _as_json(material)


def delayed(script: Script, fault: faults.Fault) -> Script:
    """The script, held back as long as the fault says."""
    script.delay_s = fault.delay_s + (fault.seconds if isinstance(fault, faults.Delay) else 0.0)
    return script


def changed(fault: faults.Fault, material: Material) -> Script:
    """The script of a fault that spoils, delays or reshapes the answer."""
    if fault.tokens_per_s:
        material.pace = Pace(material.pace.first_s, 1 / fault.tokens_per_s)
    match fault:
        case faults.SlowFirstToken():
            return _slow_first_token(fault, material)
        case faults.WrongForm():
            material.stream = not material.stream
            return healthy(material)
        case faults.DripHeaders():
            return _drip_headers(fault, healthy(material))
        case faults.DripBody():
            return _drip_body(fault, material)
        case faults.ContentLength():
            return _content_length(fault, material)
        case faults.Endless():
            return _endless(material)
        case _ if not material.stream:
            return _spoilt_json(fault, material)
        case _:
            return _spoilt_stream(fault, material)


def _body_head(stream: bool, headers: Headers) -> bytes:
    kind = "text/event-stream" if stream else "application/json"
    shared: Headers = {**headers, "content-type": kind, "transfer-encoding": "chunked"}
    return head(200, {**shared, "cache-control": "no-cache"} if stream else shared)


def _streamed(material: Material) -> Script:
    pace = material.pace
    return Script(
        200,
        _body_head(True, material.headers),
        chain(_comments(pace.first_s, material.comment_every_s), wire.events(material.answer)),
        chunked=True,
        first_s=pace.first_s,
        token_s=pace.token_s,
    )


def _comments(until_s: float, every_s: float) -> Iterator[Step]:
    if every_s <= 0:
        return
    yield Step(COMMENT)
    for _ in range(int(until_s / every_s)):
        yield Step(COMMENT, wait=every_s)


def _as_json(material: Material) -> Script:
    body = wire.completion(material.answer)
    script = whole(200, body, {**material.headers, "content-type": "application/json"})
    script.steps = [Step(body, material.answer.usage["completion_tokens"])]
    script.first_s, script.token_s = material.pace
    script.early_head = False
    return script


def _status(fault: faults.Status, headers: Headers) -> Script:
    if fault.body is None and fault.body_base64 is None:
        message = _MESSAGES.get(fault.status, f"Simulated status {fault.status}")
        return error_reply(fault.status, message, {**headers, **fault.headers})
    body = fault.body_base64 if fault.body is None else fault.body.encode()
    form = {"content-type": fault.content_type}
    return whole(fault.status, body or b"", {**headers, **form, **fault.headers})


def _raw(fault: faults.Raw) -> Script:
    steps = [Step(piece.data, wait=piece.delay) for piece in fault.pieces]
    endless = chain(steps, repeat(steps[-1])) if fault.repeat and steps else steps
    if fault.status is None:
        return Script(None, b"", endless, end=fault.end)
    headers = dict(fault.headers)
    if fault.framing == "chunked":
        headers["transfer-encoding"] = "chunked"
    elif fault.framing == "length":
        headers["content-length"] = str(sum(len(step.data) for step in steps))
    else:
        headers["connection"] = "close"
    end = "close" if fault.framing == "close" and fault.end == "clean" else fault.end
    start = head(fault.status, headers)
    return Script(fault.status, start, endless, chunked=fault.framing == "chunked", end=end)


def _slow_first_token(fault: faults.SlowFirstToken, material: Material) -> Script:
    material.pace = Pace(fault.seconds, material.pace.token_s)
    if not fault.comments:
        material.comment_every_s = 0.0
    script = healthy(material)
    script.early_head = True
    return script


def _drip_headers(fault: faults.DripHeaders, script: Script) -> Script:
    drops = [
        Step(script.head[i : i + 1], 0, fault.interval_s, True) for i in range(len(script.head))
    ]
    script.head, script.steps = b"", chain(drops, script.steps)
    return script


def _drip_body(fault: faults.DripBody, material: Material) -> Script:
    script = healthy(material)
    body = b"".join(step.data for step in script.steps)
    cuts = range(0, len(body), fault.size)
    script.steps = [Step(body[i : i + fault.size], wait=fault.interval_s) for i in cuts]
    script.early_head = True
    return script


def _content_length(fault: faults.ContentLength, material: Material) -> Script:
    script = healthy(material)
    body = b"".join(step.data for step in script.steps)
    kind = "text/event-stream" if material.stream else "application/json"
    claimed = str(max(0, len(body) + fault.by))
    headers: Headers = {**material.headers, "content-type": kind, "content-length": claimed}
    tokens = material.answer.usage["completion_tokens"]
    script.head, script.steps, script.chunked = head(200, headers), [Step(body, tokens)], False
    script.end = fault.end
    return script


def _endless(material: Material) -> Script:
    if material.stream:
        script = _streamed(material)
        tokens = [step for step in wire.events(material.answer) if step.tokens]
        script.steps = cycle(tokens)
        return script
    first, token_s = material.pace
    start = Step(b'{"id":"gen-endless","choices":[{"message":{"role":"assistant","content":"')
    steps = chain([start], repeat(Step(b"simulated ", 1)))
    return Script(200, _body_head(False, material.headers), steps, True, "clean", first, token_s)


def _spoilt_json(fault: faults.Fault, material: Material) -> Script:
    script = _as_json(material)
    body = wire.completion(material.answer)
    half = body[: len(body) // 2]
    match fault:
        case faults.Cut(how=how):
            script.head, script.chunked = _body_head(False, material.headers), True
            script.steps, script.end = [Step(half)], how
        case faults.Stall(seconds=seconds):
            script.steps, script.end = [Step(half), Step(b"", wait=seconds)], "close"
            script.early_head = True
        case faults.Malformed():
            return whole(200, half, {**material.headers, "content-type": "application/json"})
        case faults.ErrorEvent(event=event):
            error = event or {"error": _default_error()}
            text = error.encode() if isinstance(error, str) else msgspec.json.encode(error)
            return whole(200, text, {**material.headers, "content-type": "application/json"})
        case faults.BadChunk(how=how):
            script.head, script.chunked = _body_head(False, material.headers), True
            bad = [Step(b"ZZ\r\n", raw=True)] if how == "size" else []
            script.steps, script.end = [Step(half if bad else body), *bad], "close"
        case _:
            pass
    return script


def _spoilt_stream(fault: faults.Fault, material: Material) -> Script:
    script = _streamed(material)
    steps = list(script.steps)
    match fault:
        case faults.Cut(after_tokens=count, how=how):
            script.steps, script.end = _before_token(steps, count), how
        case faults.Stall(after_tokens=count, seconds=seconds):
            script.steps = [*_before_token(steps, count), Step(b"", wait=seconds)]
            script.end = "close"
        case faults.Malformed(at_token=count, data=data, replace=replaced):
            begun = _before_token(steps, count)
            rest = steps[len(begun) + replaced :]
            script.steps = [*begun, Step(b"data: " + data.encode() + b"\n\n"), *rest]
        case faults.NoDone():
            script.steps = steps[:-1]
        case faults.ErrorEvent():
            script.steps = _before_token(steps, fault.at_token) + _error_steps(fault, material)
        case faults.BadChunk(after_tokens=count, how="size"):
            script.steps = [*_before_token(steps, count), Step(b"ZZ\r\n", raw=True)]
            script.end = "close"
        case faults.BadChunk():
            script.steps, script.end = steps, "close"
        case _:
            script.steps = steps
    return script


def _before_token(steps: list[Step], count: int) -> list[Step]:
    """The steps before token `count` (from 0); all tokens where there are fewer."""
    places = [place for place, step in enumerate(steps) if step.tokens]
    end = places[count] if count < len(places) else places[-1] + 1 if places else 0
    return steps[:end]


def _error_steps(fault: faults.ErrorEvent, material: Material) -> list[Step]:
    event = fault.event
    if event is None:
        data = wire.error_event(material.answer, _default_error())
    elif isinstance(event, str):
        data = event.encode()
    else:
        data = b"data: " + msgspec.json.encode(event) + b"\n\n"
    before = [Step(wire.role_event(material.answer))] if fault.role_first else []
    return [*before, Step(data), *([Step(DONE)] if fault.done else [])]


def _default_error() -> dict[str, Any]:
    metadata = {"error_type": "provider_unavailable", "provider_name": "Sandbox"}
    return {"code": 502, "message": "Provider disconnected unexpectedly", "metadata": metadata}
