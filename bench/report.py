"""A measurement as data and as a table to read."""

from collections.abc import Iterator

from msgspec import Struct

from bench.decision import (
    BUDGET_P50_US,
    BUDGET_P99_US,
    Catalogue,
    DecisionFigures,
    meets_budget,
)
from bench.machine import Code, Machine
from bench.overhead import DIRECT, NGINX, ROUTER, Compared, OverheadFigures
from bench.settings import Settings
from bench.spread import Spread

IMPORT_BUDGET_MS = 150.0
LABEL, CELL = 44, 13
BUDGET = f"≤ {BUDGET_P50_US:.0f} / {BUDGET_P99_US:.0f}"
LEAST_US = 10.0  # below this a ratio says nothing


class Report(Struct, frozen=True, kw_only=True):
    """One measurement. `method` are its sizes; bench/README.md says the rest."""

    date: str
    quick: bool
    code: Code
    machine: Machine
    versions: dict[str, str]
    method: Settings
    decision: DecisionFigures | None = None
    overhead: OverheadFigures | None = None


def table(report: Report) -> Iterator[str]:
    """The measurement, line by line."""
    code, machine = report.code, report.machine
    state = code.commit + (" with changes" if code.changed else "")
    yield f"llmr {report.versions['llmr']} ({state}), {report.date}"
    yield f"{machine.cpu}, {machine.cores} cores, load {machine.load}; {machine.system}"
    yield ", ".join(f"{name} {version}" for name, version in report.versions.items())
    if report.quick:
        yield "QUICK: the figures only show that every part works."
    if report.decision is not None:
        yield from decisions(report.decision)
    if report.overhead is not None:
        yield from single(report.overhead, report.method)
        yield from many(report.overhead)
        yield from process(report.overhead)


def decisions(figures: DecisionFigures) -> Iterator[str]:
    """Times of deciding, beside the budget."""
    yield from head("Deciding, one core, µs", "p50", "p99", "p99.9", BUDGET)
    for name, catalogue, judged in (
        ("bundled", figures.bundled, True),
        ("synthetic", figures.synthetic, False),
    ):
        yield f"  {name}: {catalogue.routable} models, {catalogue.shapes} shapes"
        yield from over_catalogue(catalogue, judged)
    yield times("parse 2 KB", figures.parse_small)
    yield times("parse 100 KB", figures.parse_large)


def over_catalogue(catalogue: Catalogue, judged: bool) -> Iterator[str]:
    """Times over one catalogue."""
    for label, spread in (
        ("  first after new telemetry", catalogue.alone),
        ("  mix, cold", catalogue.cold),
        ("  mix, warm", catalogue.warm),
        ("  one shape, repeated", catalogue.repeated),
    ):
        verdict = ("yes" if meets_budget(spread) else "NO") if judged else ""
        yield times(label, spread, verdict)
    yield times("  explain", catalogue.explain)
    yield times("  publish telemetry", catalogue.publish)


def single(figures: OverheadFigures, method: Settings) -> Iterator[str]:
    """What is added to one request, and to the first content of a stream."""
    yield from head(
        "Added to a direct call, µs", "p50", "p99", "nginx p50", "nginx p99", "ratio p50"
    )
    yield added("1 connection, 2 KB", figures.single_small)
    yield added("1 connection, 100 KB", figures.single_large)
    count = method.streams
    yield added(f"{count} streams, first content", figures.streams)
    yield added(f"{count} streams, every event", figures.streams, late=True)


def many(figures: OverheadFigures) -> Iterator[str]:
    """What it carries, and at what cost."""
    yield from head("Requests a second, 2 KB", "router", "nginx", "direct", "ratio", "errors")
    for connections, by in figures.busy.items():
        yield row(
            f"{connections} connections",
            f"{by[ROUTER].per_s:,.0f}",
            f"{by[NGINX].per_s:,.0f}" if NGINX in by else "–",
            f"{by[DIRECT].per_s:,.0f}",
            ratio(by[ROUTER].per_s, by[NGINX].per_s) if NGINX in by else "–",
            "none" if not by[ROUTER].errors else str(sum(by[ROUTER].errors.values())),
        )
    cpu = figures.cpu_us
    if ROUTER in cpu:
        cells = [f"{cpu[ROUTER]:.0f}", f"{cpu[NGINX]:.0f}" if NGINX in cpu else "–"]
        yield row("processor time per request, µs", *cells)


def process(figures: OverheadFigures) -> Iterator[str]:
    """Start, import, memory, and whatever went wrong."""
    memory = figures.memory
    yield from head("The process", "", "", "", "budget")
    yield row("start to the first answer, ms", f"{figures.start_ms:.0f}")
    for name, took in figures.import_ms.items():
        verdict = "yes" if took <= IMPORT_BUDGET_MS else "NO"
        yield row(
            f"import {name}, ms", f"{took:.1f}", "", "", f"≤ {IMPORT_BUDGET_MS:.0f}: {verdict}"
        )
    for label, mb in (
        ("memory idle, MiB", memory.idle),
        ("  after one connection", memory.after_single),
        ("  after many connections", memory.after_busy),
        ("  after streams", memory.after_streams),
    ):
        yield row(label, f"{mb:.1f}" if mb is not None else "–")
    for label, compared in (
        ("1 connection, 2 KB", figures.single_small),
        ("1 connection, 100 KB", figures.single_large),
        *((f"{n} connections", by) for n, by in figures.busy.items()),
        ("streams", figures.streams),
    ):
        for target, measured in compared.items():
            for problem, count in measured.errors.items():
                yield f"  PROBLEM: {label}, {target}: {count} × {problem}"
    for line in figures.log:
        yield f"  router's log: {line}"


def added(label: str, by: Compared, late: bool = False) -> str:
    """What the router and nginx add to the direct percentiles."""

    def over(target: str) -> list[float] | None:
        if target not in by:
            return None
        here = by[target].late if late else by[target].took
        base = by[DIRECT].late if late else by[DIRECT].took
        return [here.p50 - base.p50, here.p99 - base.p99]

    router, nginx = over(ROUTER) or [], over(NGINX)
    cells = [f"{us:,.0f}" for us in (*router, *(nginx or ()))]
    if nginx is None:
        cells += ["–", "–", "–"]
    else:
        cells.append(ratio(router[0], nginx[0]) if nginx[0] >= LEAST_US else "–")
    return row(label, *cells)


def ratio(one: float, other: float) -> str:
    """How many times `other` goes into `one`."""
    return f"{one / other:.2f}×" if other > 0 else "–"


def times(label: str, spread: Spread, verdict: str = "") -> str:
    cells = (f"{us:,.1f}" for us in (spread.p50, spread.p99, spread.p999))
    return row(label, *cells, verdict)


def head(title: str, *columns: str) -> Iterator[str]:
    yield ""
    yield row(title, *columns, indent="")


def row(label: str, *cells: str, indent: str = "  ") -> str:
    """One line: a label, then right-aligned cells."""
    aligned = "".join(f"{cell:>{CELL}}" for cell in cells)
    return f"{indent + label:<{LABEL}}{aligned}".rstrip()
