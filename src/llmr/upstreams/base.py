"""The seam between the executor and the wire: one method to send, one object to read from."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct


class TransportError(Exception):
    """The exchange failed below HTTP. `kind` is one of `KINDS`; the text holds no secrets."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


# name, connect, tls, reset: before any byte of the answer. closed, protocol, too_large: within it.
KINDS = (
    "name",
    "connect",
    "connect_timeout",
    "tls",
    "reset",
    "closed",
    "protocol",
    "too_large",
    "busy",
)


Pieces = tuple[bytes | memoryview, ...]


class Send(Struct, frozen=True):
    """One request to an upstream. `path` follows its base URL; `pieces` make up the body."""

    method: str
    path: str
    pieces: Pieces = ()
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Receiver(Protocol):
    """Who an answer is for. The loop calls it, never `start` itself.

    `head` comes once, then `data`; `ended` or `failed` comes once and is the last. An answer that
    came in one piece is told by `whole` instead.
    """

    def whole(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """All of it: as `head`, `data` and `ended`."""

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """The status, and the fields by their names in lower case."""

    def data(self, data: bytes) -> None:
        """Some bytes of the body."""

    def ended(self) -> None:
        """The body is whole."""

    def failed(self, error: TransportError) -> None:
        """Nothing more will come. What came before is good as far as it goes."""


class Line(Protocol):
    """A request on its way, in the hands of whoever takes the answer."""

    def pause(self) -> None:
        """Read no more of the answer, beyond what has been read."""

    def resume(self) -> None:
        """Go on reading."""

    def close(self) -> None:
        """Give the answer up; the receiver hears nothing more. Idempotent, and late no harm.

        Closes the connection unless the body came to its end.
        """

    def leave(self, seconds: float) -> None:
        """The rest of the body does not matter: let its end come, for so long.

        After it the connection can be used again; any byte before it closes the connection.
        """


class Upstream(Protocol):
    """A provider that can be sent to."""

    name: str

    def start(self, request: Send, receiver: Receiver, connect_s: float) -> Line:
        """Send, on a connection that has to be open within `connect_s` seconds."""

    async def close(self) -> None:
        """Close every connection."""
