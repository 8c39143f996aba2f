"""Virtual time: a loop whose clock jumps to the next timer, and upstreams played from a script."""

import asyncio
import heapq
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from llmr.upstreams.base import ReadTimeout, Send, TransportError

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Never waits: where nothing is ready, its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if not self._ready and scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time; a task left over is an error."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(coroutine)
        left = asyncio.all_tasks(loop)
        assert not left, left
        return result
    finally:
        loop.close()


class Played:
    """An answer: (seconds of waiting, bytes or an error) in turn; counts itself open and closed."""

    open = 0

    def __init__(
        self, status: int, headers: Mapping[str, str], steps: Sequence[tuple[float, bytes | str]]
    ) -> None:
        self.status = status
        self.headers = headers
        self._steps = list(steps)
        self._due: float | None = None
        self._closed = False
        Played.open += 1

    async def read(self, until: float) -> bytes:
        if not self._steps:
            return b""
        loop = asyncio.get_running_loop()
        wait, what = self._steps[0]
        if self._due is None:
            self._due = loop.time() + wait
        if self._due > until:
            await asyncio.sleep(max(0.0, until - loop.time()))
            raise ReadTimeout
        await asyncio.sleep(max(0.0, self._due - loop.time()))
        self._steps.pop(0)
        self._due = None
        if isinstance(what, str):
            raise TransportError(what, "as the script says")
        return what

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            Played.open -= 1


class Scripted:
    """An upstream that answers each model by its script, and remembers what it was sent."""

    def __init__(self, name: str, scripts: Mapping[str, Any]) -> None:
        """A script is called with the number of the send, from 1, and the body."""
        self.name = name
        self.sends: list[tuple[float, str]] = []
        self._scripts = scripts

    async def send(self, request: Send, *, connect_until: float, until: float) -> Played:
        import msgspec

        loop = asyncio.get_running_loop()
        body = msgspec.json.decode(request.body)
        model = body["model"]
        self.sends.append((loop.time(), model))
        count = sum(name == model for _, name in self.sends)
        wait, found = self._scripts[model](count, body)
        limit = connect_until if found == "connect_timeout" else until
        if loop.time() + wait > limit:
            await asyncio.sleep(max(0.0, limit - loop.time()))
            if found == "connect_timeout":
                raise TransportError("connect_timeout", "as the script says")
            raise ReadTimeout
        await asyncio.sleep(wait)
        if isinstance(found, str):
            raise TransportError(found, "as the script says")
        status, headers, steps = found
        return Played(status, headers, steps)

    async def close(self) -> None:
        pass
