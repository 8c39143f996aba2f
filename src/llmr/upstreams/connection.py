"""One connection to an origin: one exchange at a time, and when it may be used again."""

import asyncio
from typing import Any, Protocol

import httptools

from llmr.outbox import Outbox
from llmr.upstreams.base import Pieces, TransportError
from llmr.upstreams.decode import CODINGS, Decoder
from llmr.upstreams.exchange import Exchange

HEAD_LIMIT = 64 * 1024  # of a head, and of framing without a byte of body
FIELD_LIMIT = 200
INTERIM_LIMIT = 8  # 1xx answers before the real one
JOIN_LIMIT = 64 * 1024  # requests up to this size go out at once
PIECE = 1024 * 1024  # of larger ones, so much at a time


class Owner(Protocol):
    """Who keeps connections."""

    def opened(self, connection: "Connection") -> None:
        """It is connected."""

    def give_back(self, connection: "Connection") -> None:
        """Its exchange is over, and it can take another."""

    def lost(self, connection: "Connection") -> None:
        """It is closed."""


class Connection(asyncio.Protocol):
    """Belongs to its owner while idle, and to its exchange otherwise.

    What the parser finds in a read is handed on when all of the read is understood, so that no
    receiver runs inside the parser.
    """

    __slots__ = (
        "_begun",
        "_bodiless",
        "_broken",
        "_decoder",
        "_done",
        "_dry",
        "_field_count",
        "_fields",
        "_framed",
        "_head_size",
        "_heard",
        "_interim",
        "_keep",
        "_outbox",
        "_owner",
        "_parser",
        "_pieces",
        "_read_paused",
        "_status",
        "_unsent",
        "_write_paused",
        "exchange",
        "idle_since",
        "reused",
        "transport",
    )

    def __init__(self, owner: Owner, outbox: Outbox) -> None:
        self._owner = owner
        self._outbox = outbox
        self.transport: Any = None
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.reused = False
        self._parser: Any = httptools.HttpResponseParser(self)
        self._read_paused = False
        self._write_paused = False
        self._clear(False)

    def _clear(self, bodiless: bool) -> None:
        self._fields: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._decoder: Decoder | None = None
        self._broken: TransportError | None = None
        self._field_count = self._head_size = self._dry = self._interim = self._status = 0
        self._heard = False
        self._begun = False  # the head is complete
        self._framed = False  # its body does not end with the connection
        self._done = False  # the answer is complete, as far as its framing goes
        self._keep = False
        self._bodiless = bodiless
        self._unsent: memoryview | None = None

    # --- for the owner and the exchange ---

    def start(self, exchange: Exchange, head: bytes, body: Pieces, bodiless: bool) -> None:
        """Send a request. `bodiless`: it is a HEAD."""
        self._clear(bodiless)
        self.exchange = exchange
        data = b"".join((head, *body))
        if len(data) <= JOIN_LIMIT:
            self._outbox.write(self.transport, data)
        else:
            self._outbox.flush()
            self._unsent = memoryview(data)
            self._send_on()

    def pause(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()

    def give_up(self, exchange: Exchange) -> None:
        if self.exchange is exchange:
            self.exchange = None
            self.transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            # Bytes nobody asked for poison the connection: the next answer could not be trusted.
            self.transport.abort()
            return
        self._outbox.turn()
        self._heard = True
        self._dry += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            text = "the upstream asked for a protocol upgrade"
            self._broken = TransportError("protocol", text)
        except httptools.HttpParserError as error:
            if self._done:
                self._keep = False  # the answer is whole; what follows it is not for anybody
            else:
                self._broken = self._broken or TransportError("protocol", str(error)[:200])
        else:
            if self._dry > HEAD_LIMIT and not self._done:
                self._broken = _too_large()
            elif exchange.begun and self._pieces and not self._done:
                # Most of what comes: some more of an answer under way.
                pieces, self._pieces = self._pieces, []
                exchange.receiver.data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                return
        self._hand_on(exchange)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._send_on()

    def _send_on(self) -> None:
        """Send a large body no faster than the peer takes it, and not past an early answer."""
        while self._unsent is not None and not (self._write_paused or self._begun):
            piece, rest = self._unsent[:PIECE], self._unsent[PIECE:]
            self._unsent = rest if rest else None
            self.transport.write(piece)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.begun and exc is None and not self._framed and self._decoded():
            self.exchange = None
            exchange.finish()
        else:
            kind = "closed" if self._heard else "reset"
            text = "the upstream closed the connection before its answer's end"
            self._fail(exchange, self._broken or TransportError(kind, text))

    def _hand_on(self, exchange: Exchange) -> None:
        """Tell the exchange what the parser found. Each word may make it give the answer up."""
        if self._done and not exchange.begun and self._broken is None and self._decoder is None:
            pieces, self._pieces = self._pieces, []
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._rest()
            exchange.whole(self._status, self._fields, body)
            return
        if self._begun and not exchange.begun:
            exchange.begin(self._status, self._fields)
        if self._pieces and self.exchange is exchange:
            pieces, self._pieces = self._pieces, []
            exchange.receiver.data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self.exchange is not exchange:
            return
        if self._broken is not None or (self._done and not self._decoded()):
            assert self._broken is not None
            self._fail(exchange, self._broken)
        elif self._done:
            self._settle(exchange)

    def _settle(self, exchange: Exchange) -> None:
        self._rest()
        exchange.finish()

    def _rest(self) -> None:
        """The answer is complete, and the bytes that brought it are read."""
        self.exchange = None
        self.resume()
        # Where the peer did not wait for the whole request, what is left of it is in the way.
        sent = self._unsent is None and not self.transport.get_write_buffer_size()
        if self._keep and sent:
            self._owner.give_back(self)
        else:
            self.transport.abort()

    def _fail(self, exchange: Exchange, error: TransportError) -> None:
        self.exchange = None
        self.transport.abort()
        exchange.fail(error)

    def _decoded(self) -> bool:
        """The body is at its end as framed; False where it is not at its end as encoded."""
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except TransportError as error:
                self._broken = error
        return self._broken is None

    # --- httptools ---

    def on_message_begin(self) -> None:
        if self._done:
            self._keep = False  # surplus bytes

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._done:
            return  # of an answer nobody asked for
        self._head_size += len(name) + len(value)
        self._field_count += 1
        if self._head_size > HEAD_LIMIT or self._field_count > FIELD_LIMIT:
            self._refuse(_too_large())
        if not self._begun:  # else a trailer, which nobody reads
            self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._done:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._fields = {}
            self._interim += 1
            if self._interim > INTERIM_LIMIT:
                self._refuse(TransportError("protocol", "the upstream's answer never begins"))
            return
        fields = self._fields
        coding = fields.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            self._refuse(TransportError("protocol", "a transfer coding nobody asked for"))
        self._status = status
        self._framed = coding is not None or b"content-length" in fields
        self._begun = True
        if self._bodiless:
            self._done = True
        elif (encoding := fields.pop(b"content-encoding", None)) is not None:
            self._decode(encoding.strip().lower())

    def on_body(self, body: bytes) -> None:
        self._dry = 0
        if self._done:
            return
        if self._decoder is not None:
            try:
                body = self._decoder.feed(body)
            except TransportError as error:
                self._refuse(error)
            if not body:
                return
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._begun and not self._done:
            self._done = True
            self._keep = self._parser.should_keep_alive()

    def _decode(self, encoding: bytes) -> None:
        name = encoding.decode("latin-1")
        if name in CODINGS:
            self._fields.pop(b"content-length", None)  # it counts the bytes before decoding
            self._decoder = Decoder(name)
        elif name not in ("", "identity"):
            # The status is told before the body fails: that of a refusal says enough.
            self._refuse(TransportError("protocol", "an encoding nobody asked for"))

    def _refuse(self, error: TransportError) -> None:
        """From within the parser: stop it. `data_received` does the rest."""
        self._broken = error
        raise error


def _too_large() -> TransportError:
    return TransportError("too_large", "the upstream's headers are too large")
