"""One HTTP/1.1 connection, seen from the server: requests in, raw bytes out."""

import asyncio
import socket
import struct
import sys
import time
import traceback
from collections.abc import Awaitable, Callable

import msgspec

from llmr.sandbox.script import error_reply

MAX_HEAD = 64 * 1024
MAX_BODY = 256 * 1024 * 1024


class Request(msgspec.Struct):
    """A whole request. Header names are lower case; repeated headers are joined with a comma."""

    method: str
    target: str
    headers: dict[str, str]
    version: str = "HTTP/1.1"
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def keep_alive(self) -> bool:
        wish = self.headers.get("connection", "").lower()
        return wish != "close" if self.version == "HTTP/1.1" else wish == "keep-alive"


class BadRequestError(Exception):
    """What arrived is not a request this server reads; `status` is the fitting answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PeerGoneError(Exception):
    """The other side closed before its request was whole."""


Handler = Callable[[Request, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """Reads requests one after another and hands each to `handler`, which writes the reply.

    When the peer goes away, `peer_gone_t` (monotonic seconds) is set and the running handler is
    cancelled at once, whatever it waits for. TCP_NODELAY is on: asyncio sets it by itself.
    """

    def __init__(self, number: int, handler: Handler, registry: set["Connection"]) -> None:
        self.number = number
        self.busy = False
        self.peer_gone_t: float | None = None
        self._handler = handler
        self._registry = registry
        self._incoming = bytearray()
        self._arrival = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._closing = False
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None]

    # Events of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._registry.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        self._arrival.set()

    def eof_received(self) -> None:
        self._peer_went_away()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.discard(self)
        self._peer_went_away()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _peer_went_away(self) -> None:
        if self._closing or self.peer_gone_t is not None:
            return
        self.peer_gone_t = time.monotonic()
        if self.busy:
            self._task.cancel()
        else:
            self._arrival.set()

    # What a handler may do.

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the peer has read enough for more to be written."""
        await self._writable.wait()

    def close(self) -> None:
        """Close once everything written has left."""
        self._closing = True
        self._transport.close()

    def abandon(self) -> None:
        """Stop whatever is being answered or awaited, and close."""
        self._closing = True
        self._task.cancel()

    async def reset(self) -> None:
        """Send what was written, then a TCP reset instead of an orderly end."""
        self._transport.set_write_buffer_limits(high=0)
        await self.drain()
        self._closing = True
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # The loop over requests.

    async def _serve(self) -> None:
        try:
            while not self._closing:
                request = await self._read_request()
                self.busy = True
                if self.peer_gone_t is not None:
                    self._task.cancel()  # Takes effect where the handler first waits.
                await self._handler(request, self)
                self.busy = False
                if not request.keep_alive:
                    break
        except BadRequestError as error:
            self._refuse(error)
        except (asyncio.CancelledError, PeerGoneError):
            pass
        except Exception:  # the root of its task: a mistake is told, and ends this connection only
            traceback.print_exc(file=sys.stderr)
        finally:
            self.close()

    def _refuse(self, error: BadRequestError) -> None:
        script = error_reply(error.status, str(error), {"connection": "close"})
        self.write(script.head + b"".join(step.data for step in script.steps))

    async def _read_request(self) -> Request:
        head = await self._read_until(b"\r\n\r\n")
        request = parse_head(head)
        if request.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in request.headers.get("transfer-encoding", "").lower():
            request.body = await self._read_chunks()
        elif length := request.headers.get("content-length"):
            request.body = await self._read_exactly(_size(length, 10))
        return request

    async def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := _size((await self._read_until(b"\r\n")).partition(b";")[0].decode(), 16):
            body += await self._read_exactly(size)
            if len(body) > MAX_BODY:
                raise BadRequestError(413, "request body too large")
            await self._read_until(b"\r\n")
        while await self._read_until(b"\r\n"):
            pass
        return bytes(body)

    async def _read_until(self, mark: bytes) -> bytes:
        seen = 0
        while (at := self._incoming.find(mark, seen)) < 0:
            if len(self._incoming) > MAX_HEAD:
                raise BadRequestError(431, "request head too large")
            seen = max(0, len(self._incoming) - len(mark) + 1)
            await self._wait_for_data()
        found = bytes(self._incoming[:at])
        del self._incoming[: at + len(mark)]
        return found

    async def _read_exactly(self, size: int) -> bytes:
        if size > MAX_BODY:
            raise BadRequestError(413, "request body too large")
        while len(self._incoming) < size:
            await self._wait_for_data()
        found = bytes(self._incoming[:size])
        del self._incoming[:size]
        return found

    async def _wait_for_data(self) -> None:
        if self.peer_gone_t is not None:
            raise PeerGoneError
        self._arrival.clear()
        await self._arrival.wait()


def parse_head(head: bytes) -> Request:
    """The request line and headers, without the blank line. Raises `BadRequestError`."""
    first, *lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequestError(400, "malformed request line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError(400, "malformed header line")
        key, value = name.strip().lower(), value.strip()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return Request(words[0], words[1], headers, words[2])


def _size(text: str, base: int) -> int:
    try:
        size = int(text.strip(), base)
    except ValueError:
        raise BadRequestError(400, "malformed length") from None
    if size < 0:
        raise BadRequestError(400, "negative length")
    return size
