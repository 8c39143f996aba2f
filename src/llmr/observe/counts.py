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
CELLS = 4096
SAVED = frozenset(("hit", "joined"))

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


class _Cell:
    """What requests alike in everything but their figures add up to."""

    __slots__ = ("completion", "first", "input", "output", "prompt", "router", "total", "usd")

    def __init__(self) -> None:
        self.total = _series(SECONDS)
        self.router = _series(OVERHEAD)
        self.first = _series(SECONDS)
        self.input = _series(TOKENS)
        self.output = _series(TOKENS)
        self.prompt = self.completion = 0
        self.usd = 0.0


class Counts:
    """The figures of one process, or of several together.

    `counters` maps a family and its labels to a number. `spreads` maps them to how many values lie
    at most at each bound and above the one before it, how many above them all, and the sum. A
    request is counted in one cell; the cells are laid out into families when somebody looks.
    """

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, float]] = {kind.name: {} for kind in COUNTERS}
        self._spreads: dict[str, dict[Labels, list[float]]] = {kind.name: {} for kind in SPREADS}
        self._models: set[str] = set()
        self._cells: dict[tuple[str, str, str, str | None, str], _Cell] = {}

    def add(self, record: Record) -> None:
        """Count one record."""
        model = record.model
        key = (record.surface, record.outcome, record.cache, model, record.cost_source)
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= CELLS:
                self._lay_out()
            cell = self._cells[key] = _Cell()
        total, first = record.total_s, record.ttft_s
        _into(cell.total, SECONDS, total)
        _into(cell.router, OVERHEAD, record.router_s)
        if first is not None:
            _into(cell.first, SECONDS, first)
        if model is not None:
            _into(cell.input, TOKENS, record.prompt_tokens)
            _into(cell.output, TOKENS, record.completion_tokens)
            cell.prompt += record.prompt_tokens
            cell.completion += record.completion_tokens
            if record.cost_usd is None:
                if not record.cached:
                    self._count(UNPRICED, ())
            else:
                cell.usd += float(record.cost_usd)
        for attempt in record.attempts:
            self._count(ATTEMPTS, (attempt.upstream, attempt.outcome))
        if record.error is not None:
            self._count(ERRORS, (record.error,))
        if record.degraded or record.ignored:
            self._count(LEFT_OUT, ("degraded",), record.degraded)
            self._count(LEFT_OUT, ("ignored",), record.ignored)

    @property
    def counters(self) -> dict[str, dict[Labels, float]]:
        self._lay_out()
        return self._counters

    @property
    def spreads(self) -> dict[str, dict[Labels, list[float]]]:
        self._lay_out()
        return self._spreads

    def _lay_out(self) -> None:
        """Bring what is in the cells into the families."""
        cells, self._cells = self._cells, {}
        for (surface, outcome, cache, name, source), cell in cells.items():
            count = sum(cell.total[:-1])
            self._count(REQUESTS, (surface, outcome, cache), count)
            self._lay(TOTAL, (), cell.total)
            self._lay(ROUTER, (), cell.router)
            self._lay(FIRST, (), cell.first)
            if name is None:
                continue
            model = self._known(name)
            self._count(MODEL, (model,), count)
            if cache in SAVED:
                continue
            self._count(USED, ("prompt",), cell.prompt)
            self._count(USED, ("completion",), cell.completion)
            if source != "unknown":
                self._count(COST, (source,), cell.usd)
            self._lay(OPERATION, ("chat", model), cell.total)
            self._lay(CHUNK, ("chat", model), cell.first)
            self._lay(USAGE, ("input", model), cell.input)
            self._lay(USAGE, ("output", model), cell.output)

    def merge(self, dumped: bytes) -> None:
        """Add what `dump` gave. Raises `msgspec.MsgspecError` where it is nothing of the kind."""
        counters, spreads = msgspec.json.decode(dumped, type=_Dumped)
        for name, rows in counters.items():
            family = self._counters[name]
            for labels, value in rows:
                family[labels] = family.get(labels, 0) + value
        for name, series in spreads.items():
            for labels, values in series:
                _lay_on(self._spreads[name], labels, values)

    def dump(self) -> bytes:
        """Everything, for `merge`."""
        rows: Any = [
            {name: list(family.items()) for name, family in part.items()}
            for part in (self.counters, self.spreads)
        ]
        return msgspec.json.encode(rows)

    def _count(self, kind: Kind, labels: Labels, by: float = 1) -> None:
        family = self._counters[kind.name]
        family[labels] = family.get(labels, 0) + by

    def _lay(self, kind: Kind, labels: Labels, values: list[float]) -> None:
        if any(values):
            _lay_on(self._spreads[kind.name], labels, values)

    def _known(self, model: str) -> str:
        if model in self._models:
            return model
        if len(self._models) < MODELS:
            self._models.add(model)
            return model
        return "other"


def _series(bounds: tuple[float, ...]) -> list[float]:
    """Nothing yet: a place per bound, one for what is above them all, and the sum."""
    return [0] * (len(bounds) + 1) + [0.0]


def _into(series: list[float], bounds: tuple[float, ...], value: float) -> None:
    series[bisect_left(bounds, value)] += 1
    series[-1] += value


def _lay_on(family: dict[Labels, list[float]], labels: Labels, values: list[float]) -> None:
    before = family.get(labels)
    family[labels] = (
        values if before is None else [a + b for a, b in zip(before, values, strict=True)]
    )


_Dumped = tuple[
    dict[str, list[tuple[Labels, float]]],
    dict[str, list[tuple[Labels, list[float]]]],
]
