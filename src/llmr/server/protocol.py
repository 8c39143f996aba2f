"""uvicorn's HTTP/1.1 protocol with the limits it lacks.

Heads are bounded in bytes, fields and time, bodies in time, and a caller who stops reading is cut
off. What a caller must not do is answered here with the error object and never reaches the
application. Timers exist only while something is late: a request that comes in one piece has none.
"""

import asyncio
import typing
from typing import Any, Final

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from llmr.errors import ApiError
from llmr.server.direct import Application, Cycle, Known
from llmr.server.flow import Behind, Flow
from llmr.server.hot import HOT, error_answer, request_id
from llmr.server.repeated import Repeated, repeated

HEAD_BYTES: Final = 64 * 1024
HEAD_FIELDS: Final = 200
BODY_BYTES_PER_S: Final = 16 * 1024  # a body that comes at this rate is not late
FRAMING: Final = 16  # bytes of framing a byte of a chunked body may cost
LINGER_S: Final = 2.0  # a closing connection is read on, or its answer would be lost in a reset
SPARE: Final = 8  # descriptors kept free
CROWDED_S: Final = 1.0  # for a head, where descriptors are short

IDLE, HEAD, BODY = range(3)
HOT_URLS: Final = {path.encode(): (path, surface) for path, surface in HOT.items()}


class Wire(msgspec.Struct):
    """Seconds a caller may take: for a head, for a body beyond its rate, to read on.

    `descriptors` is how many the process may have open. Shared by every connection, and changed in
    place when the configuration is read again.
    """

    head_s: float = 10.0
    body_s: float = 30.0
    write_s: float = 45.0
    descriptors: int = 1 << 30
    dated: Any = None  # the fields of every answer, and the same as lines
    date: bytes = b""


class Served(Application, typing.Protocol):
    """What is served, and how long its callers may take."""

    wire: Wire


