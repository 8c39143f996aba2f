"""From a name to its addresses: looked up off the loop, remembered, and a few at a time.

A look-up runs in a daemon thread of its own. The loop's own `getaddrinfo` has four threads under
uvloop, which as many hanging names would fill, and a pool's threads hold up the end of the process.
"""

import asyncio
import ipaddress
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any
from weakref import WeakKeyDictionary

from llmr.upstreams.base import TransportError

Address = tuple[int, tuple[Any, ...]]  # family, and where in it
Lookup = Callable[[str, int], Sequence[Address]]
Name = tuple[str, int]

TTL_S = 60.0
STALE_S = 3600.0  # so long an expired answer stands in for a resolver that fails
LATE_S = 0.5  # so long a renewal is waited for where there is an expired answer
RENEW_AFTER_S = 1.0  # a name is not looked up anew sooner than that
AT_ONCE = 8


def system_lookup(host: str, port: int) -> list[Address]:
    """The addresses of a name as the system sees it. Blocks; raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, where) for family, _, _, _, where in found]


def without_lookup(host: str, port: int) -> list[Address]:
    """The addresses of an IP literal and of `localhost`, which need no resolver; else none."""
    if host == "localhost":
        return [*without_lookup("127.0.0.1", port), *without_lookup("::1", port)]
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return []
    if version == 4:
        return [(socket.AF_INET, (host, port))]
    bare, _, scope = host.partition("%")
    return [(socket.AF_INET6, (bare, port, 0, int(scope) if scope.isdigit() else 0))]


class _Known:
    """The addresses of one name. Those that failed of late come last."""

    def __init__(self, addresses: Sequence[Address], looked_up: float) -> None:
        self.addresses = _alternating(addresses)
        self.looked_up = looked_up
        self.failed: dict[Address, float] = {}

    def ordered(self, now: float) -> list[Address]:
        failed = {address for address, at in self.failed.items() if now - at < TTL_S}
        return sorted(self.addresses, key=failed.__contains__)


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """The families in turn, beginning with that of the first, so that one dead family costs one."""
    unique = list(dict.fromkeys(addresses))
    first = [a for a in unique if a[0] == unique[0][0]]
    others = [a for a in unique if a[0] != unique[0][0]]
    return [a for a in chain.from_iterable(zip_longest(first, others)) if a is not None]


class Resolver:
    """Addresses of names, for one loop."""

    def __init__(
        self,
        lookup: Lookup = system_lookup,
        clock: Callable[[], float] = time.monotonic,
        at_once: int = AT_ONCE,
    ) -> None:
        """`lookup` blocks; at most `at_once` run at a time. `clock` (seconds) ages the answers."""
        self._lookup = lookup
        self._clock = clock
        self._at_once = at_once
        self._running = 0
        self._queue: deque[tuple[Name, asyncio.Future[OSError | None]]] = deque()
        self._flights: dict[Name, asyncio.Future[OSError | None]] = {}
        self._known: dict[Name, _Known] = {}

    async def addresses(self, host: str, port: int, until: float) -> list[Address]:
        """The addresses to try, best first, at the loop time `until` at the latest.

        Raises `TransportError` ("name") where there are none by then.
        """
        known = self._known.get((host, port))
        age = self._clock() - known.looked_up if known is not None else STALE_S
        if known is None or age >= STALE_S:
            return await self._asked(host, port, until)
        if age >= TTL_S:
            late = asyncio.get_running_loop().time() + LATE_S
            try:
                return await self._asked(host, port, min(until, late))
            except TransportError:
                pass  # a resolver that is down does not take down an upstream that is not
        return known.ordered(self._clock())

    async def again(self, host: str, port: int, until: float) -> list[Address]:
        """As `addresses`, but not from memory, unless the name was only just looked up."""
        known = self._known.get((host, port))
        if known is not None and self._clock() - known.looked_up < RENEW_AFTER_S:
            return known.ordered(self._clock())
        return await self._asked(host, port, until)

    def failed(self, host: str, port: int, address: Address) -> None:
        """No connection to this address: try it last, and look the name up anew meanwhile."""
        known = self._known.get((host, port))
        if known is not None:
            known.failed[address] = self._clock()
            if self._clock() - known.looked_up >= RENEW_AFTER_S:
                self._flight((host, port))

    async def _asked(self, host: str, port: int, until: float) -> list[Address]:
        flight = self._flight((host, port))
        left = until - asyncio.get_running_loop().time()
        await asyncio.wait((flight,), timeout=max(left, 0.0))
        if not flight.done():
            raise TransportError("name", f"{host} was not resolved in time")
        known = self._known.get((host, port))
        if flight.result() is not None or known is None or not known.addresses:
            raise TransportError("name", f"{host} does not resolve")
        return known.ordered(self._clock())

    # --- look-ups: one for a name at a time, whoever waits for it ---

    def _flight(self, name: Name) -> "asyncio.Future[OSError | None]":
        flight = self._flights.get(name)
        if flight is None:
            flight = self._flights[name] = asyncio.get_running_loop().create_future()
            self._queue.append((name, flight))
            self._start()
        return flight

    def _start(self) -> None:
        while self._queue and self._running < self._at_once:
            name, flight = self._queue.popleft()
            self._running += 1
            thread = threading.Thread(
                target=self._run, args=(name, flight), name="llmr-lookup", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the machine has no more threads
                self._ended(name, flight, OSError("no thread for a look-up"))

    def _run(self, name: Name, flight: "asyncio.Future[OSError | None]") -> None:
        """In the thread."""
        found: Sequence[Address] | OSError
        try:
            found = self._lookup(*name)
        except OSError as error:
            found = error
        except Exception:  # such as a name that no resolver can be asked for: whoever waits is told
            found = OSError("the look-up failed")
        try:
            flight.get_loop().call_soon_threadsafe(self._ended, name, flight, found)
        except RuntimeError:
            pass  # the loop is gone, and whoever asked with it

    def _ended(
        self,
        name: Name,
        flight: "asyncio.Future[OSError | None]",
        found: Sequence[Address] | OSError,
    ) -> None:
        self._running -= 1
        self._flights.pop(name, None)
        if not isinstance(found, OSError):
            self._remember(name, found)
        if not flight.done():
            flight.set_result(found if isinstance(found, OSError) else None)
        self._start()

    def _remember(self, name: Name, addresses: Sequence[Address]) -> None:
        fresh = _Known(addresses, self._clock())
        if (known := self._known.get(name)) is not None:
            fresh.failed = {a: at for a, at in known.failed.items() if a in fresh.addresses}
        self._known[name] = fresh


_of_loops: "WeakKeyDictionary[asyncio.AbstractEventLoop, Resolver]" = WeakKeyDictionary()


def shared_resolver() -> Resolver:
    """The resolver that all origins of the running loop share."""
    loop = asyncio.get_running_loop()
    resolver = _of_loops.get(loop)
    if resolver is None:
        resolver = _of_loops[loop] = Resolver()
    return resolver
