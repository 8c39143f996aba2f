"""The fixed bytes of the measurements: the requests, the answer, the events of a stream."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

CHAT = "/v1/chat/completions"
TEXT = " ".join(["A fixed answer, as long as answers often are."] * 24)
MARK = "event=000000 sent=0000000000000000000;"  # the upstream writes its number and the time
DONE = b"data: [DONE]\n\n"
HOLD = "hold="  # in the text of a request: the upstream keeps it waiting, where it is told to
USAGE = {"prompt_tokens": 480, "completion_tokens": 240, "total_tokens": 720}
_IDENTITY = {"id": "chatcmpl-bench", "created": 1_700_000_000, "model": "bench/fixed"}


class Target(Struct, frozen=True):
    """Something that answers chat requests on the loopback."""

    port: int
    path: str = CHAT
    model: str = "auto"
    headers: dict[str, str] = {}


def request(size: int, stream: bool = False, model: str = "auto", **more: Any) -> bytes:
    """A chat request of about `size` bytes."""
    system = "You are a careful assistant. Answer in the language of the question."
    fields: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": ""},
        ],
        "max_tokens": 400,
        **more,
        "stream": stream,
    }
    words = "Tell me what a router of language models does, and why. "
    missing = max(1, size - len(msgspec.json.encode(fields)))
    fields["messages"][1]["content"] = (words * (missing // len(words) + 1))[:missing]
    return msgspec.json.encode(fields)


def completion() -> bytes:
    """The whole answer: 1.4 KB."""
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return msgspec.json.encode(
        {**_IDENTITY, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    )


def event(content: str | None, finish: str | None = None) -> bytes:
    """One event of a stream, with content or without."""
    delta = {"role": "assistant"} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _event({"choices": [choice]})


def usage_event() -> bytes:
    """The event before the end that says what the answer took."""
    return _event({"choices": [], "usage": USAGE})


def _event(fields: dict[str, object]) -> bytes:
    data = {**_IDENTITY, "object": "chat.completion.chunk", **fields}
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def http_post(target: Target, body: bytes) -> bytes:
    """A whole HTTP request for a chat completion."""
    fields = {
        "host": f"127.0.0.1:{target.port}",
        "content-type": "application/json",
        **target.headers,
        "content-length": str(len(body)),
    }
    head = f"POST {target.path} HTTP/1.1\r\n"
    return (head + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode() + body


def write_requests(file: Path, requests: Iterable[tuple[bytes, bool]]) -> None:
    """Requests and whether each is streamed, in the form the load generator reads."""
    parts = []
    for data, stream in requests:
        parts += [b"%d %s\n" % (len(data), b"stream" if stream else b"whole"), data]
    file.write_bytes(b"".join(parts))


def write_replies(folder: Path) -> None:
    """Everything the upstream ever answers, a file each."""
    folder.mkdir()
    missing = b'{"error":{"message":"There is nothing here.","code":404}}'
    tail = event("", "stop") + usage_event() + DONE
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for name, data in {
        "whole": _whole(b"200 OK", completion()),
        "missing": _whole(b"404 Not Found", missing),
        "head": head + _chunk(event(None)),
        "event": _chunk(event(MARK)),
        "tail": _chunk(tail) + b"0\r\n\r\n",
    }.items():
        (folder / name).write_bytes(data)


def _whole(status: bytes, body: bytes) -> bytes:
    fields = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 %s\r\n%s%s" % (status, fields, body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
