"""What is known of one request once it is over: the one thing every kind of measurement reads."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Protocol

from msgspec import Struct


class Sent(Protocol):
    """One send to one target, with what it cost and by what (None where that is not known)."""

    outcome: str
    cost_usd: Decimal | None
    cost_source: str | None
    usage: dict[str, Any] | None
    generation: str | None

    @property
    def model(self) -> str: ...

    @property
    def upstream(self) -> str: ...


class Record(Struct):
    """One finished request. `outcome` is ok, error, cut or client_closed; times are seconds.

    `degraded` and `ignored` count the events of its stream that were left out: unreadable ones, and
    those after the end. `tenant` is the name of the caller's key, never the key, and `tag` what the
    caller wants its costs to be found under.
    """

    surface: str
    outcome: str
    cache: str
    model: str | None
    upstream: str | None
    status: int
    stream: bool
    total_s: float
    ttft_s: float | None
    router_s: float
    attempts: Sequence[Sent]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: Decimal | None = None
    cost_source: str = "unknown"
    error: str | None = None
    degraded: int = 0
    ignored: int = 0
    ended: float = 0.0
    tenant: str = "open"
    tag: str = ""

    @property
    def cached(self) -> bool:
        return self.cache in ("hit", "joined")
