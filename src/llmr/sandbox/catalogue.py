"""The bundled catalogue: which models exist, what they cost, how fast they were."""

import time
from decimal import Decimal
from importlib import resources
from typing import Any, NamedTuple

import msgspec

from llmr.sandbox.scenarios import MODEL_NAMES

Row = dict[str, Any]

_VARIANTS = {"batch", "beta", "exacto", "extended", "floor", "free", "nitro", "online", "thinking"}


class Percentiles(NamedTuple):
    p10: float
    p50: float
    p90: float


class Latency(NamedTuple):
    """Seconds to the first token, and tokens per second after it."""

    first_token_s: Percentiles
    tokens_per_s: Percentiles


class Prices(NamedTuple):
    """US dollars per token, and per request."""

    prompt: Decimal
    completion: Decimal
    cached: Decimal
    request: Decimal


class Catalogue:
    """Rows by id, in the wire shape of `GET /models`, the `fb-` names among them."""

    def __init__(self, rows: list[Row], latencies: dict[str, Latency]) -> None:
        self.rows = {row["id"]: {**_always(row["id"]), **row} for row in rows}
        self.rows.update({name: _fault_row(name) for name in MODEL_NAMES})
        self._latencies = latencies
        self._listing = b""

    def listing(self) -> bytes:
        """The body of `GET /models`."""
        if not self._listing:
            data = list(self.rows.values())
            page = {"data": data, "total_count": len(data), "links": {"next": None}}
            self._listing = msgspec.json.encode(page)
        return self._listing

    def find(self, model: str) -> Row | None:
        """The row of a model id, with or without a variant suffix."""
        if row := self.rows.get(model):
            return row
        base, _, variant = model.rpartition(":")
        return self.rows.get(base) if variant in _VARIANTS else None

    def latency(self, model: str) -> Latency | None:
        """What was recorded for the model, or for the one it is a variant of."""
        return self._latencies.get(model) or self._latencies.get(model.partition(":")[0])


def load() -> Catalogue:
    """Read the catalogue and the latencies that come with the package."""
    data = resources.files("llmr") / "data"
    rows = msgspec.json.decode((data / "catalogue.json").read_bytes())["data"]
    table = msgspec.json.decode((data / "latency.json").read_bytes())["rows"]
    latencies = {
        model: Latency(Percentiles(*first), Percentiles(*rate)) for model, first, rate in table
    }
    return Catalogue(rows, latencies)


def prices(row: Row, prompt_tokens: int) -> Prices:
    """The prices that hold now for a prompt of this length; negative or absent ones are 0."""
    pricing: dict[str, Any] = dict(row.get("pricing", {}))
    for override in pricing.get("overrides", ()):
        if _holds(override, prompt_tokens):
            pricing.update(override)
    prompt = _price(pricing.get("prompt"))
    cached = _price(pricing["input_cache_read"]) if "input_cache_read" in pricing else prompt
    completion, request = _price(pricing.get("completion")), _price(pricing.get("request"))
    return Prices(prompt, completion, cached, request)


def _holds(override: dict[str, Any], prompt_tokens: int) -> bool:
    now = time.gmtime()
    start, end = override.get("utc_start"), override.get("utc_end")
    if prompt_tokens <= override.get("min_prompt_tokens", -1):
        return False
    if now.tm_wday not in override.get("utc_days", range(7)):
        return False
    if start is None or end is None:
        return True
    hhmm = now.tm_hour * 100 + now.tm_min
    return bool(start <= hhmm < end if start <= end else hhmm >= start or hhmm < end)


def _price(text: str | None) -> Decimal:
    return max(Decimal(text or 0), Decimal(0))


def _always(model: str) -> Row:
    """Fields every row of the provider has, for rows that were recorded without."""
    return {"id": model, "canonical_slug": model, "name": _display_name(model), "created": 0}


def _display_name(model: str) -> str:
    author, _, slug = model.lstrip("~").rpartition("/")
    title = slug.replace("-", " ").replace(":", " ").title()
    return f"{author.title()}: {title}" if author else title


def _fault_row(name: str) -> Row:
    return {
        **_always(name),
        "name": f"Sandbox: {name}",
        "kind": "fault",
        "context_length": 128_000,
        "architecture": {
            "modality": "text->text",
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": {"prompt": "0", "completion": "0"},
        "top_provider": {
            "context_length": 128_000,
            "max_completion_tokens": 16_000,
            "is_moderated": False,
        },
        "supported_parameters": [
            "max_tokens",
            "response_format",
            "stop",
            "structured_outputs",
            "temperature",
            "tool_choice",
            "tools",
        ],
        "default_parameters": {},
    }
