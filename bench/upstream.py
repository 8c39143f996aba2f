"""An OpenAI-compatible upstream that answers at once, so that what is left is the router's cost.

`python -m bench.upstream` prints its port as JSON and runs until its standard input is closed.
"""

import argparse
import asyncio
import sys
import threading
import time
from typing import Any

import httptools
import uvloop

from bench import payload

STREAMED = (b'"stream":true', b'"stream": true')


class Replies:
    """Everything that is ever answered, as bytes."""

    def __init__(self, events: int, interval_s: float, catalogue: bool) -> None:
        self.events = events
        self.interval_s = interval_s
        self.completion = _whole(200, payload.completion())
        missing = _whole(404, b'{"error":{"message":"There is nothing here.","code":404}}')
        self.missing = missing
        self.models = _whole(200, payload.models()) if catalogue else missing
        self.stream_head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
        ) + _chunk(payload.event(None))
        before, _, after = payload.event("sent=@;").partition(b"@")
        self.around = before, after
        tail = payload.event("", "stop") + payload.usage_event() + payload.DONE
        self.stream_tail = _chunk(tail) + b"0\r\n\r\n"

    def event(self) -> bytes:
        """An event that says when it was sent."""
        before, after = self.around
        return _chunk(b"%s%.6f%s" % (before, time.perf_counter(), after))


def _whole(status: int, body: bytes) -> bytes:
    reason = "OK" if status == 200 else "Not Found"
    head = (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One caller, by callbacks alone: no task, no future."""

    def __init__(self, replies: Replies, loop: asyncio.AbstractEventLoop) -> None:
        self.replies = replies
        self.loop = loop
        self.transport: Any = None
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self.body)
        self.body = []
        url, post = self.url, self.parser.get_method() == b"POST"
        if post and url.endswith(b"/chat/completions"):
            if any(mark in body for mark in STREAMED):
                self.transport.write(self.replies.stream_head)
                self.stream(0, self.loop.time())
            else:
                self.transport.write(self.replies.completion)
        elif not post and url.endswith(b"/models"):
            self.transport.write(self.replies.models)
        else:
            self.transport.write(self.replies.missing)

    def stream(self, number: int, due: float) -> None:
        """Send the events one by one at a fixed beat, however long each took to send."""
        if self.transport.is_closing():
            return
        if number < self.replies.events:
            self.transport.write(self.replies.event())
            due += self.replies.interval_s
            self.loop.call_at(due, self.stream, number + 1, due)
        else:
            self.transport.write(self.replies.stream_tail)


async def serve(replies: Replies) -> None:
    """Serve on a free port of the loopback until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wait() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    server = await loop.create_server(
        lambda: Connection(replies, loop), "127.0.0.1", 0, backlog=2048
    )
    print(f'{{"port": {server.sockets[0].getsockname()[1]}}}', flush=True)
    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
    server.close()


def main() -> None:
    """Read the flags and serve."""
    parser = argparse.ArgumentParser(prog="python -m bench.upstream", description=__doc__)
    parser.add_argument("--events", type=int, default=100, help="events of a stream")
    parser.add_argument("--interval-ms", type=float, default=20.0, help="between two of them")
    parser.add_argument("--no-models", action="store_true", help="answer GET /models with 404")
    given = parser.parse_args()
    replies = Replies(given.events, given.interval_ms / 1000.0, not given.no_models)
    uvloop.install()
    asyncio.run(serve(replies))


if __name__ == "__main__":
    main()
