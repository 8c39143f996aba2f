"""For tests of the client alone: a loop that must be left clean, and a scripted server in it."""

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import uvloop

from llmr.upstreams import reading
from llmr.upstreams.base import Send, TransportError
from llmr.upstreams.http import Origin
from llmr.upstreams.reading import Reading

Check = Callable[[Origin, "Served"], Coroutine[Any, Any, None]]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Loops differ in when they tell of a closed connection, and in what they forget.
each_loop = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def open_files() -> int:
    """File descriptors of this process, sockets among them."""
    return len(os.listdir("/dev/fd"))


def run(main: Callable[[], Coroutine[Any, Any, None]], loop: str = "uvloop") -> None:
    """Run `main`; afterwards no socket and no task of its may be left."""
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop

    async def checked() -> None:
        async with serving(hold):  # loops keep a descriptor in reserve from the first server on
            pass
        files, tasks = open_files(), len(asyncio.all_tasks())
        await main()
        await until_true(
            lambda: open_files() <= files and len(asyncio.all_tasks()) <= tasks,
            lambda: f"left: {open_files() - files} files, {len(asyncio.all_tasks()) - tasks} tasks",
        )

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(checked())


async def until_true(holds: Callable[[], bool], what: Callable[[], str] = str) -> None:
    """Wait for something other tasks bring about, at most 2 s."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.002)
    raise AssertionError(f"never came true: {what()}")


async def at_rest(figure: Callable[[], int], for_s: float = 0.05) -> int:
    """Wait until a figure has stood still for so long; the figure."""
    loop = asyncio.get_running_loop()
    last, since = figure(), loop.time()
    while loop.time() - since < for_s:
        await asyncio.sleep(0.002)
        if (now := figure()) != last:
            last, since = now, loop.time()
    return last


class Served:
    """A server of the loop: its port, and the connections it has had."""

    def __init__(self) -> None:
        self.port = 0
        self.accepted = 0
        self.gone = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Served]:
    """A server that gives every connection to `handler`, and closes it when that returns."""
    served = Served()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        served.accepted += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            writer.close()
            served.gone += 1
            tasks.discard(task)

    server = await asyncio.start_server(accept, host, port, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        # A server of asyncio closed while it accepts leaves what it accepted open.
        await asyncio.sleep(0.02)
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            size = int(line.partition(b":")[2])
    return head + await reader.readexactly(size)


def answering(*replies: bytes, close: bool = False) -> Handler:
    """Each request of a connection gets the next reply, the last one again and again."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(10**6):
            await request_of(reader)
            writer.write(replies[min(number, len(replies) - 1)])
            await writer.drain()
            if close and number >= len(replies) - 1:
                return

    return handle


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and say nothing, until the peer goes."""
    while await reader.read(65536):
        pass


async def send(
    origin: Origin,
    *,
    connect_s: float = 1.0,
    within_s: float = 2.0,
    method: str = "POST",
    body: bytes = b"{}",
) -> Reading:
    now = asyncio.get_running_loop().time()
    wish = Send(method, "/x", (body,))
    return await reading.send(origin, wish, connect_until=now + connect_s, until=now + within_s)


async def whole(response: Reading, within_s: float = 2.0) -> bytes:
    """The body, read to its end."""
    until = asyncio.get_running_loop().time() + within_s
    pieces = []
    try:
        while data := await response.read(until):
            pieces.append(data)
    finally:
        response.close()
    return b"".join(pieces)


async def fetch(origin: Origin, **more: Any) -> bytes:
    return await whole(await send(origin, **more))


def exchange(handler: Handler, check: Check, loop: str = "uvloop", **more: Any) -> None:
    """Run `check` on an origin whose server is `handler`, then close it and look what is left."""

    async def main() -> None:
        async with serving(handler) as served:
            origin = Origin("x", served.url, environ={}, **more)
            await check(origin, served)
            await origin.close()
            await origin.close()
            assert origin.statistics().open == 0

    run(main, loop)


async def fails(origin: Origin, kind: str, **more: Any) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await fetch(origin, **more)
    assert caught.value.kind == kind
    return caught.value


def reply(body: bytes, *fields: str, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"content-length: {size}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(*chunks: bytes, fields: str = "", end: bytes = b"0\r\n\r\n") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{fields}\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + end


@contextmanager
def serving_beside(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[Served]:
    """As `serving`, in a loop and thread of its own."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # a refused handshake is not news here
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, loop).result(5)

    async def start(stack: AsyncExitStack) -> Served:
        return await stack.enter_async_context(serving(handler, tls))

    stack = AsyncExitStack()
    try:
        yield do(start(stack))
    finally:
        do(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
