"""The small face through which the hot handler answers, and its ASGI adapter."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from llmr.errors import ApiError
from llmr.server.inflate import inflater

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

AHEAD_BYTES = 256 * 1024  # of a stream, given and not yet sent on


class Responder(Protocol):
    """Where an answer goes. `fields` are whole header lines."""

    started: bool

    def whole(self, status: int, fields: bytes, body: bytes) -> None:
        """An answer in one piece."""

    def start(self, fields: bytes) -> None:
        """A stream begins, with status 200."""

    def write(self, data: bytes) -> None:
        """Some of its bytes."""

    def end(self) -> None:
        """It ends."""


class Flow(Protocol):
    """Who gives the answer."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def leave(self) -> None: ...


class AsgiResponder:
    """Collects an answer, and hands it to ASGI's `send` at the caller's pace."""

    __slots__ = ("_ended", "_flow", "_pending", "_receive", "_send", "_size", "_wake", "started")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._pending: list[Message] = []
        self._size = 0
        self._ended = False
        self._flow: Flow | None = None
        self._wake = asyncio.Event()
        self.started = False

    async def body(self, headers: Mapping[str, str], limit: int) -> bytes:
        """The whole request body; a 413 as soon as it is known to exceed `limit` bytes.

        The limit holds for what was sent and for what it decodes to.
        """
        if int(headers.get("content-length", 0)) > limit:
            raise too_large(limit)
        coder = inflater(headers.get("content-encoding"))
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerLeft
            if piece := message.get("body", b""):
                for part in (piece,) if coder is None else coder.feed(piece):
                    pieces.append(part)
                    size += len(part)
                    if size > limit:
                        raise too_large(limit)
                    if coder is not None:
                        await asyncio.sleep(0)
            if not message.get("more_body", False):
                if coder is not None:
                    coder.end()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def relay(self, flow: Flow) -> None:
        """Send what comes until it ends, or the caller leaves."""
        self._flow = flow
        listening = asyncio.get_running_loop().create_task(self._listen(flow))
        try:
            while not self._ended or self._pending:
                if not self._pending:
                    self._wake.clear()
                    await self._wake.wait()
                await self.flush()
                flow.resume()
        finally:
            listening.cancel()
            flow.leave()

    async def flush(self) -> None:
        """Send what there is."""
        pending, self._pending, self._size = self._pending, [], 0
        for message in pending:
            await self._send(message)

    async def _listen(self, flow: Flow) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        flow.leave()
        self._ended = True
        self._wake.set()

    async def pass_on(self, message: Message, name: str) -> None:
        """Send a message of an application that speaks ASGI itself, under the request's name."""
        self.started = True
        if message["type"] == "http.response.start":
            fields = message.setdefault("headers", [])
            if all(field[0] != b"x-request-id" for field in fields):
                message["headers"] = [*fields, (b"x-request-id", name.encode())]
        await self._send(message)

    # --- Responder ---

    def whole(self, status: int, fields: bytes, body: bytes) -> None:
        self._begin(status, fields)
        self._last(body)

    def start(self, fields: bytes) -> None:
        self._begin(200, fields)

    def write(self, data: bytes) -> None:
        self._pending.append({"type": "http.response.body", "body": data, "more_body": True})
        self._size += len(data)
        if self._size > AHEAD_BYTES and self._flow is not None:
            self._flow.pause()
        self._wake.set()

    def end(self) -> None:
        self._last(b"")

    def _begin(self, status: int, fields: bytes) -> None:
        self.started = True
        headers = split(fields)
        self._pending.append({"type": "http.response.start", "status": status, "headers": headers})
        self._wake.set()

    def _last(self, body: bytes) -> None:
        self._pending.append({"type": "http.response.body", "body": body})
        self._ended = True
        self._wake.set()


class CallerLeft(Exception):  # noqa: N818 - says what happened, and is never shown
    """Nobody waits for an answer any more."""


def split(fields: bytes) -> Headers:
    """Header lines as pairs."""
    pairs = (line.partition(b": ") for line in fields.split(b"\r\n") if line)
    return [(name, value) for name, _, value in pairs]


def too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        "body_too_large",
        f"The request body is larger than {limit / 1048576:g} MB. "
        "Send less, or raise limits.body_mb.",
    )
