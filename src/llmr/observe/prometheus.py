"""The same measurements for Prometheus. Names begin `llmr_`, beside OpenTelemetry's GenAI ones.

Label values come from fixed words and the catalogue; a model name a caller made up never becomes
one, so memory stays bounded whatever is asked for.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from llmr.observe.record import Record

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2)
TOKENS = (1, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
MODELS = 1000


class Prometheus:
    """Counts records into a registry of its own."""

    def __init__(
        self, in_flight: Callable[[], float], redis_connected: Callable[[], float]
    ) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "llmr_requests",
            "Requests by surface, outcome and cache.",
            ("surface", "outcome", "cache"),
            registry=registry,
        )
        self._attempts = Counter(
            "llmr_attempts",
            "Sends to upstreams by outcome.",
            ("upstream", "outcome"),
            registry=registry,
        )
        self._models = Counter(
            "llmr_model_requests", "Requests answered, by model.", ("model",), registry=registry
        )
        self._errors = Counter(
            "llmr_errors", "Requests that ended in an error, by code.", ("code",), registry=registry
        )
        self._tokens = Counter("llmr_tokens", "Tokens by kind.", ("kind",), registry=registry)
        self._cost = Counter("llmr_cost_usd", "USD where known.", ("source",), registry=registry)
        self._cost_unknown = Counter(
            "llmr_cost_unknown_requests", "Answers whose price is unknown.", registry=registry
        )
        self._total = Histogram(
            "llmr_request_duration_seconds", "Whole requests.", registry=registry, buckets=SECONDS
        )
        self._ttft = Histogram(
            "llmr_first_token_seconds",
            "Time to the first token.",
            registry=registry,
            buckets=SECONDS,
        )
        self._router = Histogram(
            "llmr_router_overhead_seconds",
            "The router's own time before the first send.",
            registry=registry,
            buckets=OVERHEAD,
        )
        self._operation = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "GenAI operation duration.",
            ("gen_ai_operation_name", "gen_ai_request_model"),
            registry=registry,
            buckets=SECONDS,
        )
        self._chunk = Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "GenAI time to first chunk.",
            ("gen_ai_operation_name", "gen_ai_request_model"),
            registry=registry,
            buckets=SECONDS,
        )
        self._usage = Histogram(
            "gen_ai_client_token_usage",
            "GenAI tokens.",
            ("gen_ai_token_type", "gen_ai_request_model"),
            registry=registry,
            buckets=TOKENS,
        )
        Gauge("llmr_in_flight", "Requests being answered.", registry=registry).set_function(
            in_flight
        )
        Gauge(
            "llmr_redis_connected", "1 while the shared store answers.", registry=registry
        ).set_function(redis_connected)
        self._names: set[str] = set()

    def add(self, record: Record) -> None:
        """Count one record."""
        self._requests.labels(record.surface, record.outcome, record.cache).inc()
        for _, upstream, outcome in record.attempts:
            self._attempts.labels(upstream, outcome).inc()
        if record.error is not None:
            self._errors.labels(record.error).inc()
        self._total.observe(record.total_s)
        self._router.observe(record.router_s)
        if record.ttft_s is not None:
            self._ttft.observe(record.ttft_s)
        if record.model is None:
            return
        model = self._name(record.model)
        self._models.labels(model).inc()
        if record.cached:
            return
        self._tokens.labels("prompt").inc(record.prompt_tokens)
        self._tokens.labels("completion").inc(record.completion_tokens)
        if record.cost_usd is None:
            self._cost_unknown.inc()
        else:
            self._cost.labels(record.cost_source).inc(float(record.cost_usd))
        self._operation.labels("chat", model).observe(record.total_s)
        if record.ttft_s is not None:
            self._chunk.labels("chat", model).observe(record.ttft_s)
        self._usage.labels("input", model).observe(record.prompt_tokens)
        self._usage.labels("output", model).observe(record.completion_tokens)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format the scraper prefers."""
        if "openmetrics" in accept:
            return generate_openmetrics(self._registry), OPENMETRICS  # type: ignore[no-untyped-call]
        return generate_latest(self._registry), TEXT

    def _name(self, model: str) -> str:
        if model in self._names:
            return model
        if len(self._names) < MODELS:
            self._names.add(model)
            return model
        return "other"
