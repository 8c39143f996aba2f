"""The words of execution: what is to be done, what was tried, what came of it."""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Protocol

from msgspec import Struct

from llmr.core.body import Pieces
from llmr.core.catalogue import Model
from llmr.core.decide import Decision
from llmr.core.sse import EVENT_LIMIT
from llmr.errors import ApiError

NONE_OF_THEM: Mapping[str, float] = MappingProxyType({})
HEADERS = ((b"content-type", b"application/json"), (b"accept", b"*/*"))


class Limits(Struct, frozen=True):
    """Bounds of one request, in seconds. `first_event_s` None: worked out per model.

    `continuation` is restart, prefill or never: how a cut stream may be continued. `event_bytes` is
    the largest event of a stream; `strict_events`: one that cannot be read ends the answer.
    """

    attempts: int = 3
    connect_s: float = 3.0
    first_event_s: float | None = None
    idle_s: float = 45.0
    total_s: float = 600.0
    retry_after_wait_s: float = 3.0
    continuation: str = "restart"
    event_bytes: int = EVENT_LIMIT
    strict_events: bool = False
    first_event_by_model: Mapping[str, float] = NONE_OF_THEM

    def first_event_of(self, model: str) -> float | None:
        """The configured limit on the first event of a model, if there is one."""
        if self.first_event_by_model:
            return self.first_event_by_model.get(model, self.first_event_s)
        return self.first_event_s


class Attempt(Struct):
    """One send to one target, as it is shown to callers and in the log, and what it is billed by.

    `added`: what the router put into the request for it. `cost_source` says where `cost_usd` is
    from: reported, computed, estimated, free (the provider bills no such thing) or unknown; None
    while nobody has worked it out. `row` is the target's, `usage` what its upstream reported or,
    `estimated`, what was counted here; `generation` the upstream's name for this answer, by which
    it can be asked for its price; `received` bytes of content that came.
    """

    row: Model
    started_ms: float
    outcome: str = "running"
    status: int | None = None
    message: str | None = None
    duration_ms: float | None = None
    added: str | None = None
    cost_usd: Decimal | None = None
    cost_source: str | None = None
    usage: dict[str, Any] | None = None
    estimated: bool = False
    generation: str | None = None
    received: int = 0

    @property
    def model(self) -> str:
        return self.row.id

    @property
    def upstream(self) -> str:
        return self.row.upstream

    def shown(self) -> dict[str, Any]:
        """What callers are told of it."""
        return {
            "model": self.model,
            "upstream": self.upstream,
            "started_ms": self.started_ms,
            "outcome": self.outcome,
            "status": self.status,
            "message": self.message,
            "duration_ms": self.duration_ms,
            "added": self.added,
            "cost_usd": None if self.cost_usd is None else float(self.cost_usd),
            "cost_source": self.cost_source,
        }


class Call(Struct, frozen=True):
    """One request to be answered.

    `data` is the body as it came, `pieces` that to send, cut where the model name belongs; `asking`
    the same for upstreams that report usage only when asked to, which the caller did not.
    `deadline` is an instant of the event loop's clock. `keep`: assemble a streamed answer, since
    somebody will want it whole. `headers` go with every attempt, beside those of its upstream.
    """

    decision: Decision
    data: bytes
    pieces: Pieces
    asking: Pieces | None
    stream: bool
    include_usage: bool
    deadline: float
    keep: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = HEADERS


class Outcome(Struct):
    """What became of a call. `body` is a whole answer, `completion` that of a kept stream.

    `model` is the target that answered, or finished the answer. `continued`: another target had
    begun it. `cooled`: the health of some target changed. `degraded` counts events that could not
    be read, `ignored` those that came after the end.
    """

    attempts: list[Attempt]
    model: Model | None = None
    error: ApiError | None = None
    committed: bool = False
    continued: bool = False
    cooled: bool = False
    body: bytes = b""
    completion: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    finish: str | None = None
    ttft_s: float | None = None
    degraded: int = 0
    ignored: int = 0


class Sink(Protocol):
    """Where a streamed answer goes. One that has no room for more pauses the run."""

    def begin(self, outcome: Outcome) -> None:
        """The commit point: the answer of `outcome.model` starts."""

    def write(self, data: bytes) -> None:
        """Some of its bytes."""
