"""The log of requests that reached the data port, kept for whoever tests against it."""

import time
from collections import deque
from typing import Any, Literal

import msgspec

MAX_ATTEMPTS = 20_000
MAX_KEPT_BYTES = 256 * 1024 * 1024


class Attempt(msgspec.Struct):
    """One request and what became of it. Times are monotonic seconds.

    `n` counts all requests since the last reset, `model_n` those of this model, both from 1.
    `ended` is null while the reply is on its way.
    """

    n: int
    model_n: int
    connection: int
    t: float
    model: str | None
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    stream: bool = False
    fault: str | None = None
    generation: str | None = None
    status: int | None = None
    bytes_sent: int = 0
    tokens_sent: int = 0
    ended: Literal["complete", "fault", "peer_gone"] | None = None
    ended_t: float | None = None
    peer_gone_t: float | None = None

    def finish(self, peer_gone_t: float | None) -> None:
        """Note how the request ended; a time means that the peer went away then."""
        self.ended_t = time.monotonic()
        self.peer_gone_t = peer_gone_t
        if peer_gone_t is not None:
            self.ended = "peer_gone"
        else:
            self.ended = "fault" if self.fault else "complete"

    def shown(self) -> dict[str, Any]:
        """All fields for a JSON listing; the body decoded where it is JSON, else as text."""
        return {**msgspec.structs.asdict(self), "body": _readable(self.body)}


class Visits(msgspec.Struct):
    """How often a model was asked since the last reset, and when first (monotonic seconds)."""

    count: int
    first_t: float


class AttemptLog:
    """The newest attempts, bounded in number and in bytes of bodies."""

    def __init__(self) -> None:
        self._kept: deque[Attempt] = deque()
        self._bytes = 0
        self._count = 0
        self._visits: dict[str, Visits] = {}

    def visit(self, model: str) -> Visits:
        """Count one more request for `model`."""
        visits = self._visits.setdefault(model, Visits(0, time.monotonic()))
        visits.count += 1
        return visits

    def next_number(self) -> int:
        self._count += 1
        return self._count

    def add(self, attempt: Attempt) -> None:
        self._kept.append(attempt)
        self._bytes += len(attempt.body)
        while len(self._kept) > MAX_ATTEMPTS or self._bytes > MAX_KEPT_BYTES:
            self._bytes -= len(self._kept.popleft().body)

    def listing(self, model: str | None = None) -> list[dict[str, Any]]:
        """Oldest first; of one model only, if named."""
        return [a.shown() for a in self._kept if model is None or a.model == model]

    def reset(self) -> None:
        """Forget all attempts, and start every counter anew."""
        self._kept.clear()
        self._visits.clear()
        self._bytes = self._count = 0


def _readable(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")
