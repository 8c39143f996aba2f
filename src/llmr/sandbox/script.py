"""A reply as data: which bytes, how they are framed, when each leaves, and how it ends."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Literal, NamedTuple

import msgspec

_encode = msgspec.json.Encoder(decimal_format="number").encode

End = Literal["clean", "close", "reset", "hold"]
Headers = dict[str, str | list[str]]

COMMENT = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"


class Step(NamedTuple):
    """Bytes that leave together.

    `tokens` is how many tokens they bring; such a step waits for the pace of the script. `wait`
    is seconds counted from the step before. `raw` bytes are written without chunk framing.
    """

    data: bytes
    tokens: int = 0
    wait: float = 0.0
    raw: bool = False


class Script(msgspec.Struct):
    """A whole reply. An empty `head` writes no status line at all.

    `first_s` and `token_s` are the pace, in seconds from the beginning; `early_head` sends the
    head before the first wait. Nothing at all leaves in the first `delay_s` seconds. A "clean"
    end closes the chunked body and keeps the connection.
    """

    status: int | None = None
    head: bytes = b""
    steps: Iterable[Step] = ()
    chunked: bool = False
    end: End = "clean"
    first_s: float = 0.0
    token_s: float = 0.0
    early_head: bool = True
    delay_s: float = 0.0


def head(status: int, headers: Headers) -> bytes:
    """Status line and headers, with the blank line; every reply is marked as simulated.

    Of two names that differ only by case, the later counts; a list of values is as many lines.
    """
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", "x-llmr-sandbox: simulated"]
    for name, value in {name.lower(): value for name, value in headers.items()}.items():
        lines += [f"{name}: {one}" for one in ([value] if isinstance(value, str) else value)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def whole(status: int, body: bytes, headers: Headers) -> Script:
    """A reply with a body of known length, sent at once."""
    lengthened = {**headers, "content-length": str(len(body))}
    return Script(status, head(status, lengthened), [Step(body)])


def json_reply(status: int, content: object, headers: Headers | None = None) -> Script:
    """A JSON reply, sent at once."""
    body = _encode(content)
    return whole(status, body, {"content-type": "application/json", **(headers or {})})


def error_reply(
    status: int, message: str, headers: Headers | None = None, **more: object
) -> Script:
    """OpenRouter's error envelope; `more` goes into the `error` object, over its `code`."""
    return json_reply(status, {"error": {"message": message, "code": status, **more}}, headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
