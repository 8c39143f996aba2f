"""`python -m bench`: measure, print one table, and keep the figures where that is asked for."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
from msgspec.structs import replace

from bench import features, peers, process, secure, soak, wire
from bench.children import BenchError, Child, cores, module, raise_descriptors
from bench.compiler import Programs
from bench.decision import DecisionFigures
from bench.features import Features
from bench.machine import code, machine, versions
from bench.report import Report, as_data, table
from bench.rows import Figures, rows
from bench.servers import NO_NGINX
from bench.settings import FULL, QUICK, Settings
from bench.stand import NGINX, ROUTER, Stand, Starter, standing, workshop

RESULTS = Path(__file__).parent / "results"
DECISION_LIMIT_S = 300.0
SOAK = 2_000_000

ON_STAND = ("latency", "throughput", "streams")
ALONE = ("memory", "start", "workers", "tls")
PARTS = ("decision", "overhead", *ON_STAND, *ALONE)

# Of each part the figure that says which of several runs lies in the middle.
MAIN: dict[str, Callable[[Figures], float]] = {
    "decision": lambda f: f.decision.usual.cold.p50 if f.decision else 0.0,
    "latency": lambda f: f.latency.small[ROUTER].took.p50 if f.latency else 0.0,
    "throughput": lambda f: f.throughput.busy[ROUTER].per_s if f.throughput else 0.0,
    "streams": lambda f: f.streams.some[ROUTER].took.p50 if f.streams else 0.0,
    "idle": lambda f: f.idle or 0.0,
    "in_flight": lambda f: float(f.in_flight.most) if f.in_flight else 0.0,
    "start": lambda f: f.start.first_answer_ms if f.start else 0.0,
    "workers": lambda f: f.workers[process.TWO].per_s if f.workers else 0.0,
    "secure": lambda f: f.secure.busy[ROUTER].per_s if f.secure else 0.0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the flags say; the exit code."""
    given = _parser().parse_args(arguments)
    raise_descriptors()
    reports = []
    try:
        with peers.installed() if given.peers else peers.none() as others:
            for number in range(1 if given.soak else max(1, given.repeat)):
                if given.repeat > 1:
                    print(f"run {number + 1} of {given.repeat}", file=sys.stderr)
                reports.append(measure(given.quick, given.only, others, given.soak))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    report = median(reports)
    print("\n".join(table(report)))
    if given.save is not None:
        print(f"\nsaved as {save(report, Path(given.save))}")
    return 0


def measure(quick: bool, only: str | None, others: Mapping[str, Starter], soaked: int) -> Report:
    """One whole measurement."""
    settings = QUICK if quick else FULL
    at, here, what = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), machine(), code()
    proof = None
    with workshop() as (programs, folder):
        if soaked:
            figures = Figures(soak=soak.run(soaked, programs, folder))
        else:
            parts = _parts(only)
            figures, proof = _figures(settings, parts, others, programs, folder)
    return Report(
        at=at,
        quick=quick,
        code=what,
        machine=here,
        versions=versions(),
        method=settings,
        figures=figures,
        features=proof,
    )


def _parts(only: str | None) -> set[str]:
    if only is None:
        return {*PARTS}
    return {*ON_STAND, *ALONE} if only == "overhead" else {only}


def _figures(
    settings: Settings,
    parts: set[str],
    others: Mapping[str, Starter],
    programs: Programs,
    folder: Path,
) -> tuple[Figures, Features | None]:
    """The figures of some parts, and the proof of what was on."""
    figures, proof = Figures(), None
    if "decision" in parts:
        figures = replace(figures, decision=_decision(settings is QUICK))
    if parts & {*ON_STAND, "memory"}:
        with standing(settings, programs, folder, others) as stand:
            if NGINX not in stand.targets:
                print(NO_NGINX, file=sys.stderr)
            figures = _on_stand(figures, stand, parts)
            proof = features.asked(stand.targets[ROUTER], stand.sent, stand.hits)
            stand.router.stop()
            proof = features.read(proof, stand.router.log_text())
    if "memory" in parts:
        figures = replace(figures, in_flight=process.in_flight(settings, programs, folder))
    if "start" in parts:
        figures = replace(figures, start=process.start(settings, programs, folder))
    if "workers" in parts:
        figures = replace(figures, workers=process.workers(settings, programs, folder))
    if "tls" in parts:
        figures = replace(figures, secure=secure.secure(settings, programs, folder))
    return figures, proof


def _on_stand(figures: Figures, stand: Stand, parts: set[str]) -> Figures:
    """What is measured on one router after the other, beside nginx and the peers."""
    if "memory" in parts:
        figures = replace(figures, idle=wire.idle_bytes(stand))
    if "latency" in parts:
        figures = replace(figures, latency=wire.latency(stand))
    if "throughput" in parts:
        figures = replace(figures, throughput=wire.throughput(stand))
    if "streams" in parts:
        figures = replace(figures, streams=wire.streams(stand))
    return figures


def _decision(quick: bool) -> DecisionFigures:
    """The decision's figures, from a process with a core of its own."""
    command = module("bench.decision", *(["--quick"] if quick else []))
    with Child(command, cores()[0]) as child:
        answer = child.ask(b"", DECISION_LIMIT_S)
    return msgspec.json.decode(answer, type=DecisionFigures)


def median(reports: Sequence[Report]) -> Report:
    """Of each part the run whose main figure lies in the middle."""
    every = [report.figures for report in reports]
    parts = {k: getattr(sorted(every, key=by)[len(every) // 2], k) for k, by in MAIN.items()}
    return replace(reports[0], figures=replace(every[0], **parts))


def save(report: Report, folder: Path) -> Path:
    """Write the figures as JSON, under the date and the commit they belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "-quick" if report.quick else "-soak" if report.figures.soak else ""
    file = folder / f"{report.at[:10]}-{report.code.commit}{kind}.json"
    told = [as_data(row) for row in rows(report.figures, report.method)]
    data = msgspec.json.encode(replace(report, rows=told))
    file.write_bytes(msgspec.json.format(data) + b"\n")
    return file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run that proves nothing")
    parser.add_argument("--only", choices=PARTS, help="one part alone; overhead: all but decision")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="measure N times, keep the median run"
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="install LiteLLM's proxy and Portkey's gateway for this run, and measure them as well",
    )
    parser.add_argument(
        "--soak",
        type=int,
        nargs="?",
        const=SOAK,
        default=0,
        metavar="N",
        help=f"only whether memory grows over N mixed requests ({SOAK:,})",
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const=str(RESULTS),
        metavar="FOLDER",
        help="write the figures as JSON, into bench/results or another folder",
    )
    return parser


def _ended(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)  # as an exception, so that every child is ended on the way out


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)
    sys.exit(main())
