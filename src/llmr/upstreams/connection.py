"""One connection to an origin: one exchange at a time, and when it may be used again."""

import asyncio
from typing import Any, Protocol

import httptools

from llmr.upstreams.base import TransportError
from llmr.upstreams.decode import CODINGS, Decoder
from llmr.upstreams.exchange import Exchange, expire

HEAD_LIMIT = 64 * 1024  # of a head, and of framing without a byte of body
FIELD_LIMIT = 200
INTERIM_LIMIT = 8  # 1xx answers before the real one
JOIN_LIMIT = 64 * 1024  # head and body go out in one piece up to this size
PIECE = 256 * 1024  # of larger ones, so much at a time


class Owner(Protocol):
    """Who keeps connections."""

    def opened(self, connection: "Connection") -> None:
        """It is connected."""

    def give_back(self, connection: "Connection") -> None:
        """Its exchange is over, and it can take another."""

    def lost(self, connection: "Connection") -> None:
        """It is closed."""


class Connection(asyncio.Protocol):
    """Belongs to its owner while idle, and to its exchange otherwise."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.transport: Any = None
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.reused = False
        self._parser: Any = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._dry = 0  # bytes since the last that said something
        self._interim = 0
        self._heard = False
        self._bodiless = False
        self._done = False  # the answer is complete, as far as its framing goes
        self._keep = False
        self._unsent = False
        self._broken: TransportError | None = None
        self._read_paused = False
        self._write_paused = False
        self._writer: asyncio.Future[None] | None = None

    # --- for the owner and the exchange ---

    def start(self, head: bytes, body: bytes, bodiless: bool = False) -> Exchange:
        """Send a request. A body over `JOIN_LIMIT` is left to `write`. `bodiless`: it is a HEAD."""
        self._parser = httptools.HttpResponseParser(self)
        self._fields = []
        self._head_size = self._dry = self._interim = 0
        self._heard = self._done = self._keep = False
        self._bodiless = bodiless
        self._broken = None
        exchange = self.exchange = Exchange(self)
        if len(body) <= JOIN_LIMIT:
            self.transport.write(head + body)
        else:
            self._unsent = True
            self.transport.write(head)
        return exchange

    async def write(self, body: bytes, exchange: Exchange, until: float) -> None:
        """Send a large body no faster than the peer takes it; an answer that comes early ends it.

        Raises `ReadTimeout` at the loop time `until`.
        """
        view = memoryview(body)
        for start in range(0, len(view), PIECE):
            while self._write_paused and not (exchange.head_ready or exchange.over):
                await self._room(until)
            if exchange.head_ready or exchange.over:
                return  # the peer has made up its mind: what is left is not for it
            self.transport.write(view[start : start + PIECE])
        self._unsent = False

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
        if self.exchange is None:
            # Bytes nobody asked for poison the connection: the next answer could not be trusted.
            self.transport.abort()
            return
        self._heard = True
        self._dry += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(TransportError("protocol", "the upstream asked for a protocol upgrade"))
        except httptools.HttpParserError as error:
            self._fail(self._broken or TransportError("protocol", str(error)[:200]))
        else:
            if self._done:
                self._settle()
            elif self._dry > HEAD_LIMIT:
                self._fail(_too_large())

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        exchange = self.exchange
        if exchange is not None and exchange.head_ready and exc is None and self._until_close():
            self.exchange = None
            _finish(exchange)
        else:
            self._fail(self._closed())
        self._wake_writer()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake_writer()

    # --- httptools ---

    def on_message_begin(self) -> None:
        if self._done:
            self._keep = False  # surplus bytes

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > HEAD_LIMIT or len(self._fields) >= FIELD_LIMIT:
            self._refuse(_too_large())
        exchange = self.exchange
        if exchange is not None and not exchange.head_ready:  # else a trailer, which nobody reads
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._fields = []
            self._interim += 1
            if self._interim > INTERIM_LIMIT:
                self._refuse(TransportError("protocol", "the upstream's answer never begins"))
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._fields
        }
        if "transfer-encoding" in headers and headers["transfer-encoding"].lower() != "chunked":
            self._refuse(TransportError("protocol", "a transfer coding nobody asked for"))
        coding = headers.pop("content-encoding", None)
        exchange.begin(status, headers)
        if self._writer is not None:
            self._wake_writer()
        if coding is not None and not self._bodiless:
            self._decode(exchange, coding.strip().lower(), headers)
        if self._bodiless:
            self._end(exchange, keep=False)

    def on_body(self, body: bytes) -> None:
        self._dry = 0
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.decoder is not None:
            try:
                body = exchange.decoder.feed(body)
            except TransportError as error:
                self._refuse(error)
            if not body:
                return
        if exchange.feed(body) and not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        exchange = self.exchange
        if exchange is not None and exchange.head_ready:
            self._end(exchange, self._parser.should_keep_alive() and not self._unsent)

    # --- ends ---

    def _decode(self, exchange: Exchange, coding: str, headers: dict[str, str]) -> None:
        if coding in CODINGS:
            headers.pop("content-length", None)  # it counts the bytes before decoding
            exchange.decoder = Decoder(coding)
        elif coding not in ("", "identity"):
            # The status is told before the body fails: that of a refusal says enough.
            self._refuse(TransportError("protocol", "an encoding nobody asked for"))

    def _refuse(self, error: TransportError) -> None:
        """From within the parser: stop it. `data_received` does the rest."""
        self._broken = error
        raise error

    def _end(self, exchange: Exchange, keep: bool) -> None:
        self.exchange = None
        self._done = True
        if exchange.decoder is None:
            exchange.finish()
        elif not _finish(exchange):
            keep = False
        self._keep = keep

    def _settle(self) -> None:
        """The answer is complete and the bytes that brought it are read."""
        if self._read_paused:
            self.resume()
        if self._keep:
            self._owner.give_back(self)
        else:
            self.transport.abort()

    def _fail(self, error: TransportError) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.fail(error)
        self.transport.abort()

    def _closed(self) -> TransportError:
        kind = "closed" if self._heard else "reset"
        return TransportError(kind, "the upstream closed the connection before its answer's end")

    def _until_close(self) -> bool:
        """Whether the end of the body is the end of the connection."""
        names = {name.lower() for name, _ in self._fields}
        return not names & {b"content-length", b"transfer-encoding"}

    # --- writing ---

    async def _room(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        self._writer = loop.create_future()
        timer = loop.call_at(until, expire, self._writer)
        try:
            await self._writer
        finally:
            timer.cancel()
            self._writer = None

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)


def _finish(exchange: Exchange) -> bool:
    """The body is at its end as framed; False where it is not at its end as encoded."""
    if exchange.decoder is not None:
        try:
            exchange.decoder.finish()
        except TransportError as error:
            exchange.fail(error)
            return False
    exchange.finish()
    return True


def _too_large() -> TransportError:
    return TransportError("too_large", "the upstream's headers are too large")
