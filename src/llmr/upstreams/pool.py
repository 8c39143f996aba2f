"""The connections of one origin: at most so many, newest idle one first, waiters in turn."""

import asyncio
from collections import OrderedDict

from msgspec import Struct

from llmr.upstreams.base import TransportError
from llmr.upstreams.connection import Connection

MAX_CONNECTIONS = 512
MAX_WAITING = 1024
MAX_IDLE = 256
IDLE_LIMIT_S = 30.0  # idle connections older than this are closed
CLOSE_S = 1.0  # so long `close` waits for the loop to close the sockets


class Statistics(Struct, frozen=True):
    """`open` includes `idle`; the others but `waiting` count since the start."""

    open: int
    idle: int
    waiting: int
    connects: int
    reused: int
    retried: int


class Pool:
    """Room for connections is taken before one is opened, and free again when it is closed."""

    def __init__(
        self,
        max_connections: int = MAX_CONNECTIONS,
        max_waiting: int = MAX_WAITING,
        max_idle: int = MAX_IDLE,
        idle_limit_s: float = IDLE_LIMIT_S,
    ) -> None:
        self._max_connections = max_connections
        self._max_waiting = max_waiting
        self._max_idle = max_idle
        self._idle_limit_s = idle_limit_s
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []  # oldest first
        self._opening = 0
        # Whoever waits, and whether only room for a fresh connection will do.
        self._waiting: OrderedDict[asyncio.Future[Connection | None], bool] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._connects = 0
        self._reused = 0
        self.retried = 0
        self.closed = False
        self._emptied: asyncio.Future[None] | None = None  # for `close`

    def statistics(self) -> Statistics:
        return Statistics(
            len(self._open),
            len(self._idle),
            len(self._waiting),
            self._connects,
            self._reused,
            self.retried,
        )

    # --- taking ---

    def take(self) -> Connection | None:
        """An idle connection, if there is a good one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                connection.reused = True
                self._reused += 1
                return connection
        return None

    async def room(self, until: float, fresh: bool) -> Connection | None:
        """Room to open a connection (None; `opening_over` frees it), or one that came free.

        `fresh`: one that came free will not do, and nobody goes before. Raises `TransportError`
        ("busy") where too many wait, and at the loop time `until`.
        """
        if self.closed:
            raise TransportError("connect", "the client is closed")
        if self._free() and (fresh or not self._waiting):
            self._opening += 1
            return None
        if len(self._waiting) >= self._max_waiting:
            raise TransportError("busy", "too many requests wait for a connection")
        if fresh and self._idle:
            self._idle.pop(0).transport.abort()
        return await self._turn(until, fresh)

    def opening_over(self) -> None:
        """The connection that room was taken for is open, or will not be."""
        self._opening -= 1
        self._grant()

    async def _turn(self, until: float, fresh: bool) -> Connection | None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        self._waiting[waiter] = fresh
        if fresh:
            self._waiting.move_to_end(waiter, last=False)
        timer = loop.call_at(until, _too_late, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._pass_on(waiter)
            raise
        finally:
            timer.cancel()
            self._waiting.pop(waiter, None)

    def _pass_on(self, waiter: "asyncio.Future[Connection | None]") -> None:
        """Whoever waited was cancelled, maybe just after the turn came."""
        if waiter.cancelled() or waiter.exception() is not None:
            return
        if (connection := waiter.result()) is not None:
            self.give_back(connection)
        else:
            self.opening_over()

    # --- giving back; Owner ---

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        self._connects += 1
        if self.closed:
            connection.transport.abort()

    def give_back(self, connection: Connection) -> None:
        if connection.transport.is_closing():
            return
        while self._waiting:
            waiter, fresh = next(iter(self._waiting.items()))
            if fresh and not waiter.done():
                break  # its turn, but with a connection of its own: this one makes room
            del self._waiting[waiter]
            if not waiter.done():
                connection.reused = True
                self._reused += 1
                waiter.set_result(connection)
                return
        if self._waiting or len(self._idle) >= self._max_idle or self.closed:
            connection.transport.abort()
            return
        loop = self._loop
        if loop is None or self._sweeper is None:
            loop = self._loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._idle_limit_s, self._sweep)
        connection.idle_since = loop.time()
        self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)
        self._grant()

    def _free(self) -> bool:
        return len(self._open) + self._opening < self._max_connections

    def _grant(self) -> None:
        while self._waiting and self._free():
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                self._opening += 1
                waiter.set_result(None)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = None
        oldest = loop.time() - self._idle_limit_s
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).transport.abort()
        if self._idle:
            at = self._idle[0].idle_since + self._idle_limit_s
            self._sweeper = loop.call_at(at, self._sweep)

    async def close(self) -> None:
        """Close every connection, and turn away whoever waits. Idempotent."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for waiter in list(self._waiting):
            if not waiter.done():
                waiter.set_exception(TransportError("connect", "the client is closed"))
        self._idle.clear()
        for connection in list(self._open):
            connection.transport.abort()
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._emptied,), timeout=CLOSE_S)


def _too_late(waiter: "asyncio.Future[Connection | None]") -> None:
    if not waiter.done():
        waiter.set_exception(TransportError("busy", "no connection came free in time"))
