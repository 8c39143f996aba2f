"""The hot routes: chat completions on /v1 and /route, from bytes to bytes.

Written against `Responder`, so that whatever carries the bytes can be exchanged.
"""

import itertools
import re
import secrets
import time
from collections.abc import Mapping

import msgspec

from llmr.core.body import Body
from llmr.errors import ApiError
from llmr.gateway import Gateway
from llmr.native import native
from llmr.server.responder import Headers, Responder
from llmr.ticket import Ticket

HOT = {"/v1/chat/completions": "v1", "/route": "route"}
JSON = (b"content-type", b"application/json")
SSE = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_ID = re.compile(r"[\w.:-]{1,128}\Z", re.ASCII)
_boot = secrets.token_hex(5)
_count = itertools.count(1)
_encode = msgspec.json.encode


def request_id(given: str | None) -> str:
    """The caller's request id where it is a sane one, else a new one."""
    if given is not None and _ID.match(given):
        return given
    return f"req-{_boot}-{next(_count):x}"


class HttpSink:
    """Gives an answer to a `Responder`, with the headers of CONTRACT §4.2."""

    __slots__ = ("_id", "_native", "_responder", "_wall")

    def __init__(self, responder: Responder, request: str, native: bool, wall: float) -> None:
        self._responder = responder
        self._id = request
        self._native = native
        self._wall = wall

    async def begin(self, ticket: Ticket) -> None:
        await self._responder.start(200, [*SSE, *described(ticket, self._id)])

    async def write(self, data: bytes) -> None:
        await self._responder.write(data)

    async def whole(self, ticket: Ticket, completion: bytes) -> None:
        body = native(ticket, completion, self._wall) if self._native else completion
        length = (b"content-length", b"%d" % len(body))
        await self._responder.start(200, [JSON, length, *described(ticket, self._id)])
        await self._responder.end(body)


async def handle(
    gateway: Gateway,
    surface: str,
    tenant: bytes,
    headers: Mapping[str, str],
    body: bytes,
    responder: Responder,
    received: float,
) -> None:
    """Answer one request; every error before the answer begins becomes an error object."""
    name = request_id(headers.get("x-request-id"))
    ticket = Ticket(surface, tenant, received)
    sink = HttpSink(responder, name, surface == "route", time.time())
    try:
        await gateway.answer(Body(body), headers, ticket, sink)
        if responder.started and ticket.decision is not None and ticket.decision.request.stream:
            await responder.end()
    except ApiError as error:
        if responder.started:
            raise
        await refuse(responder, error, name, ticket)


async def refuse(
    responder: Responder,
    error: ApiError,
    name: str,
    ticket: Ticket | None = None,
    *,
    close: bool = False,
) -> None:
    """Answer with an error object; `close` says that the connection is not used again."""
    headers, body = error_answer(error, name, ticket)
    if close:
        headers.append((b"connection", b"close"))
    await responder.start(error.status, headers)
    await responder.end(body)


def error_answer(error: ApiError, name: str, ticket: Ticket | None = None) -> tuple[Headers, bytes]:
    """The header fields and the body that tell an error."""
    body = _encode(error.body())
    headers: Headers = [
        JSON,
        (b"content-length", b"%d" % len(body)),
        (b"x-should-retry", b"true" if error.retryable else b"false"),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s + 0.499))))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if ticket is not None:
        headers += described(ticket, name)
    else:
        headers.append((b"x-request-id", name.encode()))
    return headers, body


def described(ticket: Ticket, name: str) -> Headers:
    """The headers that say what the router did."""
    headers: Headers = [(b"x-request-id", name.encode()), (b"x-llmr-cache", ticket.cache.encode())]
    if ticket.decision_id is not None:
        headers.append((b"x-llmr-decision-id", ticket.decision_id.encode()))
    if ticket.model is not None:
        headers.append((b"x-llmr-model", ticket.model.id.encode("utf-8", "replace")))
    own = ticket.outcome is not None and ticket.cache not in ("hit", "joined")
    attempts = len(ticket.outcome.attempts) if own and ticket.outcome is not None else 0
    headers.append((b"x-llmr-attempts", b"%d" % attempts))
    if ticket.cost_usd is not None:
        headers.append((b"x-llmr-cost-usd", format(ticket.cost_usd, "f").encode()))
    if ticket.cache_age_s is not None:
        headers.append((b"age", b"%d" % ticket.cache_age_s))
    headers.append((b"server-timing", timing(ticket)))
    return headers


def timing(ticket: Ticket) -> bytes:
    """`Server-Timing`: the router's phases in milliseconds; they add up to `total`."""
    now = time.monotonic()
    decided = ticket.decided or now
    sent = ticket.sent or now
    parts = [("decide", decided - ticket.received), ("prepare", sent - decided)]
    if ticket.sent is not None:
        parts.append(("upstream", now - sent))
    parts.append(("total", now - ticket.received))
    return ", ".join(f"{word};dur={seconds * 1000:.3f}" for word, seconds in parts).encode()
