"""What the tests ask, by a client that hides nothing: bytes, and how the connection ended."""

import contextlib
import json
import socket
import time
from typing import Any, NamedTuple

import openai

from llmr.sandbox.process import SandboxProcess

MODEL = "openai/gpt-5.4"
HELLO = [{"role": "user", "content": "hello"}]
SHORT = {"retry_after_s": 2, "silent_s": 0.1, "slow_first_token_s": 0.1, "stall_s": 0.1}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 3},
                "unit": {"enum": ["celsius", "kelvin"]},
            },
            "required": ["city", "days", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
TOOLS = [WEATHER, CLOCK]


class Wire(NamedTuple):
    """All bytes of a reply, and how it ended: "eof", "reset", or "open" after `patience`."""

    data: bytes
    end: str

    @property
    def head(self) -> str:
        return self.data.partition(b"\r\n\r\n")[0].decode()

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1])

    @property
    def raw_body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def chunked(self) -> bool:
        return "transfer-encoding: chunked" in self.head

    @property
    def body(self) -> bytes:
        return dechunked(self.raw_body)[0] if self.chunked else self.raw_body

    @property
    def whole(self) -> bool:
        """Whether the framing says that nothing is missing, and nothing is left over."""
        if self.chunked:
            return dechunked(self.raw_body)[1]
        return f"content-length: {len(self.raw_body)}\r\n" in self.head + "\r\n"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data_lines(self) -> list[str]:
        lines = self.body.decode().split("\n")
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        found = []
        for line in self.data_lines:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    @property
    def pieces(self) -> list[str]:
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", [])]
        return [delta["content"] for delta in deltas if delta.get("content")]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def dechunked(data: bytes) -> tuple[bytes, bool]:
    """The body, and whether it ended with an end chunk and nothing after it."""
    body = b""
    while True:
        line, found, rest = data.partition(b"\r\n")
        try:
            size = int(line, 16)
        except ValueError:
            return body, False
        if not found or len(rest) < size + 2:
            return body + rest[:size], False
        if size == 0:
            return body, rest == b"\r\n"
        body, data = body + rest[:size], rest[size + 2 :]


def connect(sandbox: SandboxProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", sandbox.port), timeout=5)


def post(body: object, path: str = "/api/v1/chat/completions", extra: str = "") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: sandbox\r\ncontent-length: {len(content)}\r\n{extra}\r\n"
    return head.encode() + content


def get(path: str, extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n{extra}\r\n".encode()


def receive(sock: socket.socket, patience: float = 5.0) -> Wire:
    data = b""
    deadline = time.monotonic() + patience
    while True:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            got = sock.recv(65536)
        except TimeoutError:
            return Wire(data, "open")
        except ConnectionResetError:
            return Wire(data, "reset")
        if not got:
            return Wire(data, "eof")
        data += got


def talk(sandbox: SandboxProcess, request: bytes, patience: float = 5.0) -> Wire:
    with connect(sandbox) as sock:
        sock.sendall(request)
        return receive(sock, patience)


def ask(
    sandbox: SandboxProcess,
    model: str = MODEL,
    *,
    stream: bool = True,
    patience: float = 5.0,
    **more: Any,
) -> Wire:
    body = {"model": model, "messages": HELLO, "stream": stream, **more}
    return talk(sandbox, post(body, extra="connection: close\r\n"), patience)


def complete(wire: Wire) -> bool:
    return wire.end == "eof" and wire.whole and wire.data_lines[-1:] == ["[DONE]"]


def create(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **wishes})


def until(happened: Any, patience: float = 2.0) -> Any:
    deadline = time.monotonic() + patience
    while not (found := happened()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


def raw(**fields: Any) -> dict[str, Any]:
    return {"kind": "raw", "pieces": [{"data": b"one"}, {"data": b"two"}], **fields}
