"""Timers for many who wait equally long, and of whom hardly anybody waits so long."""

import asyncio
from collections.abc import Callable
from math import frexp
from typing import Protocol

MOST = 64  # lengths of a wait that are kept; whoever waits for another has a timer of their own


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None: ...


class Watch:
    """Calls back after a while. Waits of one length end in the order in which they began, so a
    queue and one timer of the loop do for all of them: to begin and to cancel one is a step.
    """

    def __init__(self) -> None:
        self._queues: dict[float, _Queue] = {}

    def after(self, seconds: float, now: float, call: Callable[[], None]) -> Timer:
        """Call back `seconds` after the loop time `now`, or as soon after it as the loop can."""
        queue = self._queues.get(seconds)
        if queue is None:
            loop = asyncio.get_running_loop()
            if len(self._queues) >= MOST:
                return loop.call_at(now + seconds, call)
            queue = self._queues[seconds] = _Queue(loop, seconds)
        elif queue.loop.is_closed():
            queue = self._queues[seconds] = _Queue(asyncio.get_running_loop(), seconds)
        return queue.add(now, call)

    def within(self, seconds: float, now: float, call: Callable[[], None]) -> Timer:
        """Call back so much later, or earlier: for those who look at the clock, and wait again."""
        exponent = frexp(seconds)[1] - 1
        if exponent < 0:
            return asyncio.get_running_loop().call_at(now + seconds, call)
        return self.after(2.0**exponent, now, call)


class _Queue:
    """Everyone who waits for `seconds`, by when it ends for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self._seconds = seconds
        self._waiting: dict[_Wait, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, now: float, call: Callable[[], None]) -> "_Wait":
        wait = _Wait(self._waiting, now + self._seconds, call)
        self._waiting[wait] = None
        if self._timer is None:
            self._timer = self.loop.call_at(wait.until, self._look)
        return wait

    def _look(self) -> None:
        self._timer = None
        now = self.loop.time()
        while self._waiting:
            wait = next(iter(self._waiting))
            if wait.until > now:
                self._timer = self.loop.call_at(wait.until, self._look)
                return
            del self._waiting[wait]
            try:
                wait.call()
            except Exception as error:
                # As the loop does with a timer of its own; the others still wait.
                context = {"message": "a timer's callback failed", "exception": error}
                self.loop.call_exception_handler(context)


class _Wait:
    __slots__ = ("_among", "call", "until")

    def __init__(self, among: "dict[_Wait, None]", until: float, call: Callable[[], None]) -> None:
        self._among = among
        self.until = until
        self.call = call

    def cancel(self) -> None:
        self._among.pop(self, None)
