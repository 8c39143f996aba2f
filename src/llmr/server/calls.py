"""The requests being answered: how many there may be, and how they end when the process does."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmr.errors import ApiError
from llmr.server.responder import AsgiResponder

MOST = 4096


class Calls:
    """Every request in flight. `refused` counts those turned away, by code."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._running: dict[AsgiResponder, asyncio.Task[Any]] = {}
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

    @contextmanager
    def running(self, responder: AsgiResponder) -> Iterator[None]:
        """The running task answers a request for as long as this lasts."""
        task = asyncio.current_task()
        assert task is not None
        self._running[responder] = task
        try:
            yield
        finally:
            del self._running[responder]

    def end(self) -> list[asyncio.Task[Any]]:
        """End every request now, with an error where its answer has not begun or is a stream."""
        for responder, task in self._running.items():
            responder.ended = _ending("The router shut down before the answer was whole.")
            task.cancel(responder.ended)
        return list(self._running.values())


def _ending(text: str) -> ApiError:
    return ApiError(503, "draining", text, retry_after_s=1.0, retryable=True)
