"""The same measurements for Prometheus. Names begin `llmr_`, beside OpenTelemetry's GenAI ones.

Label values come from fixed words and the catalogue; a model name a caller made up never becomes
one, so memory stays bounded whatever is asked for.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from llmr.observe.record import Record

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2)
TOKENS = (1, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
MODELS = 1000
GENAI = ("gen_ai_operation_name", "gen_ai_request_model")


class _Spread:
    """A histogram by labels: how many values lie under each bound, and their sum."""

    __slots__ = ("_bounds", "_help", "_labels", "_name", "_series")

    def __init__(
        self, name: str, text: str, bounds: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> None:
        self._name = name
        self._help = text
        self._bounds = bounds
        self._labels = labels
        self._series: dict[tuple[str, ...], list[float]] = {}

    def add(self, value: float, labels: tuple[str, ...] = ()) -> None:
        series = self._series.get(labels)
        if series is None:
            # One place per bound, one for what is above them all, and the sum.
            series = self._series[labels] = [0] * (len(self._bounds) + 1) + [0.0]
        series[bisect_left(self._bounds, value)] += 1
        series[-1] += value

    def metric(self) -> Metric:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        series = (
            self._series if self._labels else {(): [0] * (len(self._bounds) + 2)} | self._series
        )
        for labels, (*counts, total) in series.items():
            below, buckets = 0.0, []
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                below += count
                buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), below))
            family.add_metric(labels, buckets, total)
        return family


class Prometheus(Collector):
    """Counts records, in plain numbers; what Prometheus makes of them is worked out when asked."""

    def __init__(
        self, in_flight: Callable[[], float], redis_connected: Callable[[], float]
    ) -> None:
        self._in_flight = in_flight
        self._redis_connected = redis_connected
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._models: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._tokens = {"prompt": 0, "completion": 0}
        self._cost: dict[str, float] = {}
        self._cost_unknown = 0
        self._events = {"degraded": 0, "ignored": 0}
        self._total = _Spread("llmr_request_duration_seconds", "Whole requests.", SECONDS)
        self._ttft = _Spread("llmr_first_token_seconds", "Time to the first token.", SECONDS)
        self._router = _Spread(
            "llmr_router_overhead_seconds", "The router's own time before the first send.", OVERHEAD
        )
        self._operation = _Spread(
            "gen_ai_client_operation_duration_seconds",
            "GenAI operation duration.",
            SECONDS,
            GENAI,
        )
        self._chunk = _Spread(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "GenAI time to first chunk.",
            SECONDS,
            GENAI,
        )
        self._usage = _Spread(
            "gen_ai_client_token_usage",
            "GenAI tokens.",
            TOKENS,
            ("gen_ai_token_type", "gen_ai_request_model"),
        )
        self._names: set[str] = set()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def add(self, record: Record) -> None:
        """Count one record."""
        self._requests[record.surface, record.outcome, record.cache] += 1
        for _, upstream, outcome in record.attempts:
            self._attempts[upstream, outcome] += 1
        if record.error is not None:
            self._errors[record.error] += 1
        if record.degraded or record.ignored:
            self._events["degraded"] += record.degraded
            self._events["ignored"] += record.ignored
        total, first = record.total_s, record.ttft_s
        self._total.add(total)
        self._router.add(record.router_s)
        if first is not None:
            self._ttft.add(first)
        if record.model is None:
            return
        model = self._name(record.model)
        self._models[model] += 1
        if record.cached:
            return
        prompt, completion = record.prompt_tokens, record.completion_tokens
        self._tokens["prompt"] += prompt
        self._tokens["completion"] += completion
        if record.cost_usd is None:
            self._cost_unknown += 1
        else:
            source = record.cost_source
            self._cost[source] = self._cost.get(source, 0.0) + float(record.cost_usd)
        labels = ("chat", model)
        self._operation.add(total, labels)
        if first is not None:
            self._chunk.add(first, labels)
        self._usage.add(prompt, ("input", model))
        self._usage.add(completion, ("output", model))

    def text(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format the scraper prefers."""
        if "openmetrics" in accept:
            return generate_openmetrics(self._registry), OPENMETRICS  # type: ignore[no-untyped-call]
        return generate_latest(self._registry), TEXT

    def collect(self) -> Iterator[Metric]:
        """Everything counted, as the exposition wants it."""
        yield _counter(
            "llmr_requests",
            "Requests by surface, outcome and cache.",
            ("surface", "outcome", "cache"),
            self._requests,
        )
        yield _counter(
            "llmr_attempts",
            "Sends to upstreams by outcome.",
            ("upstream", "outcome"),
            self._attempts,
        )
        yield _counter(
            "llmr_model_requests", "Requests answered, by model.", ("model",), self._models
        )
        yield _counter(
            "llmr_errors", "Requests that ended in an error, by code.", ("code",), self._errors
        )
        yield _counter("llmr_tokens", "Tokens by kind.", ("kind",), self._tokens)
        yield _counter("llmr_cost_usd", "USD where known.", ("source",), self._cost)
        yield CounterMetricFamily(
            "llmr_cost_unknown_requests", "Answers whose price is unknown.", self._cost_unknown
        )
        yield _counter(
            "llmr_stream_events",
            "Events of streams that were left out: unreadable, or after the end.",
            ("what",),
            self._events,
        )
        for spread in (self._total, self._ttft, self._router):
            yield spread.metric()
        for spread in (self._operation, self._chunk, self._usage):
            yield spread.metric()
        yield GaugeMetricFamily("llmr_in_flight", "Requests being answered.", self._in_flight())
        yield GaugeMetricFamily(
            "llmr_redis_connected", "1 while the shared store answers.", self._redis_connected()
        )

    def _name(self, model: str) -> str:
        if model in self._names:
            return model
        if len(self._names) < MODELS:
            self._names.add(model)
            return model
        return "other"


def _counter(
    name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric((key,) if isinstance(key, str) else key, count)
    return family
