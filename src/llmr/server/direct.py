"""A hot request on its connection: taken off it and answered onto it without ASGI between.

uvicorn keeps one cycle per request; a `Cycle` stands in that place for the hot routes, so that
pipelining, keep-alive and shutdown go on working as they do for every other route.
"""

import asyncio
import time
from typing import Any, ClassVar, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from llmr.errors import ApiError
from llmr.server.calls import Calls
from llmr.server.fields import fields, must_be_json, wishes
from llmr.server.hot import HotCall, refuse, request_id
from llmr.server.responder import too_large
from llmr.server.serving import Serving

JOIN_LIMIT = 64 * 1024  # head and body go out in one piece up to this size
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

    transport: Any
    crowded: bool
    known: "Known | None"

    @property
    def application(self) -> Application: ...

    @property
    def unread(self) -> bool:
        """Whether the body of the request is still on its way."""

    def date(self) -> bytes:
        """The header lines that every answer has."""

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


class Cycle:
    """One hot request. Implements `Responder`, and what uvicorn asks of a cycle."""

    __slots__ = (
        "_call",
        "_connection",
        "_error",
        "_length",
        "_path",
        "_pieces",
        "_raw",
        "_received",
        "_size",
        "_slow",
        "_surface",
        "_turn",
        "_whole",
        "disconnected",
        "keep_alive",
        "response_complete",
        "started",
    )

    message_event: ClassVar[asyncio.Event] = asyncio.Event()  # uvicorn sets it; nobody waits

    def __init__(
        self,
        connection: Connection,
        path: str,
        surface: str,
        raw: RawHeaders,
        length: int,
        keep_alive: bool,
    ) -> None:
        """`length` is what the head says of the body, 0 where it says nothing."""
        self._connection = connection
        self._path = path
        self._surface = surface
        self._raw = raw
        self._length = length
        self._pieces: list[bytes] = []
        self._size = 0
        self._received = 0.0
        self._call: HotCall | None = None
        self._turn = False
        self._whole = False
        self._slow = False  # the body did not come with the head
        self._error: ApiError | None = None  # what it is refused for
        self.keep_alive = keep_alive
        self.started = False
        self.response_complete = False
        self.disconnected = False

    async def run_asgi(self, app: Any) -> None:
        """Its turn has come, behind other requests of the connection."""
        self.open()
        self.go_on()

    def open(self) -> None:
        """Its turn has come; what the head alone tells is judged before the body is here."""
        self._turn = True
        self._received = time.monotonic()
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
            self._answer()

    def _judge(self) -> None:
        connection = self._connection
        serving, known = connection.application.serving, connection.known
        try:
            if known is None or known.serving is not serving or known.raw != self._raw:
                connection.known = Known(self._raw, serving, self._path)
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

    def _answer(self) -> None:
        known, pieces = self._connection.known, self._pieces
        assert known is not None
        self._pieces = []
        name = request_id(known.name)
        calls = self._connection.application.calls
        call = self._call = HotCall(calls, known.serving, self._surface, name, self)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        call.answer(body, known.wishes, known.tenant, self._received)

    def _refuse(self, error: ApiError) -> None:
        named = [value.decode("latin-1") for name, value in self._raw if name == b"x-request-id"]
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
                connection.transport.write(head + body)
            else:
                connection.transport.writelines((head, body))
        self._complete()

    def start(self, fields: bytes) -> None:
        self.started = True
        connection = self._connection
        last = (
            b"transfer-encoding: chunked\r\n"
            if self.keep_alive
            else b"%btransfer-encoding: chunked\r\n" % CLOSE
        )
        if not self.disconnected:
            head = (STATUS_LINE[200], connection.date(), fields, last)
            connection.transport.write(b"%b%b%b%b\r\n" % head)

    def write(self, data: bytes) -> None:
        if data and not self.disconnected:
            self._connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        if not self.disconnected:
            self._connection.transport.write(b"0\r\n\r\n")
        self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self._call = None
        if not self.disconnected:
            # While its body is on the way the connection stays, or the answer would be lost.
            if not self.keep_alive and not self._connection.unread:
                self._connection.transport.close()
            self._connection.on_response_complete()


def closes(error: ApiError, connection: Connection | None) -> bool:
    """Whether a refusal ends the connection. With a body on its way, the protocol sees to that."""
    if connection is not None and connection.unread:
        return False
    if error.code == "overloaded":
        return connection is not None and connection.crowded
    return error.code in CLOSING
