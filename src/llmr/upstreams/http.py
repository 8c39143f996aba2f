"""A pooled HTTP/1.1 client on httptools: as little as the job needs between socket and executor.

One `Origin` holds the idle connections to one scheme, host and port, newest first. A `Connection`
parses one exchange at a time and feeds an `Exchange`, which the executor reads. Reading is paused
while the reader is behind, so a slow caller slows the upstream.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import certifi
import httptools

from llmr.upstreams.base import ReadTimeout, Send, TransportError

HIGH_WATER = 256 * 1024  # bytes read ahead of a slow reader
HEADER_LIMIT = 64 * 1024
IDLE_LIMIT_S = 30.0  # idle connections older than this are not reused
MAX_IDLE = 256
JOIN_LIMIT = 64 * 1024  # head and body go out in one piece up to this size


class Exchange:
    """One answer as it arrives. Implements `Response`."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_error",
        "_size",
        "_waiter",
        "complete",
        "head_ready",
        "headers",
        "status",
    )

    def __init__(self, connection: "Connection") -> None:
        self._connection: Connection | None = connection
        self._buffer: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: TransportError | None = None
        self.complete = False
        self.head_ready = False
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def wait_head(self, until: float) -> None:
        while not self.head_ready:
            if self._error is not None:
                raise self._error
            await self._wait(until)

    async def read(self, until: float) -> bytes:
        while not self._buffer:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait(until)
        buffer = self._buffer
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        self._buffer = []
        if self._size > HIGH_WATER and self._connection is not None:
            self._connection.resume()
        self._size = 0
        return data

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.give_up(self)

    async def _wait(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_at(until, _expire, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: TransportError) -> None:
        if not self.complete and self._error is None:
            self._error = error
            self.wake()

    def feed(self, data: bytes) -> bool:
        """Take body bytes; True where the reader has fallen behind."""
        self._buffer.append(data)
        self._size += len(data)
        self.wake()
        return self._size > HIGH_WATER

    def finish(self) -> None:
        self.complete = True
        self._connection = None
        self.wake()


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(ReadTimeout())


class Connection(asyncio.Protocol):
    """One connection to an origin; at most one exchange at a time."""

    def __init__(self, origin: "Origin") -> None:
        self.origin = origin
        self.transport: Any = None
        self.parser: Any = None
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.reused = False
        self.got_bytes = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._paused = False
        self._broken: str | None = None

    # --- asyncio.Protocol ---

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:
            # Bytes nobody asked for poison the connection: the next answer could not be trusted.
            self.origin.forget(self)
            self.transport.abort()
            return
        self.got_bytes = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("protocol", "the upstream asked for a protocol upgrade")
        except httptools.HttpParserError as error:
            self._fail("protocol", self._broken or str(error)[:200])

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.origin.forget(self)
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.head_ready and self._until_close() and exc is None:
            self.exchange = None
            exchange.finish()
            return
        kind = "closed" if self.got_bytes else "reset"
        self._fail(kind, "the upstream closed the connection before the end of its answer")

    # --- httptools callbacks ---

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > HEADER_LIMIT:
            self._broken = "the upstream's headers are too large"
            raise ValueError(self._broken)
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        status = self.parser.get_status_code()
        if exchange is None or status < 200:
            self._fields = []
            return
        exchange.status = status
        exchange.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._fields
        }
        exchange.head_ready = True
        exchange.wake()

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        if exchange is not None and exchange.feed(body) and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or not exchange.head_ready:
            return
        self.exchange = None
        keep = self.parser.should_keep_alive() and not self._until_close()
        exchange.finish()
        self.resume()
        if keep:
            self.origin.give_back(self)
        else:
            self.transport.close()

    # --- used by Origin and Exchange ---

    def start(self, head: bytes, body: bytes) -> Exchange:
        self.parser = httptools.HttpResponseParser(self)
        self._fields = []
        self._head_size = 0
        self.got_bytes = False
        self._broken = None
        exchange = self.exchange = Exchange(self)
        if len(body) <= JOIN_LIMIT:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        return exchange

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def give_up(self, exchange: Exchange) -> None:
        if self.exchange is exchange:
            self.exchange = None
            self.origin.forget(self)
            self.transport.abort()

    def _until_close(self) -> bool:
        """Whether the end of the body is the end of the connection."""
        names = {name.lower() for name, _ in self._fields}
        return not names & {b"content-length", b"transfer-encoding"}

    def _fail(self, kind: str, detail: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.origin.forget(self)
        if exchange is not None:
            exchange.fail(TransportError(kind, detail))
        if self.transport is not None:
            self.transport.abort()


class Origin:
    """The connections to one base URL. Implements `Upstream` once it has a name."""

    def __init__(
        self, name: str, base_url: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """`headers` go with every request: the credentials of this host and no other."""
        parts = urlsplit(base_url)
        self.name = name
        self.host: Final = parts.hostname or ""
        self.secure: Final = parts.scheme == "https"
        self.port: Final = parts.port or (443 if self.secure else 80)
        self._prefix = parts.path.rstrip("/")
        default = self.port == (443 if self.secure else 80)
        host = f"[{self.host}]" if ":" in self.host else self.host
        authority = host if default else f"{host}:{self.port}"
        self._common = b"".join(
            b"%s: %s\r\n" % field
            for field in (
                (b"host", authority.encode("idna" if authority.isascii() else "utf-8")),
                (b"accept-encoding", b"identity"),
                *headers,
            )
        )
        self._tls = _tls_context() if self.secure else None
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._heads: dict[Any, bytes] = {}

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def send(self, request: Send, *, connect_until: float, until: float) -> Exchange:
        head = self._head(request)
        while True:
            connection = self._reuse()
            reused = connection is not None
            if connection is None:
                connection = await self._connect(connect_until)
            exchange = connection.start(head, request.body)
            try:
                await exchange.wait_head(until)
            except TransportError as error:
                if reused and error.kind == "reset":
                    continue  # the peer had closed it while it lay idle: unseen, on a fresh one
                raise
            except BaseException:
                exchange.close()
                raise
            return exchange

    async def close(self) -> None:
        for connection in list(self._open):
            connection.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)

    def give_back(self, connection: Connection) -> None:
        if len(self._idle) >= MAX_IDLE or connection.transport.is_closing():
            connection.transport.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _reuse(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing() and now - connection.idle_since < IDLE_LIMIT_S:
                return connection
            connection.transport.close()
        return None

    async def _connect(self, until: float) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(self)
        try:
            async with asyncio.timeout_at(until):
                await loop.create_connection(
                    lambda: connection,
                    self.host,
                    self.port,
                    ssl=self._tls,
                    server_hostname=self.host if self._tls else None,
                )
        except TimeoutError:
            raise TransportError("connect_timeout", f"no connection to {self.host}") from None
        except ssl.SSLError as error:
            raise TransportError("tls", error.reason or "handshake failed") from None
        except socket.gaierror:
            raise TransportError("name", f"{self.host} does not resolve") from None
        except OSError as error:
            text = os.strerror(error.errno) if error.errno else "connection failed"
            raise TransportError("connect", f"{self.host}:{self.port}: {text}") from None
        self._open.add(connection)
        return connection

    def _head(self, request: Send) -> bytes:
        key = (request.method, request.path, request.headers)
        start = self._heads.get(key)
        if start is None:
            line = f"{request.method} {self._prefix}{request.path} HTTP/1.1\r\n".encode("ascii")
            fields = b"".join(b"%s: %s\r\n" % field for field in request.headers)
            start = line + self._common + fields
            if len(self._heads) < 64:
                self._heads[key] = start
        if request.method == "GET":
            return start + b"\r\n"
        return b"%scontent-length: %d\r\n\r\n" % (start, len(request.body))


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
        context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context