class Protocol(HttpToolsProtocol):
    """One connection of a caller."""

    # Beside the attributes of uvicorn: one dictionary for all of them would take a kilobyte more.
    __slots__ = (
        "_again",
        "_chunk",
        "_got",
        "_held",
        "_late",
        "_lingering",
        "_outbox",
        "_part",
        "_read",
        "_refusal",
        "_resting",
        "_served",
        "_since",
        "_size",
        "_stalled",
        "_unsent",
        "_wire",
        "application",
        "crowded",
        "known",
        "url",
    )

    def __init__(
        self,
        application: Served,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.pipeline = Behind()  # type: ignore[assignment]
        self.application = application
        self.known: Known | None = None
        self._outbox = application.calls.outbox
        self._again: Repeated | None = None  # the head of the hot request before
        self._read = b""  # what is being parsed, up to the first head in it, if it begins with one
        self._resting: float | None = None  # since when it has waited for a request
        self._served: Any = None  # the cycle that is answered now, or was last; one of either kind
        self._wire = application.wire
        self._part = IDLE
        self._chunk = self._size = self._held = self._got = 0
        self._since = 0.0
        self._refusal: ApiError | None = None
        self._lingering = False
        self._late: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._stalled: asyncio.TimerHandle | None = None
        self.crowded = False

    @property
    def unread(self) -> bool:
        """Whether the body of the request is still on its way."""
        return self._part == BODY

    def date(self) -> bytes:
        """The header lines that every answer has."""
        fields, wire = self.server_state.default_headers, self._wire
        if fields is not wire.dated:
            wire.dated = fields
            wire.date = b"".join(b"%b: %b\r\n" % field for field in fields)
        return wire.date

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        # The number of a new descriptor is the lowest that was free. Every caller may need one
        # more, for an upstream.
        number = transport.get_extra_info("socket").fileno()
        full = number + len(self.connections) + SPARE > self._wire.descriptors
        self.crowded = full and not self._make_room()
        self._rest()

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; False where every one is in use."""
        idle = [
            (one._resting, one)
            for one in self.connections
            if isinstance(one, Protocol) and one._resting is not None
        ]
        if not idle:
            return False
        min(idle, key=lambda pair: pair[0])[1].close()
        return True

    def turn(self) -> float:
        """Since when what has been read was there, as far as can be told; monotonic."""
        return self._outbox.turn()

    def send(self, data: bytes) -> None:
        """Write, in the order of the calls."""
        self._outbox.write(self.transport, data)

    def finish(self) -> None:
        """Close it behind what was written."""
        self._outbox.flush()
        self.transport.close()

    def shutdown(self) -> None:
        self._outbox.flush()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear()
        self._resting = None
        for timer in (self._stalled, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        for cycle, _ in self.pipeline:
            cycle.disconnected = True
        self.pipeline.clear()
        super().connection_lost(exc)
        self._leave()
        self._served = self.cycle = None  # type: ignore[assignment]

    def _leave(self) -> None:
        """Tell whoever answers now that nobody listens."""
        cycle = self._served
        if not self._answering():
            return
        if type(cycle) is Cycle:
            cycle.gone()
        else:
            cycle.disconnected = True
            cycle.message_event.set()

    def close(self) -> None:
        """Close a connection that rests."""
        self._outbox.flush()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # an answer nobody reads would hold the connection for ever
        elif not self.transport.is_closing():
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._resting is None:
            return
        left = self._resting + self._patience_s - self.loop.time()
        if left <= 0.0:
            self.close()
        else:
            self._look_again(left)

    @property
    def _patience_s(self) -> float:
        return CROWDED_S if self.crowded else self.timeout_keep_alive

    def _rest(self) -> None:
        """Wait for a request no longer than between two requests.

        The timer is left where it is while requests come and go, and looks when it fires.
        """
        self._resting = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again(self._patience_s)

    def _look_again(self, seconds: float) -> None:
        watch, now = self.application.calls.watch, self.loop.time()
        task: Any = watch.within(seconds, now, self.timeout_keep_alive_handler)
        self.timeout_keep_alive_task = task

    def _unset_keepalive_if_required(self) -> None:
        self._resting = None

    # --- reading ---

    def data_received(self, data: bytes) -> None:
        self._outbox.turn()
        again = self._again
        if again is not None and self._part == IDLE and not self._lingering:
            body = again.body(data)
            if body is not None and not self._answering():
                self._resting = None
                cycle = Cycle(self, *again.surface, again.raw, len(body), again.keep)
                self.cycle = self._served = cycle  # type: ignore[assignment]
                cycle.at_once(body)
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._lingering:
            return
        self._chunk = len(data)
        self._read = data if self._part == IDLE else b""
        super().data_received(data)
        self._read = b""
        if self._lingering or self.transport.is_closing():
            return
        if type(self._served) is Cycle:
            self._served.go_on()
            if self._lingering or self.transport.is_closing():
                return
        if self._part == IDLE:
            if not self._answering():
                self._rest()
            return
        # What came without being understood yet is held by the parser, or thrown away by it.
        self._held += len(data)
        if self._held > HEAD_BYTES + FRAMING * self._got:
            self._refuse(_too_large() if self._part == HEAD else _bad("its framing is too long"))
        elif self._late is None:
            self._since = self.loop.time()
            seconds = self._wire.head_s if self._part == HEAD else self._wire.body_s
            if self.crowded:
                seconds = min(seconds, CROWDED_S)
            self._late = self.loop.call_later(seconds, self._too_late)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._part = HEAD
        self._size = self._got = 0
        self._held = -self._chunk

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part != HEAD:
            return  # trailers: the request has been judged without them
        self._size += len(name) + len(value)
        if self._size > HEAD_BYTES or len(self.headers) >= HEAD_FIELDS:
            self._grow(0)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._part = BODY
        self._held = -self._chunk
        self._clear()
        read, self._read = self._read, b""
        surface = HOT_URLS.get(self.url)
        if surface is None or not self._plain():
            self._as_asgi()
            return
        length = 0
        for place, (name, value) in enumerate(self.headers):
            if name == b"content-length":
                length = int(value)
                del self.headers[place]
                break
        keep = self.parser.should_keep_alive()
        cycle = Cycle(self, *surface, self.headers, length, keep)
        waits = self._answering()
        self.cycle = cycle  # type: ignore[assignment]
        if waits:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]
        else:
            self._served = cycle
            cycle.open()
            known = self.known
            if known is not None and known.raw is cycle.raw:  # else it is of another head
                self.headers = known.raw
                self._again = repeated(read, surface, self.headers, keep)

    def _as_asgi(self) -> None:
        """Leave the request to uvicorn, as it would have begun it."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers[:] = headers
        self.scope["llmr.wire"] = self  # type: ignore[typeddict-unknown-key]
        waits = self._answering()
        super().on_headers_complete()
        if not waits:
            self._served = self.cycle

    def _plain(self) -> bool:
        """Whether nothing in the head needs more than the hot path knows."""
        parser = self.parser
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and all(name != b"content-encoding" for name, _ in self.headers)
        )

    def on_body(self, body: bytes) -> None:
        self._got += len(body)
        cycle: Any = self.cycle
        if type(cycle) is not Cycle:
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.take(body)

    def on_message_complete(self) -> None:
        self._part = IDLE
        self._clear()
        cycle: Any = self.cycle
        if type(cycle) is not Cycle:
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.complete()

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > HEAD_BYTES or len(self.headers) >= HEAD_FIELDS:
            self._refusal = _too_large()
            raise httptools.HttpParserError

    def _too_late(self) -> None:
        self._late = None
        if self._part == HEAD:
            left = self._wire.head_s if self._answering() else 0.0
        else:
            until = self._since + self._wire.body_s + self._got / BODY_BYTES_PER_S
            left = until - self.loop.time()
        if left > 0.0:
            self._late = self.loop.call_later(left, self._too_late)
        else:
            self._refuse(_late("head" if self._part == HEAD else "body"))

    def _clear(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    # --- writing ---

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()
        if type(self._served) is Cycle:
            self._served.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if type(self._served) is Cycle:
            self._served.resume()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._watch()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._served, app = self.pipeline.pop()
            self._start_asgi_task(self._served, app)
        else:
            self._rest()
        if self._part == BODY and self.cycle.response_complete:
            self._linger()  # a body nobody reads is on its way

    def _watch(self) -> None:
        """From now on, give the caller up if it takes nothing for `write_s`."""
        if self._stalled is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._stalled = self.loop.call_later(self._wire.write_s, self._look)

    def _look(self) -> None:
        self._stalled = None
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent >= self._unsent:
            self.transport.abort()
        elif unsent:
            self._watch()

    # --- refusing ---

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or _bad("it is not HTTP/1.1 as it should be"))

    def _answering(self) -> bool:
        return self._served is not None and not self._served.response_complete

    def _refuse(self, error: ApiError) -> None:
        """Answer in the place of the application, and close."""
        self._outbox.flush()
        self._clear()
        if self._answering():
            cycle = self._served
            begun = cycle.started if type(cycle) is Cycle else cycle.response_started
            if cycle is not self.cycle or self._part != BODY or begun:
                self.transport.abort()  # another answer is under way: this one has no place
                return
            self._leave()
        headers, body = error_answer(error, request_id(None))
        head = STATUS_LINE[error.status] + self.date() + headers + b"connection: close\r\n\r\n"
        self.transport.write(head + body)
        self._linger()

    def _linger(self) -> None:
        """Close once the caller has had the time to read the answer."""
        self._unset_keepalive_if_required()
        self._clear()
        self._lingering = True
        self.flow.resume_reading()
        self.transport.write_eof()
        self._late = self.loop.call_later(LINGER_S, self.transport.abort)


def _too_large() -> ApiError:
    text = f"The request's head exceeds {HEAD_BYTES // 1024} KiB or {HEAD_FIELDS} fields."
    return ApiError(431, "headers_too_large", text, kind="invalid_request_error")


def _late(what: str) -> ApiError:
    text = f"The {what} of the request did not arrive in time. Send it again, without pauses."
    return ApiError(408, "request_timeout", text, retryable=True)


def _bad(why: str) -> ApiError:
    return ApiError(400, "invalid_http", f"The request cannot be read: {why}.")
