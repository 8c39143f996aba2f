"""From a request to a call the executor can carry out, and the caller's own deadline on it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from llmr.core.body import Body
from llmr.core.decide import Decision
from llmr.core.request import REMOVED
from llmr.errors import ApiError
from llmr.execution.failures import error_event
from llmr.execution.types import Call, Outcome
from llmr.ticket import AnswerSink, Ticket


def call_for(
    body: Body, decision: Decision, *, total_s: float, deadline_ms: float | None, keep: bool
) -> Call:
    """The call that answers `decision`; it ends within both bounds.

    `keep`: the answer is assembled whole even where it is streamed.
    """
    asks = include_usage(body)
    stream = decision.request.stream
    asking = None
    if stream and not asks:
        asking = body.splice(REMOVED, {"model": None, "stream_options": _with_usage(body)})
    seconds = total_s if deadline_ms is None else min(total_s, deadline_ms / 1000.0)
    return Call(
        decision,
        body,
        body.splice(REMOVED, {"model": None}),
        asking,
        stream,
        asks,
        asyncio.get_running_loop().time() + seconds,
        keep,
    )


class Direct:
    """The executor's sink where nobody else waits: straight to the caller."""

    __slots__ = ("sink", "ticket", "write")

    def __init__(self, ticket: Ticket, sink: AnswerSink) -> None:
        self.ticket = ticket
        self.sink = sink
        self.write = sink.write

    async def begin(self, outcome: Outcome) -> None:
        self.ticket.outcome, self.ticket.model = outcome, outcome.model
        await self.sink.begin(self.ticket)


async def within(
    seconds: float, serving: Coroutine[Any, Any, None], ticket: Ticket, sink: AnswerSink
) -> None:
    """Wait for an answer as long as the caller wants to; what began ends with an error event."""
    try:
        async with asyncio.timeout(seconds):
            await serving
    except TimeoutError:
        text = f"The answer did not come within the deadline of {seconds * 1000:g} ms."
        error = ApiError(504, "deadline_exceeded", text, retryable=True)
        if ticket.outcome is None or not ticket.outcome.committed:
            raise error from None
        await sink.write(error_event(error))


def include_usage(body: Body) -> bool:
    if "stream_options" not in body.fields:
        return False
    options = body.get("stream_options", dict[str, Any], "an object")
    return bool(options and options.get("include_usage"))


def _with_usage(body: Body) -> bytes:
    """The caller's stream options with the usage chunk the router needs for its accounts."""
    options = body.get("stream_options", dict[str, Any], "an object") or {}
    return msgspec.json.encode({**options, "include_usage": True})
