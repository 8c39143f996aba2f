"""The rolling window behind `GET /metrics`: the newest requests, at most an hour old."""

from collections import Counter, deque
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from llmr.observe.record import Record

SIZE = 10_000
SPAN_S = 3600.0


class Window:
    """The newest records. Adding is O(1); the figures are worked out when asked for."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque(maxlen=SIZE)

    def add(self, record: Record) -> None:
        self._records.append(record)

    def figures(self, now: float) -> dict[str, Any]:
        """The figures of the window that ends at monotonic time `now`, in milliseconds and USD."""
        records = [r for r in self._records if now - r.ended <= SPAN_S]
        total = len(records)
        cached = sum(r.cached for r in records)
        errors = sum(r.outcome in ("error", "cut") for r in records)
        served = [r for r in records if r.outcome == "ok"]
        usage = Counter(r.model for r in served if r.model is not None)
        known = [r.cost_usd for r in records if r.cost_usd is not None]
        return {
            "window_seconds": SPAN_S,
            "total_requests": total,
            "cached_requests": cached,
            "cache_hit_rate": round(cached / total, 4) if total else 0.0,
            "errors_count": errors,
            "client_closed_count": sum(r.outcome == "client_closed" for r in records),
            **_latency([r.total_s for r in served]),
            "first_token": _latency([r.ttft_s for r in served if r.ttft_s is not None]),
            "router_overhead": _latency([r.router_s for r in served]),
            "model_usage": dict(usage.most_common()),
            "tokens": {
                "prompt": sum(r.prompt_tokens for r in records),
                "completion": sum(r.completion_tokens for r in records),
            },
            "cost_usd": float(sum(known, Decimal(0))),
            "cost_unknown_requests": sum(
                r.cost_usd is None and r.outcome == "ok" and not r.cached for r in records
            ),
        }


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles by nearest rank, in milliseconds; 0 where nothing was seen."""
    ordered = sorted(seconds)
    count = len(ordered)

    def percentile(p: float) -> float:
        return round(ordered[min(count - 1, int(p * count))] * 1000, 3) if count else 0.0

    return {
        "avg_latency_ms": round(sum(ordered) / count * 1000, 3) if count else 0.0,
        "p50_latency_ms": percentile(0.50),
        "p95_latency_ms": percentile(0.95),
        "p99_latency_ms": percentile(0.99),
    }
