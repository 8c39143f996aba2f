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


class ReadTimeout(Exception):  # noqa: N818 - says what happened, and is never shown
    """Nothing came until the instant given to `read`."""


class Send(Struct, frozen=True):
    """One request to an upstream. `path` follows its base URL; `body` is sent as it is."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Response(Protocol):
    """An answer whose head has arrived. Whoever holds it must read it to its end or close it."""

    status: int
    headers: Mapping[str, str]

    async def read(self, until: float) -> bytes:
        """The next bytes of the body, b"" at its end.

        Raises `ReadTimeout` at the loop time `until`, `TransportError` where the body breaks off.
        """

    def close(self) -> None:
        """Give the answer up. Closes the connection unless the body was read whole. Idempotent."""


class Upstream(Protocol):
    """A provider that can be sent to."""

    name: str

    async def send(self, request: Send, *, connect_until: float, until: float) -> Response:
        """Send, and wait for the head of the answer.

        Raises `TransportError`, or `ReadTimeout` where the head has not come at loop time `until`.
        """

    async def close(self) -> None:
        """Close every connection."""
