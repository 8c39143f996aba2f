"""The counts for Prometheus. Names begin `llmr_`, beside OpenTelemetry's GenAI ones."""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from llmr.observe.counts import COUNTERS, SPREADS, Counts, Kind, Labels

T = TypeVar("T")

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Gauge:
    """A figure of this moment: its name, what it is, and how to find it."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.name = name
        self.text = text
        self.read = read


def exposition(accept: str, counts: Counts, gauges: tuple[Gauge, ...]) -> tuple[bytes, str]:
    """The text and its content type, in the format the scraper prefers."""
    registry = CollectorRegistry()
    registry.register(_Exposed(counts, gauges))
    if "openmetrics" in accept:
        return generate_openmetrics(registry), OPENMETRICS  # type: ignore[no-untyped-call]
    return generate_latest(registry), TEXT


class _Exposed(Collector):
    def __init__(self, counts: Counts, gauges: tuple[Gauge, ...]) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for kind in COUNTERS:
            yield _counter(kind, self._counts.counters[kind.name])
        for kind in SPREADS:
            yield _histogram(kind, self._counts.spreads[kind.name])
        for gauge in self._gauges:
            yield GaugeMetricFamily(gauge.name, gauge.text, gauge.read())


def _counter(kind: Kind, family: Mapping[Labels, float]) -> Metric:
    metric = CounterMetricFamily(kind.name, kind.text, labels=kind.labels)
    for labels, value in _or_nothing(kind, family, 0.0).items():
        metric.add_metric(labels, value)
    return metric


def _histogram(kind: Kind, family: Mapping[Labels, list[float]]) -> Metric:
    metric = HistogramMetricFamily(kind.name, kind.text, labels=kind.labels)
    bounds = [*(str(float(bound)) for bound in kind.bounds), "+Inf"]
    nothing = [0.0] * (len(bounds) + 1)
    for labels, (*counts, total) in _or_nothing(kind, family, nothing).items():
        below = accumulate(counts)
        metric.add_metric(labels, list(zip(bounds, below, strict=True)), total)
    return metric


def _or_nothing(kind: Kind, family: Mapping[Labels, T], nothing: T) -> Mapping[Labels, T]:
    """What has no labels is shown before it is first counted."""
    return family if family or kind.labels else {(): nothing}
