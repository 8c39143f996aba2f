"""One request on its way through, and where its answer goes."""

from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from llmr.core.catalogue import Model
from llmr.core.decide import Decision
from llmr.errors import ApiError
from llmr.execution.types import HEADERS, Outcome
from llmr.observe.decisions import Kept


class Ticket(Struct):
    """One request on its way through: what the surfaces put into headers and bodies.

    Times are monotonic seconds. `received` is when the request had arrived, `taken` when it was
    turned to: other work of the loop lies between. `cache` is hit, miss, joined or bypass.
    `accounts`: what the upstreams did for it counts here, and not for another who waits for the
    same answer. `headers` are those of what is sent for it.
    """

    surface: str
    tenant: bytes
    received: float
    taken: float
    decision: Decision | None = None
    kept: Kept | None = None  # the decision as it is kept
    cache: str = "bypass"
    accounts: bool = True
    cache_age_s: float | None = None
    model: Model | None = None
    outcome: Outcome | None = None
    cost_usd: Decimal | None = None
    cost_source: str = "unknown"
    decided: float | None = None
    sent: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = HEADERS
    tag: str = ""  # what the caller wants the cost to be found under


class AnswerSink(Protocol):
    """Where a surface takes its answer. A whole answer comes by `whole`, a stream by the others.

    One that has no room for more pauses the `Answering`.
    """

    def begin(self, ticket: Ticket) -> None:
        """A streamed answer begins."""

    def write(self, data: bytes) -> None:
        """Some of its bytes."""

    def whole(self, ticket: Ticket, completion: bytes) -> None:
        """The answer, a completion object."""

    def end(self, ticket: Ticket, error: ApiError | None) -> None:
        """It is over: the last call. `error` is what the caller has not been told yet."""
