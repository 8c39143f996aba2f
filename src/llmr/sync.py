"""The library for synchronous code: the same router on an event loop in a thread of its own."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

from llmr import router as asynchronous
from llmr.config import Config
from llmr.router import Chunk, Decided, Result

T = TypeVar("T")


class Router:
    """`llmr.Router` without `await`. Safe to use from several threads."""

    def __init__(
        self, config: Config | Mapping[str, Any] | str | os.PathLike[str] | None = None
    ) -> None:
        """Raises `ConfigError` where the configuration cannot be used."""
        self._router = asynchronous.Router(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="llmr-router", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "Router":
        self._run(self._router.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the background work, close every connection, end the thread. Idempotent."""
        if self._loop.is_closed():
            return
        self._run(self._router.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def chat(self, *, messages: list[Any], **fields: Any) -> Result:
        """A whole answer; see `llmr.Router.chat`."""
        return self._run(self._router.chat(messages=messages, **fields))

    def stream(self, *, messages: list[Any], **fields: Any) -> Iterator[Chunk]:
        """A streamed answer, chunk by chunk; see `llmr.Router.stream`."""
        chunks = self._router.stream(messages=messages, **fields)
        try:
            while (chunk := self._run(_next(chunks))) is not None:
                yield chunk
        finally:
            self._run(_close(chunks))

    def decide(self, *, messages: list[Any], **fields: Any) -> Decided:
        """The decision for a request; see `llmr.Router.decide`."""
        return self._run(self._call(lambda: self._router.decide(messages=messages, **fields)))

    def explain(self, decision_id: str) -> Decided:
        """A past decision, whole."""
        return self._run(self._call(lambda: self._router.explain(decision_id)))

    def models(self) -> list[dict[str, Any]]:
        """Every routable model with its figures and where each comes from."""
        return self._run(self._call(self._router.models))

    def metrics(self) -> dict[str, Any]:
        """The rolling window, as `GET /metrics` gives it."""
        return self._run(self._call(self._router.metrics))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("this Router is closed")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    @staticmethod
    async def _call(function: Callable[[], T]) -> T:
        return function()


async def _next(chunks: AsyncIterator[Chunk]) -> Chunk | None:
    return await anext(chunks, None)


async def _close(chunks: Any) -> None:
    await chunks.aclose()
