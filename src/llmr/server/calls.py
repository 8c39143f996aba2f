"""The requests being answered: how many there may be, and how they end when the process does."""

from collections import Counter
from typing import Protocol

from llmr.errors import ApiError
from llmr.outbox import Outbox
from llmr.watch import Watch

MOST = 4096


class Running(Protocol):
    """A request being answered."""

    def stop(self, error: ApiError) -> None:
        """End it now, with an error where its answer has not begun or is a stream."""


class Calls:
    """Every request in flight. `refused` counts those turned away, by code."""

    def __init__(self, outbox: Outbox, most: int = MOST) -> None:
        """`outbox` is that of the gateway, and of every one after it."""
        self._most = most
        self._running: set[Running] = set()
        self.outbox = outbox
        self.watch = Watch()
        self.draining = False
        self.refused: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._running)

    def admit(self, crowded: bool) -> None:
        """A 503 at once where no more can be taken on."""
        error = None
        if self.draining:
            error = _ending("This router is shutting down; another one may answer.")
        elif crowded or len(self._running) >= self._most:
            text = "The router has as many requests in flight as it can carry. Try again shortly."
            error = ApiError(503, "overloaded", text, retry_after_s=1.0, retryable=True)
        if error is not None:
            self.refused[error.code] += 1
            raise error

    def begun(self, call: Running) -> None:
        self._running.add(call)

    def over(self, call: Running) -> None:
        self._running.discard(call)

    def end(self) -> int:
        """End every request now; how many there were."""
        running = list(self._running)
        for call in running:
            call.stop(_ending("The router shut down before the answer was whole."))
        self.outbox.flush()
        return len(running)


def _ending(text: str) -> ApiError:
    return ApiError(503, "draining", text, retry_after_s=1.0, retryable=True)
