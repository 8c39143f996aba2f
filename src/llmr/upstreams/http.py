"""A pooled HTTP/1.1 client on httptools: as little as the job needs between socket and executor.

An `Origin` sends to one scheme, host and port. Its `Pool` keeps the connections, its `Dialer`
opens them; a `Connection` parses one `Exchange` at a time, which hands the answer to its receiver
by plain calls. Only opening a connection takes a task.
"""

import logging
import os
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from llmr.outbox import Outbox
from llmr.upstreams.base import Receiver, Send, TransportError
from llmr.upstreams.connection import Connection
from llmr.upstreams.dial import Dialer
from llmr.upstreams.exchange import Exchange
from llmr.upstreams.pool import MAX_CONNECTIONS, MAX_WAITING, Pool, Statistics
from llmr.upstreams.proxy import proxy_for
from llmr.upstreams.resolve import Resolver
from llmr.upstreams.tls import tls_context

HEADS_KEPT = 64

log = logging.getLogger("llmr.upstreams")


class Origin:
    """The connections to one base URL. Implements `Upstream`."""

    def __init__(
        self,
        name: str,
        base_url: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_waiting: int = MAX_WAITING,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        environ: Mapping[str, str] | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        """`headers` go with every request: the credentials of this host and no other.

        `resolver` None: the one the running loop's origins share. `tls` None: the process's own
        context. `environ` None: the process's, where it names proxies and certificates.
        """
        environ = os.environ if environ is None else environ
        parts = urlsplit(base_url)
        self.name = name
        self.host: Final = parts.hostname or ""
        self.secure: Final = parts.scheme == "https"
        self.port: Final = parts.port or (443 if self.secure else 80)
        proxy = proxy_for(self.secure, self.host, self.port, environ)
        context = (tls or tls_context(environ)) if self.secure else None
        self._dialer = Dialer(self.host, self.port, context, proxy, resolver)
        self._pool = Pool(max_connections, max_waiting)
        self._outbox = outbox or Outbox()
        authority = _authority(self.host, self.port, self.secure)
        self._prefix = parts.path.rstrip("/")
        via = b""
        if proxy is not None and not self.secure:  # asked for the whole URL, it passes it on
            self._prefix = f"http://{authority}{self._prefix}"
            via = proxy.header()
        fields = ((b"host", authority.encode("ascii")), (b"accept-encoding", b"identity"), *headers)
        self._common = b"".join(b"%s: %s\r\n" % field for field in fields) + via
        self._heads: dict[Any, bytes] = {}
        self._trouble: str | None = None

    def statistics(self) -> Statistics:
        """How many connections there are, and what became of requests for them."""
        return self._pool.statistics()

    def start(self, request: Send, receiver: Receiver, connect_s: float) -> Exchange:
        bodiless = request.method == "HEAD"
        exchange = Exchange(
            self, self._head(request), request.pieces, bodiless, receiver, connect_s
        )
        connection = self._pool.take()
        if connection is not None:
            exchange.on(connection)
        else:
            exchange.dial(fresh=False)
        return exchange

    async def close(self) -> None:
        await self._pool.close()

    async def connection(self, until: float, fresh: bool = False) -> Connection:
        """One that came free meanwhile, unless it must be fresh, or a new one."""
        if fresh:
            self._pool.retried += 1
        while (handed := await self._pool.room(until, fresh)) is not None:
            if not handed.transport.is_closing():
                return handed
        connection = Connection(self._pool, self._outbox)
        try:
            await self._dialer.dial(connection, until)
        except BaseException as error:
            self._pool.lost(connection)  # uvloop does not say so of one cancelled as it opened
            if isinstance(error, TransportError):
                self._tell(str(error))
            raise
        finally:
            self._pool.opening_over()
        self._tell(None)
        if connection.transport.is_closing():
            raise TransportError("reset", "the connection ended before the request was sent")
        return connection

    def _tell(self, trouble: str | None) -> None:
        """Log why connecting fails when that changes, not with every request."""
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble is None:
                log.info("upstream %s: connected again", self.name)
            else:
                log.warning("upstream %s: no connection: %s", self.name, trouble)

    def _head(self, request: Send) -> bytes:
        key = (request.method, request.path, request.headers)
        start = self._heads.get(key)
        if start is None:
            line = f"{request.method} {self._prefix}{request.path} HTTP/1.1\r\n".encode("ascii")
            fields = b"".join(b"%s: %s\r\n" % field for field in request.headers)
            start = line + self._common + fields
            if len(self._heads) >= HEADS_KEPT:  # some are made of what callers sent
                self._heads.clear()
            self._heads[key] = start
        if request.method in ("GET", "HEAD"):
            return start + b"\r\n"
        return b"%scontent-length: %d\r\n\r\n" % (start, sum(map(len, request.pieces)))


def _authority(host: str, port: int, secure: bool) -> str:
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if ":" in host:
        host = f"[{host}]"
    return host if port == (443 if secure else 80) else f"{host}:{port}"
