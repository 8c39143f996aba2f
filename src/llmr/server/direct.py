"""A hot request on its connection: taken off it and answered onto it without ASGI between.

uvicorn keeps one cycle per request; a `Cycle` stands in that place for the hot routes, so that
pipelining, keep-alive and shutdown go on working as they do for every other route.
"""

import asyncio
from typing import Any, ClassVar, Protocol

from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from llmr.errors import ApiError
from llmr.server.calls import Calls
from llmr.server.fields import fields, must_be_json, wishes
from llmr.server.hot import HotCall, refuse, request_id
from llmr.server.responder import too_large
from llmr.server.serving import Serving

JOIN_LIMIT = 64 * 1024  # head and body go out in one piece up to this size
HEADS_KEPT = 256
CHUNKED = b"transfer-encoding: chunked\r\n"
CLOSE = b"connection: close\r\n"
CLOSING = ("draining", "invalid_http", "doubled_header")

RawHeaders = list[tuple[bytes, bytes]]


class Application(Protocol):
    """What is served."""

    calls: Calls
    serving: Serving


class Connection(Protocol):
    """The connection a request came on."""

    crowded: bool
    known: "Known | None"

    @property
    def application(self) -> Application: ...

    @property
    def unread(self) -> bool:
        """Whether the body of the request is still on its way."""

    def date(self) -> bytes:
        """The header lines that every answer has."""

    def turn(self) -> float:
        """Since when what has been read was there, as far as can be told; monotonic."""

    def send(self, data: bytes) -> None:
        """Write, in the order of the calls."""

    def finish(self) -> None:
        """Close it behind what was written."""

    def on_response_complete(self) -> None:
        """An answer is written whole."""


class Known:
    """What a head said. Callers repeat themselves: the next one need only be compared."""

    __slots__ = ("name", "raw", "serving", "tenant", "wishes")

    def __init__(self, raw: RawHeaders, serving: Serving, path: str) -> None:
        """Raises what the head alone is refused for. `raw` is without the length of the body."""
        self.raw = raw
        self.serving = serving
        headers = fields(raw)
        self.tenant = serving.access.tenant(path, headers)
        must_be_json(headers)
        self.name = headers.get("x-request-id")
        self.wishes = wishes(headers)


def _known(raw: RawHeaders, serving: Serving, path: str) -> Known:
    """What this head says. Connections whose callers say the same share it."""
    key = (path, *raw)
    found: Known | None = serving.heads.get(key)
    if found is None:
        found = Known(raw, serving, path)
        if len(serving.heads) >= HEADS_KEPT:
            serving.heads.clear()
        serving.heads[key] = found
    return found


class Cycle(Struct, eq=False):
    """One hot request. Implements `Responder`, and what uvicorn asks of a cycle.

    `_length` is what the head says of the body, 0 where it says nothing.
    """

    message_event: ClassVar[asyncio.Event] = asyncio.Event()  # uvicorn sets it; nobody waits

    _connection: Connection
    _path: str
    _surface: str
    raw: RawHeaders
    _length: int
    keep_alive: bool
    _pieces: list[bytes] = []
    _size: int = 0
    _received: float = 0.0
    _call: HotCall | None = None
    _turn: bool = False
    _whole: bool = False
    _slow: bool = False  # the body did not come with the head
    _error: ApiError | None = None  # what it is refused for
    started: bool = False
    response_complete: bool = False
    disconnected: bool = False

    def at_once(self, body: bytes) -> None:
        """Head and body are here, and its turn has come."""
        self._received = self._connection.turn()
        self._judge()
        if self._error is None and len(body) > self._connection.application.serving.body_limit:
            self._error = too_large(self._connection.application.serving.body_limit)
        if self._error is not None:
            self._refuse(self._error)
        else:
            self._answer(body)

    async def run_asgi(self, app: Any) -> None:
        """Its turn has come, behind other requests of the connection."""
        self.open()
        self.go_on()

    def open(self) -> None:
        """Its turn has come; what the head alone tells is judged before the body is here."""
        self._turn = True
        self._received = self._connection.turn()
        self._judge()

    def take(self, body: bytes) -> None:
        """Some of the body."""
        self._pieces.append(body)
        self._size += len(body)

    def complete(self) -> None:
        """The body is whole."""
        self._whole = True

    def go_on(self) -> None:
        """What has been read is understood: answer it, or refuse it, if that can be done."""
        if not self._turn or self._call is not None or self.response_complete or self.disconnected:
            return
        limit = self._connection.application.serving.body_limit
        if self._size > limit or self._length > limit:
            self._error = self._error or too_large(limit)
        if not self._whole:
            self._slow = True
        elif self._slow and self._error is None:
            self._judge()  # much may have changed since the head
        if self._error is not None:
            self._refuse(self._error)
        elif self._whole:
            pieces, self._pieces = self._pieces, []
            self._answer(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _judge(self) -> None:
        connection = self._connection
        serving, known = connection.application.serving, connection.known
        try:
            if known is None or known.serving is not serving or known.raw != self.raw:
                known = connection.known = _known(self.raw, serving, self._path)
            self.raw = known.raw
            connection.application.calls.admit(connection.crowded)
        except ApiError as error:
            self._error = error

    def gone(self) -> None:
        """Nobody is there any more."""
        self.disconnected = True
        call, self._call = self._call, None
        if call is not None:
            call.leave()

    def pause(self) -> None:
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        if self._call is not None:
            self._call.resume()

    def _answer(self, body: bytes) -> None:
        known = self._connection.known
        assert known is not None
        calls = self._connection.application.calls
        call = self._call = HotCall(
            calls, known.serving, self._surface, request_id(known.name), self
        )
        call.answer(body, known.wishes, known.tenant, self._received)

    def _refuse(self, error: ApiError) -> None:
        named = [value.decode("latin-1") for name, value in self.raw if name == b"x-request-id"]
        given = named[-1] if named else None
        refuse(self, error, request_id(given), close=closes(error, self._connection))

    # --- Responder ---

    def whole(self, status: int, fields: bytes, body: bytes) -> None:
        self.started = True
        if status >= 400 and CLOSE in fields:
            self.keep_alive = False
        elif not self.keep_alive:
            fields += CLOSE
        if not self.disconnected:
            connection = self._connection
            head = b"%b%b%b\r\n" % (STATUS_LINE[status], connection.date(), fields)
            if len(body) <= JOIN_LIMIT:
                connection.send(head + body)
            else:
                connection.send(head)
                connection.send(body)
        self._complete()

    def start(self, fields: bytes) -> None:
        self.started = True
        last = CHUNKED if self.keep_alive else CLOSE + CHUNKED
        if not self.disconnected:
            date = self._connection.date()
            self._connection.send(b"%b%b%b%b\r\n" % (STATUS_LINE[200], date, fields, last))

    def write(self, data: bytes) -> None:
        if data and not self.disconnected:
            self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        if not self.disconnected:
            self._connection.send(b"0\r\n\r\n")
        self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self._call = None
        if not self.disconnected:
            # While its body is on the way the connection stays, or the answer would be lost.
            if not self.keep_alive and not self._connection.unread:
                self._connection.finish()
            self._connection.on_response_complete()


def closes(error: ApiError, connection: Connection | None) -> bool:
    """Whether a refusal ends the connection. With a body on its way, the protocol sees to that."""
    if connection is not None and connection.unread:
        return False
    if error.code == "overloaded":
        return connection is not None and connection.crowded
    return error.code in CLOSING
