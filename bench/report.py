"""A measurement as data and as a table to read."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from bench.decision import Catalogue, DecisionFigures
from bench.features import Features
from bench.load import Measured
from bench.machine import Code, Machine
from bench.rows import Figures, Row, rows
from bench.settings import Settings
from bench.spread import Spread
from bench.stand import DIRECT, NGINX, ROUTER

FORM = 2  # of the files; those without it are older and have other parts
LABEL, CELL = 50, 12


class Report(Struct, frozen=True, kw_only=True):
    """One measurement. `method` are its sizes; bench/README.md says the rest."""

    form: int = FORM
    at: str
    quick: bool
    code: Code
    machine: Machine
    versions: dict[str, str]
    method: Settings
    figures: Figures
    features: Features | None = None
    rows: list[dict[str, object]] = []  # the targets as they were printed, for other programs


def table(report: Report) -> Iterator[str]:
    """The measurement, line by line."""
    code, machine = report.code, report.machine
    state = code.commit + (" with changes" if code.changed else "")
    yield f"llmr {report.versions['llmr']} ({state}), {report.at}"
    yield f"{machine.cpu}, {machine.cores} cores, load {machine.load}; {machine.system}"
    yield ", ".join(f"{name} {version}" for name, version in report.versions.items())
    if report.quick:
        yield "QUICK: the figures only show that every part works."
    yield from targets(rows(report.figures, report.method))
    if report.figures.decision is not None:
        yield from decisions(report.figures.decision)
    yield from problems(report.figures)
    if report.features is not None:
        yield from proof(report.features)


def targets(found: list[Row]) -> Iterator[str]:
    """Each target with what was measured, and what lies behind it."""
    servers = [k for k in (ROUTER, NGINX, DIRECT) if any(k in row.by for row in found)]
    servers += sorted({k for row in found for k in row.by} - set(servers))
    yield from head("Targets", "target", "measured", "met", *servers)
    for one in found:
        sign = "≥" if one.at_least else "≤"
        met = {None: "–", True: "yes", False: "NO"}[one.met]
        measured = "–" if one.measured is None else amount(one.measured, one.unit)
        behind = [amount(one.by[k], one.by_unit) if k in one.by else "" for k in servers]
        yield row(one.name, f"{sign} {amount(one.target, one.unit)}", measured, met, *behind)


def amount(value: float, unit: str) -> str:
    """A figure with as many digits as say something."""
    digits = 0 if abs(value) >= 100 or not unit else 2 if abs(value) < 10 else 1
    return f"{value:,.{digits}f}{'' if unit in ('×', '/s', '') else ' '}{unit}"


def decisions(figures: DecisionFigures) -> Iterator[str]:
    """Times of deciding."""
    yield from head("Deciding, one core, µs", "p50", "p99", "p99.9")
    for catalogue in (figures.usual, figures.large):
        yield f"  {catalogue.routable:,} models, {catalogue.shapes:,} shapes"
        yield from over_catalogue(catalogue)
    yield times("parse 2 KB", figures.parse_small)
    yield times("parse 100 KB", figures.parse_large)


def over_catalogue(catalogue: Catalogue) -> Iterator[str]:
    """Times over one catalogue."""
    for label, spread in (
        ("  first of its kind", catalogue.alone),
        ("  mix, cold", catalogue.cold),
        ("  mix, warm", catalogue.warm),
        ("  one shape, repeated", catalogue.repeated),
        ("  explain", catalogue.explain),
        ("  publish telemetry", catalogue.publish),
    ):
        yield times(label, spread)


def problems(figures: Figures) -> Iterator[str]:
    """Whatever was not right, by measurement and target."""
    measured: dict[str, Mapping[str, Measured] | None] = {}
    if figures.latency is not None:
        measured["1 connection, 2 KB"] = figures.latency.small
        measured["1 connection, 100 KB"] = figures.latency.large
        measured["1 connection, cached"] = figures.latency.hit
    if figures.throughput is not None:
        measured["many connections"] = figures.throughput.busy
    if figures.streams is not None:
        measured["streams"] = figures.streams.some
        measured["many streams"] = figures.streams.many
    measured["workers"] = figures.workers
    for label, by in measured.items():
        for target, one in (by or {}).items():
            for problem, count in one.errors.items():
                yield f"  PROBLEM: {label}, {target}: {count} × {problem}"
    held = figures.in_flight.errors if figures.in_flight is not None else {}
    soaked = figures.soak.errors if figures.soak is not None else {}
    for label, errors in (("requests in flight", held), ("soak", soaked)):
        for problem, count in errors.items():
            yield f"  PROBLEM: {label}: {count} × {problem}"


def proof(features: Features) -> Iterator[str]:
    """What was on, and what it did."""
    yield ""
    yield "On: " + "; ".join(features.on)
    yield (
        f"Proved: {features.sent:,} requests sent, {features.counted:,} counted by /metrics, "
        f"{features.logged:,} logged (and {features.lines_lost:,} lines told as lost), "
        f"{features.decisions:,} decisions kept, "
        f"{features.looked_up:,} looked up in the cache with {features.hits:,} hits"
    )
    for line in features.complaints:
        yield f"  router's log: {line}"


def times(label: str, spread: Spread) -> str:
    return row(label, *(f"{us:,.1f}" for us in (spread.p50, spread.p99, spread.p999)))


def head(title: str, *columns: str) -> Iterator[str]:
    yield ""
    yield row(title, *columns, indent="")


def row(label: str, *cells: str, indent: str = "  ") -> str:
    """One line: a label, then right-aligned cells."""
    aligned = "".join(f"{cell:>{CELL}}" for cell in cells)
    return f"{indent + label:<{LABEL}}{aligned}".rstrip()


def as_data(row: Row) -> dict[str, object]:
    """A row as it stands in the file."""
    return {
        "name": row.name,
        "target": row.target,
        "at_least": row.at_least,
        "measured": row.measured,
        "unit": row.unit,
        "met": row.met,
        "by": row.by,
        "by_unit": row.by_unit,
    }
