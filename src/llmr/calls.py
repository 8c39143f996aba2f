"""From a request to a call the executor can carry out."""

from typing import Any

from llmr.core.body import Body
from llmr.core.decide import Decision
from llmr.core.request import REMOVED
from llmr.execution.sending import with_usage
from llmr.execution.types import HEADERS, Call


def call_for(
    body: Body,
    decision: Decision,
    deadline: float,
    *,
    keep: bool,
    headers: tuple[tuple[bytes, bytes], ...] = HEADERS,
) -> Call:
    """The call that answers `decision`; it ends by `deadline`, on the loop's clock.

    `keep`: the answer is assembled whole even where it is streamed. `headers` go with each attempt.
    """
    asks = include_usage(body)
    stream = decision.request.stream
    asking = None
    if stream and not asks:
        asking = body.splice(REMOVED, {"model": None, "stream_options": with_usage(body)})
    return Call(
        decision,
        body.data,
        body.splice(REMOVED, {"model": None}),
        asking,
        stream,
        asks,
        deadline,
        keep,
        headers,
    )


def include_usage(body: Body) -> bool:
    if "stream_options" not in body.fields:
        return False
    options = body.get("stream_options", dict[str, Any], "an object")
    return bool(options and options.get("include_usage"))
