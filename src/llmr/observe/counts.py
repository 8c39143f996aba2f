"""What is counted of every request since the start: plain numbers by labels.

Label values come from fixed words and the catalogue; a model name a caller made up never becomes
one, so memory stays bounded whatever is asked for.
"""

from bisect import bisect_left
from typing import Any

import msgspec
from msgspec import Struct

from llmr.observe.record import Record

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2)
TOKENS = (1, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
MODELS = 1000

Labels = tuple[str, ...]


class Kind(Struct, frozen=True):
    """One family of figures. With `bounds` it is a histogram, else a counter."""

    name: str
    text: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()


GENAI = ("gen_ai_operation_name", "gen_ai_request_model")
REQUESTS = Kind(
    "llmr_requests", "Requests by surface, outcome and cache.", ("surface", "outcome", "cache")
)
ATTEMPTS = Kind("llmr_attempts", "Sends to upstreams by outcome.", ("upstream", "outcome"))
MODEL = Kind("llmr_model_requests", "Requests answered, by model.", ("model",))
ERRORS = Kind("llmr_errors", "Requests that ended in an error, by code.", ("code",))
USED = Kind("llmr_tokens", "Tokens by kind.", ("kind",))
COST = Kind("llmr_cost_usd", "USD where known.", ("source",))
UNPRICED = Kind("llmr_cost_unknown_requests", "Answers whose price is unknown.")
LEFT_OUT = Kind(
    "llmr_stream_events", "Events of streams left out: unreadable, or after the end.", ("what",)
)
TOTAL = Kind("llmr_request_duration_seconds", "Whole requests.", (), SECONDS)
FIRST = Kind("llmr_first_token_seconds", "Time to the first token.", (), SECONDS)
ROUTER = Kind(
    "llmr_router_overhead_seconds", "The router's own time before the first send.", (), OVERHEAD
)
OPERATION = Kind(
    "gen_ai_client_operation_duration_seconds", "GenAI operation duration.", GENAI, SECONDS
)
CHUNK = Kind(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "GenAI time to first chunk.",
    GENAI,
    SECONDS,
)
USAGE = Kind(
    "gen_ai_client_token_usage",
    "GenAI tokens.",
    ("gen_ai_token_type", "gen_ai_request_model"),
    TOKENS,
)
COUNTERS = (REQUESTS, ATTEMPTS, MODEL, ERRORS, USED, COST, UNPRICED, LEFT_OUT)
SPREADS = (TOTAL, FIRST, ROUTER, OPERATION, CHUNK, USAGE)


class Counts:
    """The figures of one process, or of several together.

    `counters` maps a family and its labels to a number. `spreads` maps them to how many values lie
    at most at each bound and above the one before it, how many above them all, and the sum.
    """

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, float]] = {kind.name: {} for kind in COUNTERS}
        self.spreads: dict[str, dict[Labels, list[float]]] = {kind.name: {} for kind in SPREADS}
        self._models: set[str] = set()

    def add(self, record: Record) -> None:
        """Count one record."""
        self._count(REQUESTS, (record.surface, record.outcome, record.cache))
        for _, upstream, outcome in record.attempts:
            self._count(ATTEMPTS, (upstream, outcome))
        if record.error is not None:
            self._count(ERRORS, (record.error,))
        if record.degraded or record.ignored:
            self._count(LEFT_OUT, ("degraded",), record.degraded)
            self._count(LEFT_OUT, ("ignored",), record.ignored)
        total, first = record.total_s, record.ttft_s
        self._spread(TOTAL, (), total)
        self._spread(ROUTER, (), record.router_s)
        if first is not None:
            self._spread(FIRST, (), first)
        if record.model is None:
            return
        model = self._known(record.model)
        self._count(MODEL, (model,))
        if record.cached:
            return
        prompt, completion = record.prompt_tokens, record.completion_tokens
        self._count(USED, ("prompt",), prompt)
        self._count(USED, ("completion",), completion)
        if record.cost_usd is None:
            self._count(UNPRICED, ())
        else:
            self._count(COST, (record.cost_source,), float(record.cost_usd))
        labels = ("chat", model)
        self._spread(OPERATION, labels, total)
        if first is not None:
            self._spread(CHUNK, labels, first)
        self._spread(USAGE, ("input", model), prompt)
        self._spread(USAGE, ("output", model), completion)

    def merge(self, dumped: bytes) -> None:
        """Add what `dump` gave. Raises `msgspec.MsgspecError` where it is nothing of the kind."""
        counters, spreads = msgspec.json.decode(dumped, type=_Dumped)
        for name, rows in counters.items():
            family = self.counters[name]
            for labels, value in rows:
                family[labels] = family.get(labels, 0) + value
        for name, series in spreads.items():
            spread = self.spreads[name]
            for labels, values in series:
                before = spread.get(labels) or [0] * len(values)
                spread[labels] = [a + b for a, b in zip(before, values, strict=True)]

    def dump(self) -> bytes:
        """Everything, for `merge`."""
        rows: Any = [
            {name: list(family.items()) for name, family in part.items()}
            for part in (self.counters, self.spreads)
        ]
        return msgspec.json.encode(rows)

    def _count(self, kind: Kind, labels: Labels, by: float = 1) -> None:
        family = self.counters[kind.name]
        family[labels] = family.get(labels, 0) + by

    def _spread(self, kind: Kind, labels: Labels, value: float) -> None:
        family = self.spreads[kind.name]
        series = family.get(labels)
        if series is None:
            series = family[labels] = [0] * (len(kind.bounds) + 1) + [0.0]
        series[bisect_left(kind.bounds, value)] += 1
        series[-1] += value

    def _known(self, model: str) -> str:
        if model in self._models:
            return model
        if len(self._models) < MODELS:
            self._models.add(model)
            return model
        return "other"


_Dumped = tuple[
    dict[str, list[tuple[Labels, float]]],
    dict[str, list[tuple[Labels, list[float]]]],
]
