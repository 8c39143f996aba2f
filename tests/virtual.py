"""Virtual time: a loop whose clock jumps to the next timer, and upstreams played from a script."""

import asyncio
import heapq
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from llmr.upstreams.base import Receiver, Send, TransportError

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

    def __init__(self, playing: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(playing)
        self._go = asyncio.Event()
        self._go.set()
        self._begun = self._closed = False

    async def play(
        self,
        receiver: Receiver,
        status: int,
        headers: Mapping[str, str],
        steps: Sequence[tuple[float, bytes | str]],
    ) -> None:
        """Tell the receiver, step by step."""
        Played.open += 1
        self._begun = True
        receiver.head(status, {k.encode(): v.encode() for k, v in headers.items()})
        for wait, what in steps:
            await asyncio.sleep(wait)
            await self._go.wait()
            if self._closed:
                return
            if isinstance(what, str):
                self._over()
                receiver.failed(TransportError(what, "as the script says"))
                return
            receiver.data(what)
        if not self._closed:
            self._over()
            receiver.ended()

    def _over(self) -> None:
        if self._begun:
            self._begun = False
            Played.open -= 1

    # --- Line ---

    def pause(self) -> None:
        self._go.clear()

    def resume(self) -> None:
        self._go.set()

    def close(self) -> None:
        self._closed = True
        self._over()
        self._task.cancel()

    def leave(self, seconds: float) -> None:
        self.close()


class Scripted:
    """An upstream that answers each model by its script, and remembers what it was sent."""

    def __init__(self, name: str, scripts: Mapping[str, Any]) -> None:
        """A script is called with the number of the send, from 1, and the body."""
        self.name = name
        self.sends: list[tuple[float, str]] = []
        self._scripts = scripts

    def start(self, request: Send, receiver: Receiver, connect_s: float) -> Played:
        loop = asyncio.get_running_loop()
        body = msgspec.json.decode(b"".join(request.pieces))
        model = body["model"]
        self.sends.append((loop.time(), model))
        count = sum(name == model for _, name in self.sends)
        wait, found = self._scripts[model](count, body)

        async def playing() -> None:
            if found == "connect_timeout":
                await asyncio.sleep(min(wait, connect_s))
            else:
                await asyncio.sleep(wait)
            if isinstance(found, str):
                receiver.failed(TransportError(found, "as the script says"))
            else:
                await line.play(receiver, *found)

        line = Played(playing())
        return line

    async def close(self) -> None:
        pass
