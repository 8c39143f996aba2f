"""The library: the router inside a program of one's own."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

import msgspec

from llmr import config as configuration
from llmr.answering import Answering
from llmr.config import Config
from llmr.core.body import Body
from llmr.errors import ApiError
from llmr.gateway import Gateway
from llmr.native import native, summarised
from llmr.ticket import Ticket

TENANT = b"library"
AHEAD_BYTES = 256 * 1024  # of a stream, given and not yet taken


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
        sink = _Sink()
        answering = self._answer({**fields, "messages": messages, "stream": False}, sink)
        try:
            async for data in sink.pieces(answering):
                body = data
        finally:
            answering.cancel()
        return Result(msgspec.json.decode(body))

    async def stream(self, *, messages: list[Any], **fields: Any) -> AsyncIterator[Chunk]:
        """A streamed answer, chunk by chunk.

        Raises `ApiError`, before the first chunk or in the middle: a cut answer never ends quietly.
        """
        await self.start()
        sink = _Sink()
        answering = self._answer({**fields, "messages": messages, "stream": True}, sink)
        try:
            async for data in sink.pieces(answering):
                for block in data.split(b"\n\n"):
                    if block.startswith(b"data: {"):
                        yield _chunk(block[6:])
        finally:
            answering.cancel()

    def decide(self, *, messages: list[Any], **fields: Any) -> Decided:
        """The decision for a request, worked out here and now: nothing is sent, nothing awaited."""
        gateway = self._gateway
        body = Body(msgspec.json.encode({**fields, "messages": messages}))
        decision = gateway.decide(gateway.request(body, {}, "route"))
        return Decided(summarised(decision, gateway.decisions.add(decision, TENANT).id))

    def explain(self, decision_id: str) -> Decided:
        """A past decision, whole: every candidate, every exclusion, and what came of it."""
        return Decided(self._gateway.decisions.explain(decision_id, TENANT))

    def models(self) -> list[dict[str, Any]]:
        """Every routable model with its figures and where each comes from."""
        return self._gateway.model_rows()

    def metrics(self) -> dict[str, Any]:
        """The rolling window, as `GET /metrics` gives it."""
        return self._gateway.figures()

    def _answer(self, fields: Mapping[str, Any], sink: "_Sink") -> Answering:
        now = time.monotonic()
        ticket = Ticket("route", TENANT, now, now)
        answering = Answering(self._gateway, ticket, sink, sink.write)
        answering.start(msgspec.json.encode(fields), {})
        return answering


def _chunk(data: bytes) -> Chunk:
    chunk = msgspec.json.decode(data)
    error = chunk.get("error")
    if isinstance(error, dict):
        raise ApiError(
            502, error.get("code") or "upstream_error", error.get("message") or "", retryable=True
        )
    return Chunk(chunk)


class _Sink:
    """Takes an answer for someone who waits for it; the answer waits while they are far behind."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False
        self._error: ApiError | None = None
        self._answering: Answering | None = None
        self._wake = asyncio.Event()

    async def pieces(self, answering: Answering) -> AsyncIterator[bytes]:
        """What comes, as it comes; raises what the caller was not told yet."""
        self._answering = answering
        while True:
            for piece in self._taken():
                yield piece
            if self._pieces:
                continue
            if self._over:
                break
            self._wake.clear()
            answering.resume()
            if self._pieces or self._over:
                continue
            await self._wake.wait()
        if self._error is not None:
            raise self._error

    def _taken(self) -> list[bytes]:
        pieces, self._pieces, self._size = self._pieces, [], 0
        return pieces

    # --- AnswerSink ---

    def begin(self, ticket: Ticket) -> None: ...

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > AHEAD_BYTES and self._answering is not None:
            self._answering.pause()
        self._wake.set()

    def whole(self, ticket: Ticket, completion: bytes) -> None:
        self.write(native(ticket, completion, time.time()))

    def end(self, ticket: Ticket, error: ApiError | None) -> None:
        self._over, self._error = True, error
        self._wake.set()
