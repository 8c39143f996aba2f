"""The hot routes: chat completions on /v1 and /route, from bytes to bytes, by plain calls.

Written against `Responder`, so that whatever carries the bytes can be exchanged.
"""

import itertools
import re
import secrets
import time
from collections.abc import Mapping

import msgspec
from msgspec import Struct

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
_UNSAFE = re.compile(r"[^\x20-\x7e]")
SHARED = frozenset(("hit", "joined"))  # answers that others paid for
_boot = secrets.token_hex(5)
_count = itertools.count(1)
_encode = msgspec.json.encode


def request_id(given: str | None) -> str:
    """The caller's request id where it is a sane one, else a new one."""
    if given is not None and _ID.match(given):
        return given
    return f"req-{_boot}-{next(_count):x}"


class HotCall(Struct, eq=False):
    """One request of a hot route, and the sink of its answer, with the headers that say how.

    `name` is the request's id.
    """

    _calls: Calls
    _serving: Serving
    _surface: str
    _name: str
    _responder: Responder
    _answering: Answering | None = None
    _wall: float = 0.0
    _streams: bool = False
    _over: bool = False

    def answer(
        self, body: bytes, headers: Mapping[str, str], tenant: bytes, received: float
    ) -> None:
        """Answer it, now or later. `headers`: those with wishes."""
        gateway = self._serving.enter()
        self._calls.begun(self)
        ticket = Ticket(self._surface, tenant, received, time.monotonic())
        if self._surface == "route":
            self._wall = time.time()
        answering = self._answering = Answering(gateway, ticket, self, self._responder.write)
        answering.start(body, headers)

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
    outcome, cache, kept = ticket.outcome, ticket.cache, ticket.kept
    own = outcome is not None and cache not in SHARED
    attempts = len(outcome.attempts) if own and outcome is not None else 0
    decision = f"x-llmr-decision-id: {kept.id}\r\n" if kept is not None else ""
    cost, age, model = ticket.cost_usd, ticket.cache_age_s, ticket.model
    price = f"x-llmr-cost-usd: {cost:f}\r\n" if cost is not None else ""
    since = f"age: {int(age)}\r\n" if age is not None else ""
    answered = f"x-llmr-model: {_value(model.id)}\r\n" if model is not None else ""
    return (
        f"x-request-id: {name}\r\nx-llmr-cache: {cache}\r\n{decision}"
        f"x-llmr-attempts: {attempts}\r\n{price}{since}{answered}"
        f"server-timing: {timing(ticket)}\r\n"
    ).encode("ascii")


def _value(text: str) -> str:
    """A text as the value of a header field: nothing in it can end the line."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub("?", text.encode().decode("latin-1"))


def timing(ticket: Ticket) -> str:
    """`Server-Timing`: the router's phases in milliseconds; they add up to `total`."""
    now, taken = time.monotonic(), ticket.taken
    wait, total = taken - ticket.received, now - ticket.received
    decided = ticket.decided or now
    text = f"wait;dur={wait * 1e3:.3f}, decide;dur={(decided - taken) * 1e3:.3f}, "
    if (sent := ticket.sent) is None:
        return f"{text}prepare;dur={(now - decided) * 1e3:.3f}, total;dur={total * 1e3:.3f}"
    return (
        f"{text}prepare;dur={(sent - decided) * 1e3:.3f}, "
        f"upstream;dur={(now - sent) * 1e3:.3f}, total;dur={total * 1e3:.3f}"
    )
