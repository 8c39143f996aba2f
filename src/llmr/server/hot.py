"""The hot routes: chat completions on /v1 and /route, from bytes to bytes, by plain calls.

Written against `Responder`, so that whatever carries the bytes can be exchanged.
"""

import itertools
import re
import secrets
import time
from collections.abc import Mapping

import msgspec

from llmr.answering import Answering
from llmr.errors import ApiError, error_event
from llmr.native import native
from llmr.server.calls import Calls
from llmr.server.responder import Responder
from llmr.server.serving import Serving
from llmr.ticket import Ticket

HOT = {"/v1/chat/completions": "v1", "/route": "route"}
SSE = (
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"
)
_ID = re.compile(r"[\w.:-]{1,128}\Z", re.ASCII)
_UNSAFE = re.compile(rb"[^\x20-\x7e]")
_boot = secrets.token_hex(5)
_count = itertools.count(1)
_encode = msgspec.json.encode


def request_id(given: str | None) -> str:
    """The caller's request id where it is a sane one, else a new one."""
    if given is not None and _ID.match(given):
        return given
    return f"req-{_boot}-{next(_count):x}"


class HotCall:
    """One request of a hot route, and the sink of its answer, with the headers of CONTRACT §4.2."""

    __slots__ = (
        "_answering",
        "_calls",
        "_name",
        "_over",
        "_responder",
        "_serving",
        "_streams",
        "_surface",
        "_wall",
    )

    def __init__(
        self, calls: Calls, serving: Serving, surface: str, name: str, responder: Responder
    ) -> None:
        """`name` is the request's id."""
        self._calls = calls
        self._serving = serving
        self._surface = surface
        self._name = name
        self._responder = responder
        self._answering: Answering | None = None
        self._wall = 0.0
        self._streams = False
        self._over = False

    def answer(
        self, body: bytes, headers: Mapping[str, str], tenant: bytes, received: float
    ) -> None:
        """Answer it, now or later. `headers`: those with wishes."""
        gateway = self._serving.enter()
        self._calls.begun(self)
        ticket = Ticket(self._surface, tenant, received)
        if self._surface == "route":
            self._wall = time.time()
        self._answering = Answering(gateway, ticket, self)
        self._answering.start(body, headers)

    # --- for the surface ---

    def pause(self) -> None:
        """The caller is behind."""
        if self._answering is not None:
            self._answering.pause()

    def resume(self) -> None:
        """The caller has caught up."""
        if self._answering is not None:
            self._answering.resume()

    def leave(self) -> None:
        """The caller has gone."""
        if not self._over:
            if self._answering is not None:
                self._answering.cancel()
            self._done()

    def stop(self, error: ApiError) -> None:
        """The server ends it, in-band where its stream has begun."""
        if self._over:
            return
        if self._answering is not None:
            self._answering.cancel(error)
        if not self._responder.started:
            refuse(self._responder, error, self._name, close=True)
        elif self._streams:
            self._responder.write(error_event(error))
            self._responder.end()
        self._done()

    # --- AnswerSink ---

    def begin(self, ticket: Ticket) -> None:
        self._streams = True
        self._responder.start(SSE + described(ticket, self._name))

    def write(self, data: bytes) -> None:
        self._responder.write(data)

    def whole(self, ticket: Ticket, completion: bytes) -> None:
        body = completion
        if self._surface == "route":
            body = native(ticket, completion, self._wall)
        fields = b"content-type: application/json\r\ncontent-length: %d\r\n%b" % (
            len(body),
            described(ticket, self._name),
        )
        self._responder.whole(200, fields, body)

    def end(self, ticket: Ticket, error: ApiError | None) -> None:
        if error is not None:
            if not self._responder.started:
                refuse(self._responder, error, self._name, ticket)
        elif self._streams:
            self._responder.end()
        self._done()

    def _done(self) -> None:
        self._over = True
        self._answering = None
        self._calls.over(self)
        self._serving.leave()


def refuse(
    responder: Responder,
    error: ApiError,
    name: str,
    ticket: Ticket | None = None,
    *,
    close: bool = False,
) -> None:
    """Answer with an error object; `close` says that the connection is not used again."""
    fields, body = error_answer(error, name, ticket)
    if close:
        fields += b"connection: close\r\n"
    responder.whole(error.status, fields, body)


def error_answer(error: ApiError, name: str, ticket: Ticket | None = None) -> tuple[bytes, bytes]:
    """The header lines and the body that tell an error."""
    body = _encode(error.body())
    fields = b"content-type: application/json\r\ncontent-length: %d\r\nx-should-retry: %b\r\n" % (
        len(body),
        b"true" if error.retryable else b"false",
    )
    if error.retry_after_s is not None:
        fields += b"retry-after: %d\r\n" % max(1, round(error.retry_after_s + 0.499))
    if error.status == 401:
        fields += b"www-authenticate: Bearer\r\n"
    if ticket is not None:
        return fields + described(ticket, name), body
    return fields + b"x-request-id: %b\r\n" % name.encode(), body


def described(ticket: Ticket, name: str) -> bytes:
    """The header lines that say what the router did."""
    own = ticket.outcome is not None and ticket.cache not in ("hit", "joined")
    attempts = len(ticket.outcome.attempts) if own and ticket.outcome is not None else 0
    lines = f"x-request-id: {name}\r\nx-llmr-cache: {ticket.cache}\r\n"
    if ticket.decision_id is not None:
        lines += f"x-llmr-decision-id: {ticket.decision_id}\r\n"
    lines += f"x-llmr-attempts: {attempts}\r\n"
    if ticket.cost_usd is not None:
        lines += f"x-llmr-cost-usd: {ticket.cost_usd:f}\r\n"
    if ticket.cache_age_s is not None:
        lines += f"age: {int(ticket.cache_age_s)}\r\n"
    out = lines.encode()
    if ticket.model is not None:
        out += b"x-llmr-model: %b\r\n" % _value(ticket.model.id)
    return out + b"server-timing: %b\r\n" % timing(ticket)


def _value(text: str) -> bytes:
    """A text as the value of a header field: nothing in it can end the line."""
    return _UNSAFE.sub(b"?", text.encode())


def timing(ticket: Ticket) -> bytes:
    """`Server-Timing`: the router's phases in milliseconds; they add up to `total`."""
    now = time.monotonic()
    begun = ticket.received
    decided = ticket.decided or now
    sent = ticket.sent or now
    if ticket.sent is None:
        text = b"decide;dur=%.3f, prepare;dur=%.3f, total;dur=%.3f"
        return text % ((decided - begun) * 1e3, (sent - decided) * 1e3, (now - begun) * 1e3)
    return b"decide;dur=%.3f, prepare;dur=%.3f, upstream;dur=%.3f, total;dur=%.3f" % (
        (decided - begun) * 1e3,
        (sent - decided) * 1e3,
        (now - sent) * 1e3,
        (now - begun) * 1e3,
    )
