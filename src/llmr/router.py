"""The library: the router inside a program of one's own."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

import msgspec

from llmr import config as configuration
from llmr.config import Config
from llmr.core.body import Body
from llmr.errors import ApiError
from llmr.gateway import Gateway
from llmr.listing import model_rows
from llmr.native import native, summarised
from llmr.ticket import Ticket

TENANT = b"library"
AHEAD = 64  # pieces of a stream the reader may be behind


class Shaped(dict[str, Any]):
    """A JSON object whose keys can also be read as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(name) from None
        return _shaped(value)


def _shaped(value: Any) -> Any:
    if type(value) is dict:
        return Shaped(value)
    if type(value) is list:
        return [_shaped(item) for item in value]
    return value


class Decided(Shaped):
    """A routing decision: `selected_model`, `reason`, `candidates`, `weights_used`, …"""


class Result(Shaped):
    """A whole answer: `choices`, `usage`, `model`, `routing_decision`, `latency_ms`, `cached`."""

    @property
    def text(self) -> str:
        """The text of the first choice, empty where it is a tool call."""
        content = self["choices"][0]["message"].get("content")
        return content if isinstance(content, str) else ""


class Chunk(Shaped):
    """One chunk of a streamed answer, as the upstream sent it."""

    @property
    def text(self) -> str:
        """The text this chunk adds to the first choice."""
        choices: Any = self.get("choices") or ({},)
        content = (choices[0].get("delta") or {}).get("content")
        return content if isinstance(content, str) else ""


class Router:
    """Routes chat requests from inside a program.

    Takes the configuration of the file: a mapping, a `Config`, the path of a file, or nothing for
    what `llmr serve` would use here. Use it as an async context manager, or call `start` and
    `close`. `decide` needs neither.
    """

    def __init__(
        self, config: Config | Mapping[str, Any] | str | os.PathLike[str] | None = None
    ) -> None:
        """Raises `ConfigError` where the configuration cannot be used."""
        if isinstance(config, Config):
            self.config = config
        elif isinstance(config, Mapping):
            self.config = configuration.build(config)
        else:
            self.config = configuration.load(config)
        self._gateway = Gateway(self.config)
        self._started = False

    async def __aenter__(self) -> "Router":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the background work. `chat` and `stream` do so by themselves."""
        if not self._started:
            self._started = True
            await self._gateway.start()

    async def close(self) -> None:
        """Stop the background work and close every connection."""
        await self._gateway.close()
        self._started = False

    async def chat(self, *, messages: list[Any], **fields: Any) -> Result:
        """A whole answer. `fields` are those of a chat completion and the routing wishes.

        Raises `ApiError` where none could be had; its `code`, `status` and message say why.
        """
        await self.start()
        sink = _Whole()
        await self._answer({**fields, "messages": messages, "stream": False}, sink)
        return Result(msgspec.json.decode(sink.body))

    async def stream(self, *, messages: list[Any], **fields: Any) -> AsyncIterator[Chunk]:
        """A streamed answer, chunk by chunk.

        Raises `ApiError`, before the first chunk or in the middle: a cut answer never ends quietly.
        """
        await self.start()
        sink = _Stream()
        task = asyncio.ensure_future(
            self._answer({**fields, "messages": messages, "stream": True}, sink)
        )
        task.add_done_callback(lambda _: sink.finish())
        try:
            async for data in sink.pieces():
                for block in data.split(b"\n\n"):
                    if block.startswith(b"data: {"):
                        yield _chunk(block[6:])
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def decide(self, *, messages: list[Any], **fields: Any) -> Decided:
        """The decision for a request, worked out here and now: nothing is sent, nothing awaited."""
        gateway = self._gateway
        body = Body(msgspec.json.encode({**fields, "messages": messages}))
        decision = gateway.decide(gateway.request(body, {}, "route"))
        return Decided(summarised(decision, gateway.decisions.add(decision, TENANT)))

    def explain(self, decision_id: str) -> Decided:
        """A past decision, whole: every candidate, every exclusion, and what came of it."""
        return Decided(self._gateway.decisions.explain(decision_id, TENANT))

    def models(self) -> list[dict[str, Any]]:
        """Every routable model with its figures and where each comes from."""
        return model_rows(self._gateway.snapshot, self._gateway.telemetry)

    def metrics(self) -> dict[str, Any]:
        """The rolling window, as `GET /metrics` gives it."""
        return self._gateway.window.figures(time.monotonic())

    async def _answer(self, fields: Mapping[str, Any], sink: "_Whole | _Stream") -> None:
        body = Body(msgspec.json.encode(fields))
        ticket = Ticket("route", TENANT, time.monotonic())
        await self._gateway.answer(body, {}, ticket, sink)


def _chunk(data: bytes) -> Chunk:
    chunk = msgspec.json.decode(data)
    error = chunk.get("error")
    if isinstance(error, dict):
        raise ApiError(
            502, error.get("code") or "upstream_error", error.get("message") or "", retryable=True
        )
    return Chunk(chunk)


class _Whole:
    """Takes a whole answer."""

    def __init__(self) -> None:
        self.body = b""

    async def begin(self, ticket: Ticket) -> None:
        raise AssertionError("a whole answer was asked for")

    async def write(self, data: bytes) -> None:
        raise AssertionError("a whole answer was asked for")

    async def whole(self, ticket: Ticket, completion: bytes) -> None:
        self.body = native(ticket, completion, time.time())


class _Stream:
    """Takes a streamed answer; the writer waits while the reader is far behind."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(AHEAD)

    async def begin(self, ticket: Ticket) -> None:
        pass

    async def write(self, data: bytes) -> None:
        await self._room.acquire()
        self._queue.put_nowait(data)

    async def whole(self, ticket: Ticket, completion: bytes) -> None:
        raise AssertionError("a stream was asked for")

    def finish(self) -> None:
        self._queue.put_nowait(None)

    async def pieces(self) -> AsyncIterator[bytes]:
        while (data := await self._queue.get()) is not None:
            self._room.release()
            yield data
