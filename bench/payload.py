"""The fixed bytes of the measurements: the requests, the answer, the events of a stream."""

import re

import msgspec

CHAT = "/v1/chat/completions"
TEXT = " ".join(["A fixed answer, as long as answers often are."] * 24)
SENT = re.compile(rb"sent=(\d+\.\d+);")  # when the upstream wrote an event, on the shared clock
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 480, "completion_tokens": 240, "total_tokens": 720}
_IDENTITY = {"id": "chatcmpl-bench", "created": 1_700_000_000, "model": "bench/fixed"}


def request(size: int, stream: bool = False) -> bytes:
    """A chat request of about `size` bytes."""
    system = "You are a careful assistant. Answer in the language of the question."
    fields = {
        "model": "auto",
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": ""},
        ],
        "max_tokens": 400,
        "stream": stream,
    }
    words = "Tell me what a router of language models does, and why. "
    missing = max(1, size - len(msgspec.json.encode(fields)))
    text = (words * (missing // len(words) + 1))[:missing]
    fields["messages"] = [
        {"role": "system", "content": system},
        {"role": "user", "content": text},
    ]
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


def models() -> bytes:
    """A small catalogue."""
    row = {"id": "bench/fixed", "object": "model", "context_length": 1_000_000}
    return msgspec.json.encode({"object": "list", "data": [row]})


def http_post(port: int, body: bytes) -> bytes:
    """A whole HTTP request for a chat completion."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
