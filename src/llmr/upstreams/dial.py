"""From an origin to an open connection: address, socket, tunnel, TLS, all within one limit."""

import asyncio
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence

from llmr.upstreams.base import TransportError
from llmr.upstreams.proxy import Proxy, tunnel
from llmr.upstreams.resolve import Address, Resolver, shared_resolver, without_lookup
from llmr.upstreams.tls import reason

STAGGER_S = 0.25  # so long an address has before the next one is tried beside it

# What this machine has run out of says nothing of the upstream.
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Dialer:
    """Opens connections to one host and port."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        proxy: Proxy | None,
        resolver: Resolver | None,
    ) -> None:
        """`tls` None: in the clear. `resolver` None: the one the loop's origins share."""
        self._host = host
        self._port = port
        self._tls = tls
        self._proxy = proxy
        self._resolver = resolver
        peer = (host, port) if proxy is None else (proxy.host, proxy.port)
        self._peer = peer
        self._said = f"{peer[0]}:{peer[1]}" if proxy is None else f"the proxy {peer[0]}:{peer[1]}"

    async def dial(self, protocol: asyncio.Protocol, until: float) -> None:
        """Connect `protocol`, by the loop time `until`. Raises `TransportError`."""
        if self._proxy is not None and self._proxy.unusable:
            raise TransportError("connect", self._proxy.unusable)
        try:
            sock = await self._socket(until)
        except TimeoutError:
            raise TransportError("connect_timeout", f"no connection to {self._said}") from None
        except OSError as error:
            raise _failure(error, self._said) from None
        try:
            async with asyncio.timeout_at(until):
                await self._dress(sock, protocol)
        except TimeoutError:
            raise TransportError("connect_timeout", self._unfinished()) from None
        except (OSError, ssl.CertificateError) as error:
            if self._tls is None:
                raise _failure(error, self._said) from None
            raise TransportError("tls", f"{self._host}: {reason(error)}") from None

    async def _socket(self, until: float) -> socket.socket:
        host, port = self._peer
        if known := without_lookup(host, port):
            return await first_to_connect(known, until, lambda _: None)
        resolver = self._resolver or shared_resolver()

        def failed(address: Address) -> None:
            resolver.failed(host, port, address)

        tried = await resolver.addresses(host, port, until)
        try:
            return await first_to_connect(tried, until, failed)
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno in _OURS:
                raise
            found = await resolver.again(host, port, until)
            others = [address for address in found if address not in tried]
            if not others:
                raise
        return await first_to_connect(others, until, failed)

    async def _dress(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        """The tunnel and the handshake. Owns the socket: it is the protocol's, or closed."""
        loop = asyncio.get_running_loop()
        try:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._proxy is not None and self._tls is not None:
                await tunnel(sock, self._proxy, self._host, self._port)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise _failure(error, self._said) from None
            raise
        await loop.create_connection(
            lambda: protocol,
            sock=sock,
            ssl=self._tls,
            server_hostname=self._host if self._tls is not None else None,
        )

    def _unfinished(self) -> str:
        if self._proxy is not None:
            return f"no connection to {self._host} through {self._said}"
        if self._tls is None:
            return f"no connection to {self._said}"
        return f"the TLS handshake with {self._said} did not come to its end"


def _failure(error: Exception, said: str) -> TransportError:
    number = getattr(error, "errno", None)
    text = os.strerror(number) if number else "connection failed"
    if number in _OURS:
        return TransportError("busy", f"no connection can be opened: {text}")
    return TransportError("connect", f"{said}: {text}")


async def first_to_connect(
    addresses: Sequence[Address], until: float, failed: Callable[[Address], None]
) -> socket.socket:
    """A socket to the first address that answers; each has a head start before the next begins.

    Tells `failed` of every address that refused, or was overtaken, or was silent till the end.
    Raises the last `OSError`, or `TimeoutError` at the loop time `until`.
    """
    race = _Race(addresses, failed)
    try:
        return await race.run(until)
    finally:
        race.over()


class _Race:
    def __init__(self, addresses: Sequence[Address], failed: Callable[[Address], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ahead = deque(addresses)
        self._failed = failed
        self._running: dict[asyncio.Task[socket.socket], Address] = {}  # in the order of starting
        self._next = self._loop.time()

    async def run(self, until: float) -> socket.socket:
        error = OSError(errno.EHOSTUNREACH, "no address")
        while self._ahead or self._running:
            now = self._loop.time()
            if now >= until:
                self._blame(list(self._running))
                raise TimeoutError
            if self._ahead and now >= self._next:
                self._start(now)
            wake = min(until, self._next) if self._ahead else until
            done, _ = await asyncio.wait(
                self._running, timeout=wake - now, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                found = task.exception()
                if found is None:
                    return self._won(task)
                if not isinstance(found, OSError):
                    raise found
                error = found
                self._next = now
                address = self._running.pop(task)
                if found.errno not in _OURS:
                    self._failed(address)
        raise error

    def over(self) -> None:
        """Stop the others; what they connected after all is closed."""
        for task in self._running:
            task.cancel()
            task.add_done_callback(_close_result)

    def _start(self, now: float) -> None:
        address = self._ahead.popleft()
        self._running[self._loop.create_task(_open(address))] = address
        self._next = now + STAGGER_S

    def _won(self, winner: "asyncio.Task[socket.socket]") -> socket.socket:
        before = list(self._running)
        self._blame(before[: before.index(winner)])
        del self._running[winner]
        return winner.result()

    def _blame(self, tasks: list["asyncio.Task[socket.socket]"]) -> None:
        for task in tasks:
            self._failed(self._running[task])


async def _open(address: Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_result(task: "asyncio.Task[socket.socket]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
