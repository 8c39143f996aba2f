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


class Responder(Protocol):
    """Where an answer goes: head, pieces, end. `closed` says that nobody listens any more."""

    started: bool
    closed: bool

    async def start(self, status: int, headers: Headers) -> None: ...

    async def write(self, data: bytes) -> None: ...

    async def end(self, data: bytes = b"") -> None: ...


class AsgiResponder:
    """Answers through ASGI's `send`, and watches `receive` for the caller leaving."""

    __slots__ = ("_receive", "_send", "_task", "_watch", "closed", "ended", "started", "streams")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._task: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.started = False
        self.streams = False
        self.closed = False
        self.ended: ApiError | None = None  # why the router itself ends the request

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
                self.closed = True
                raise asyncio.CancelledError
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

    def watch(self) -> None:
        """From now on the running task is cancelled when the caller leaves."""
        self._task = asyncio.current_task()
        self._watch = asyncio.get_running_loop().create_task(self._listen())

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.closed = True
        if self._task is not None:
            self._task.cancel()

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.streams = headers[0][1].startswith(b"text/event-stream")
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def pass_on(self, message: Message, name: str) -> None:
        """Send a message of an application that speaks ASGI itself, under the request's name."""
        self.started = True
        if message["type"] == "http.response.start":
            fields = message.setdefault("headers", [])
            if all(field[0] != b"x-request-id" for field in fields):
                message["headers"] = [*fields, (b"x-request-id", name.encode())]
        await self._send(message)

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self.unwatch()
        await self._send({"type": "http.response.body", "body": data})


def too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        "body_too_large",
        f"The request body is larger than {limit / 1048576:g} MB. "
        "Send less, or raise limits.body_mb.",
    )
