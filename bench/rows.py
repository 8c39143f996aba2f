"""The targets, and what was measured of each."""

from collections.abc import Iterator

from msgspec import Struct

from bench.decision import DecisionFigures
from bench.load import Compared
from bench.process import ONE, TWO, InFlight, Start
from bench.secure import Secure
from bench.settings import Settings
from bench.stand import DIRECT, NGINX, READING, ROUTER
from bench.wire import Latency, Streams, Throughput

LEAST = 1e-9
MEGA, KILO = 1e6, 1e3


class Soak(Struct, frozen=True):
    """Bytes the router holds after so many requests, piece by piece."""

    requests: list[int]
    held: list[int]
    errors: dict[str, int]


class Figures(Struct, frozen=True):
    """Everything that was measured, part by part."""

    decision: DecisionFigures | None = None
    latency: Latency | None = None
    throughput: Throughput | None = None
    streams: Streams | None = None
    idle: int | None = None
    in_flight: InFlight | None = None
    start: Start | None = None
    workers: Compared | None = None
    secure: Secure | None = None
    soak: Soak | None = None


class Row(Struct, frozen=True):
    """One target.

    `by` has what lies behind a ratio, by server, in `by_unit`. `measured` is None where there is
    nothing to compare with.
    """

    name: str
    target: float
    measured: float | None
    unit: str
    at_least: bool = False
    by: dict[str, float] = {}
    by_unit: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        if self.at_least:
            return self.measured >= self.target
        return self.measured <= self.target


def rows(figures: Figures, method: Settings) -> list[Row]:
    """Every target of which something was measured."""
    found: list[Row] = []
    if figures.throughput is not None:
        found += _throughput(figures.throughput, method)
    if figures.latency is not None:
        found += _latency(figures.latency)
    if figures.streams is not None:
        found += _streams(figures.streams, method)
    if figures.in_flight is not None:
        there = figures.in_flight
        grown = (there.most - there.before) / there.requests / KILO
        each = None if there.errors else grown  # what is not answered holds nothing
        name = f"{there.requests:,} requests in flight, memory of each"
        found.append(Row(name, 12.0, each, "KB"))
    if figures.idle is not None:
        found.append(Row("idle memory", 65.0, figures.idle / MEGA, "MB"))
    if figures.start is not None:
        first_s = figures.start.first_answer_ms / 1000
        found.append(Row("cold start to the first answer", 0.7, first_s, "s"))
        found.append(Row("import llmr", 100.0, figures.start.import_ms["llmr"], "ms"))
    if figures.decision is not None:
        for catalogue, limit in (
            (figures.decision.usual, 50.0),
            (figures.decision.large, 300.0),
        ):
            name = f"decision, {catalogue.routable:,} models, p99"
            found.append(Row(name, limit, catalogue.cold.p99, "µs"))
        read = figures.decision.read
        found.append(Row("decision with the prompt read, p50", 60.0, read.p50, "µs"))
        found.append(Row("decision with the prompt read, p99", 250.0, read.p99, "µs"))
    if figures.workers is not None:
        by = {name: measured.per_s for name, measured in figures.workers.items()}
        two = by[TWO] / max(LEAST, by[ONE])
        found.append(Row("two workers on two cores / one", 1.45, two, "×", True))
    if figures.secure is not None:
        by = {name: measured.per_s for name, measured in figures.secure.busy.items()}
        name = f"TLS upstream, throughput, {method.connections} connections / nginx"
        found.append(Row(name, 0.42, _ratio(by), "×", True, by, "/s"))
        by = added(figures.secure.one, "p50")
        name = "TLS upstream, added latency, 1 connection, p50 / nginx"
        found.append(Row(name, 1.2, _ratio(by), "×", False, by, "µs"))
    if figures.soak is not None:
        longer = figures.soak.held[-1] / figures.soak.held[0]
        name = f"{figures.soak.requests[-1]:,} mixed requests, memory / after the first"
        found.append(Row(name, 1.1, longer, "×"))
    return found


def _throughput(figures: Throughput, method: Settings) -> Iterator[Row]:
    by = {name: measured.per_s for name, measured in figures.busy.items()}
    name = f"throughput, {method.connections} connections / nginx"
    yield Row(name, 0.42, _ratio(by), "×", True, by, "/s")
    if READING in by:
        ratio = by[READING] / by[NGINX] if by.get(NGINX) else None
        yield Row("the same with prompts read / nginx", 0.22, ratio, "×", True)


def _latency(figures: Latency) -> Iterator[Row]:
    for name, target, compared, share in (
        ("added latency, 1 connection, p50 / nginx", 1.2, figures.small, "p50"),
        ("added latency, 1 connection, p99 / nginx", 1.5, figures.small, "p99"),
        ("100 KB request, added p50 / nginx", 1.8, figures.large, "p50"),
        ("answer from the cache, added p50 / nginx", 1.0, figures.hit, "p50"),
    ):
        by = added(compared, share)
        yield Row(name, target, _ratio(by), "×", False, by, "µs")
    found = added(figures.small, "p50")
    if READING in found and found.get(NGINX):
        more = found[READING] - found[NGINX]
        yield Row("added p50 with prompts read, beyond nginx's", 60.0, more, "µs")
    name = "Server-Timing beside an outside clock, p95"
    for untold in (figures.small[ROUTER].untold, figures.beat[ROUTER].untold):
        yield Row(name, 0.3, untold.p95 / 1000, "ms")
        name = "the same at a beat of 5,000 requests/s"


def _streams(figures: Streams, method: Settings) -> Iterator[Row]:
    by = added(figures.some, "p50")
    name = f"{method.streams} streams, added first token p50"
    yield Row(name, 0.4, by[ROUTER] / 1000, "ms", False, by, "µs")
    name = f"{method.streams} streams, processor time / nginx"
    yield Row(name, 1.4, _ratio(figures.cpu_s), "×", False, figures.cpu_s, "s")
    late = {name: measured.late.p99 / 1000 for name, measured in figures.many.items()}
    name = f"{method.many_streams:,} streams, event delay p99"
    yield Row(name, 10.0, late[ROUTER], "ms", False, late, "ms")
    errors = {name: float(sum(measured.errors.values())) for name, measured in figures.many.items()}
    name = f"{method.many_streams:,} streams, errors"
    yield Row(name, 0.0, errors[ROUTER], "", False, errors, "")


def added(by: Compared, share: str) -> dict[str, float]:
    """Microseconds that each server that answered adds to the direct percentile."""
    base: float = getattr(by[DIRECT].took, share)
    answered = {k: v.took for k, v in by.items() if k in (ROUTER, NGINX) or v.took.count}
    return {k: getattr(took, share) - base for k, took in answered.items() if k != DIRECT}


def _ratio(by: dict[str, float]) -> float | None:
    """The router's figure over nginx's, where there is one that can be compared with."""
    nginx = by.get(NGINX, 0.0)
    return by[ROUTER] / nginx if nginx > 0 else None
