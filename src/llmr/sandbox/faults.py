"""Faults as data: each kind a small record, decoded from `{"kind": …}`.

Seconds and tokens per second written here are taken literally; `speed` does not scale them.
"""

from typing import Annotated, Any, Literal

import msgspec

from llmr.sandbox.script import End, Headers

Framing = Literal["chunked", "length", "close"]


class Fault(msgspec.Struct, tag_field="kind", kw_only=True, forbid_unknown_fields=True):
    """What every fault may also carry: a wait before its first byte, and another pace."""

    delay_s: float = 0.0
    tokens_per_s: float | None = None

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)


def shown_kind(fault: Fault | None) -> str | None:
    """The kind for the log; None where nothing goes wrong."""
    return None if fault is None or isinstance(fault, Ok) else fault.kind


# Instead of an answer.


class Ok(Fault, tag="ok"):
    """No fault: lets a queue say "first two well, then …"."""


class Status(Fault, tag="status"):
    """A status with a body: text, or bytes in base64, or else OpenRouter's error envelope."""

    status: int
    headers: Headers = {}
    body: str | None = None
    body_base64: bytes | None = None
    content_type: str = "application/json"


class JsonBody(Fault, tag="json_body"):
    """200 with any text, called JSON, in place of a completion."""

    body: str
    headers: Headers = {}


class Redirect(Fault, tag="redirect"):
    location: str
    status: int = 302


class Reset(Fault, tag="reset"):
    """TCP reset before any byte."""


class Close(Fault, tag="close"):
    """Orderly close before any byte."""


class Silent(Fault, tag="silent"):
    """Nothing at all for `seconds`, then a close."""

    seconds: float = 120.0


class EmptyStream(Fault, tag="empty_stream"):
    """200 and a body without a byte."""


class Comments(Fault, tag="comments"):
    """200 and keep-alive comments for ever (empty lines where JSON was asked)."""

    interval_s: float = 0.5


class Piece(msgspec.Struct, forbid_unknown_fields=True):
    """Bytes (base64 in JSON) and the seconds before they leave."""

    data: bytes
    delay: float = 0.0


class Raw(Fault, tag="raw"):
    """Byte pieces exactly as given.

    With a `status` they are the body, framed as asked; without one they are all that is written,
    status line included. `repeat` sends the last piece for ever.
    """

    pieces: list[Piece] = []
    status: int | None = 200
    headers: Headers = msgspec.field(default_factory=lambda: {"content-type": "text/event-stream"})
    framing: Framing = "chunked"
    end: End = "clean"
    repeat: bool = False

    def __post_init__(self) -> None:
        if self.repeat and not (self.pieces and self.pieces[-1].data):
            raise ValueError("`repeat` needs a last piece with bytes")


# A changed answer.


class Delay(Fault, tag="delay"):
    """The whole answer, all of it later by `seconds`."""

    seconds: float


class TokensPerS(Fault, tag="tokens_per_s"):
    """The whole answer at the pace of the field `tokens_per_s`."""


class SlowFirstToken(Fault, tag="slow_first_token"):
    """Headers at once, the first token after `seconds`."""

    seconds: float = 20.0
    comments: bool = True


class Cut(Fault, tag="cut"):
    """Ends after some tokens: closed or reset in mid-body, or "clean" but without a finish."""

    after_tokens: int = 40
    how: Literal["close", "reset", "clean"] = "close"


class Stall(Fault, tag="stall"):
    """Silence for `seconds` after some tokens, then a close."""

    after_tokens: int = 20
    seconds: float = 30.0


class Malformed(Fault, tag="malformed"):
    """One event that is not JSON before token `at_token` (from 0), or in its place."""

    at_token: int = 10
    data: str = '{"id":"gen-broken","choices":[{"index":0,"del'
    replace: bool = False


class NoDone(Fault, tag="no_done"):
    """Complete with finish reason and usage, but without `[DONE]`."""


class ErrorEvent(Fault, tag="error_event"):
    """An error on the started stream, after `at_token` tokens; then the stream ends.

    `event`: a JSON object for a data event, or the whole event as text; null for OpenRouter's
    form. `role_first` sends a chunk with only a role before it.
    """

    at_token: int = 0
    event: dict[str, Any] | str | None = None
    role_first: bool = False
    done: bool = False


class Endless(Fault, tag="endless"):
    """Tokens for ever."""


class WrongForm(Fault, tag="wrong_form"):
    """JSON where a stream was asked, and the reverse."""


class DripHeaders(Fault, tag="drip_headers"):
    """The head one byte at a time."""

    interval_s: float = 1.0


class DripBody(Fault, tag="drip_body"):
    """The body a few bytes at a time."""

    interval_s: float = 1.0
    size: Annotated[int, msgspec.Meta(ge=1)] = 1


class ContentLength(Fault, tag="content_length"):
    """A Content-Length that is `by` bytes more (or, negative, fewer) than the body."""

    by: int = 10
    end: End = "close"


class BadChunk(Fault, tag="bad_chunk"):
    """A chunk size that is no number after some tokens, or no end chunk after the whole body."""

    after_tokens: int = 5
    how: Literal["size", "missing_end"] = "size"


AnyFault = (
    Ok
    | Status
    | JsonBody
    | Redirect
    | Reset
    | Close
    | Silent
    | EmptyStream
    | Comments
    | Raw
    | Delay
    | TokensPerS
    | SlowFirstToken
    | Cut
    | Stall
    | Malformed
    | NoDone
    | ErrorEvent
    | Endless
    | WrongForm
    | DripHeaders
    | DripBody
    | ContentLength
    | BadChunk
)
