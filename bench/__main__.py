"""`python -m bench`: measure, print one table, and keep the figures where that is asked for."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
from msgspec.structs import replace

from bench import overhead
from bench.children import BenchError, Child, cores, module
from bench.decision import DecisionFigures
from bench.machine import code, machine, versions
from bench.report import Report, table
from bench.settings import FULL, QUICK

RESULTS = Path(__file__).parent / "results"
DECISION_LIMIT_S = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the flags say; the exit code."""
    given = _parser().parse_args(arguments)
    reports = []
    try:
        for number in range(max(1, given.repeat)):
            if given.repeat > 1:
                print(f"run {number + 1} of {given.repeat}", file=sys.stderr)
            reports.append(measure(given.quick, given.only))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    report = median(reports)
    print("\n".join(table(report)))
    if given.save is not None:
        print(f"\nsaved as {save(report, Path(given.save))}")
    return 0


def measure(quick: bool, only: str | None) -> Report:
    """One whole measurement."""
    settings = QUICK if quick else FULL
    here, what = machine(), code()
    decision = _decision(quick) if only != "overhead" else None
    routed = overhead.run(settings) if only != "decision" else None
    return Report(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        quick=quick,
        code=what,
        machine=here,
        versions=versions(),
        method=settings,
        decision=decision,
        overhead=routed,
    )


def _decision(quick: bool) -> DecisionFigures:
    """The decision's figures, from a process with a core of its own."""
    command = module("bench.decision", *(["--quick"] if quick else []))
    with Child(command, cores()[0]) as child:
        answer = child.ask(b"", DECISION_LIMIT_S)
    return msgspec.json.decode(answer, type=DecisionFigures)


def median(reports: Sequence[Report]) -> Report:
    """Of each part the run whose main figure lies in the middle."""

    def decided(report: Report) -> float:
        return report.decision.bundled.cold.p50 if report.decision else 0.0

    def routed(report: Report) -> float:
        return report.overhead.single_small[overhead.ROUTER].took.p50 if report.overhead else 0.0

    middle = len(reports) // 2
    report = sorted(reports, key=routed)[middle]
    return replace(report, decision=sorted(reports, key=decided)[middle].decision)


def save(report: Report, folder: Path) -> Path:
    """Write the figures as JSON, under the date and the commit they belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    quick = "-quick" if report.quick else ""
    file = folder / f"{report.date}-{report.code.commit}{quick}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run that proves nothing")
    parser.add_argument("--only", choices=("decision", "overhead"), help="one part alone")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="measure N times, keep the median run"
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
