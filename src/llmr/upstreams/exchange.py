"""One request on its way to an origin: onto a connection, and from there to its receiver."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from llmr.upstreams.base import Pieces, Receiver, TransportError

log = logging.getLogger("llmr.upstreams")


class Wire(Protocol):
    """What an exchange wants of the connection it is on."""

    reused: bool

    def start(self, exchange: "Exchange", head: bytes, body: Pieces, bodiless: bool) -> None:
        """Send a request. `bodiless`: its answer has no body, whatever its head says."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Go on reading."""

    def give_up(self, exchange: "Exchange") -> None:
        """Nobody wants the rest of the answer."""


class Dialing(Protocol):
    """Who has connections, and opens them."""

    @property
    def host(self) -> str: ...

    async def connection(self, until: float, fresh: bool) -> Wire:
        """One that came free meanwhile, unless it must be fresh, or a new one."""


class Exchange(Struct, eq=False):
    """Implements `Line`. Belongs to its connection from `on` until it is `over`."""

    _origin: Dialing
    _head: bytes
    _body: Pieces
    _bodiless: bool
    receiver: Receiver
    _connect_s: float
    _wire: Wire | None = None
    _dialing: asyncio.Task[None] | None = None
    _leaving: asyncio.TimerHandle | None = None
    _again: bool = False
    _paused: bool = False
    begun: bool = False  # the head of the answer has come
    over: bool = False

    # --- to a connection ---

    def on(self, wire: Wire) -> None:
        """Send on this connection."""
        self._wire = wire
        wire.start(self, self._head, self._body, self._bodiless)
        if self._paused:
            wire.pause()

    def dial(self, *, fresh: bool) -> None:
        """Send on a connection that is still to be had."""
        self._dialing = asyncio.get_running_loop().create_task(self._dial(fresh))

    async def _dial(self, fresh: bool) -> None:
        until = asyncio.get_running_loop().time() + self._connect_s
        try:
            wire = await self._origin.connection(until, fresh)
            self._dialing = None
            self.on(wire)
        except TransportError as error:
            self._dialing = None
            self.fail(error)
        except Exception:
            # The root of a task: what it does not tell the receiver, nobody would.
            log.exception("a connection failed inside the router")
            self._dialing = None
            self.fail(TransportError("connect", "the router failed; its log says where"))

    # --- Line ---

    def pause(self) -> None:
        self._paused = True
        if self._wire is not None and not self.over:
            self._wire.pause()

    def resume(self) -> None:
        self._paused = False
        if self._wire is not None and not self.over:
            self._wire.resume()

    def close(self) -> None:
        if self.over:
            return
        self._ends()
        if self._dialing is not None:
            self._dialing.cancel()
        if self._wire is not None:
            self._wire.give_up(self)

    def leave(self, seconds: float) -> None:
        if not self.over:
            self.resume()
            self.receiver = _Rest(self)
            self._leaving = asyncio.get_running_loop().call_later(seconds, self.close)

    # --- for the connection ---

    def whole(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """All of the answer, when the connection is free again."""
        self.begun = self.over = True
        receiver, self.receiver = self.receiver, NOBODY
        receiver.whole(status, headers, body)

    def begin(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self.begun = True
        self.receiver.head(status, headers)

    def finish(self) -> None:
        self._ends().ended()

    def fail(self, error: TransportError) -> None:
        if self.over:
            return
        if error.kind == "reset" and not self.begun and self._wire is not None:
            if self._again:
                # Fresh ones as well: no stale connection, and not worth a third try.
                error = TransportError("connect", f"{self._origin.host} resets every request")
            elif self._wire.reused:
                # The peer had closed it while it lay idle: unseen, and once, on a fresh one.
                self._again = True
                self._wire = None
                self.dial(fresh=True)
                return
        self._ends().failed(error)

    def _ends(self) -> Receiver:
        """It is over. Lets go of the receiver, or the two would keep each other alive."""
        self.over = True
        if self._leaving is not None:
            self._leaving.cancel()
        receiver, self.receiver = self.receiver, NOBODY
        return receiver


class _Rest:
    """Takes what nobody waits for any more: the end is welcome, anything else is not."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange | None) -> None:
        self._exchange = exchange

    def whole(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> None: ...

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None: ...

    def data(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.close()

    def ended(self) -> None: ...

    def failed(self, error: TransportError) -> None: ...


NOBODY = _Rest(None)
