"""The router as a process: start, import, memory of requests in flight, a second worker."""

import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench import load
from bench.children import Child, cores, descriptors
from bench.compiler import Programs
from bench.features import lines
from bench.load import Compared, Job, Request
from bench.payload import HOLD, Target, request
from bench.servers import first_answer, start_router, start_upstream
from bench.settings import SMALL, Settings
from bench.stand import ROUTER, same

IMPORTS = ("llmr", "llmr.router")
SETTLE_S = 0.3
RAMP_S = 2.0  # over which the requests come that stay in flight
SPARE = 200  # descriptors beside two per request
OWN = tuple(f"own-{n}" for n in range(8))  # connections to one upstream are bounded: it takes some
ONE, TWO = "one worker", "two workers"


class InFlight(Struct, frozen=True):
    """Bytes the router holds: before, and at most while so many requests wait for their answer."""

    requests: int
    before: int
    most: int
    errors: dict[str, int]


class Start(Struct, frozen=True):
    """Milliseconds, the median of some."""

    first_answer_ms: float
    import_ms: dict[str, float]


def in_flight(settings: Settings, programs: Programs, folder: Path) -> InFlight | None:
    """The upstream answers once all requests are there; a router of its own, filled before.

    None where this process may not have as many files open.
    """
    count = settings.in_flight
    needed = 2 * count + SPARE
    if descriptors() < needed:
        print(f"{count} requests in flight are left out: ulimit -Hn {needed}", file=sys.stderr)
        return None
    hold = ("--hold", str(count), "--hold-ms", str(round(settings.hold_s * 1000)))
    upstream, port = start_upstream(
        programs, folder, *hold, events=1, interval_ms=1.0, on=cores()[1]
    )
    with upstream:
        router, target = start_router(port, folder, "in-flight", own=OWN)
        with router:
            targets, on = {ROUTER: target}, cores()[1]
            fill = Job(connections=settings.connections, requests=settings.fill)
            load.run(programs.load, fill, _to_each(), targets, folder, on)
            time.sleep(SETTLE_S)
            before = most = router.rss()

            def look() -> None:
                nonlocal most
                most = max(most, router.rss())

            job = Job(connections=count, requests=count, per_s=count / RAMP_S)
            held = _to_each(user=HOLD)
            found = load.run(programs.load, job, held, targets, folder, on, look)[ROUTER]
    return InFlight(count, before, most, found.errors)


def start(settings: Settings, programs: Programs, folder: Path) -> Start:
    """How long it takes until there is an answer, and until there is a package."""
    upstream, port = start_upstream(programs, folder, events=1, interval_ms=1.0, on=cores()[1])
    with upstream:
        took = [_start_to_answer(port, folder) for _ in range(settings.starts)]
    return Start(statistics.median(took), _import_times(settings.starts, folder))


def workers(settings: Settings, programs: Programs, folder: Path) -> Compared:
    """One worker on one core and two on two, with load and upstream on the same two cores."""
    both = sorted({*cores()[0], *cores()[1]})
    upstream, port = start_upstream(programs, folder, events=1, interval_ms=1.0, on=both)
    job = Job(
        connections=settings.connections,
        requests=settings.busy,
        rounds=settings.rounds,
        warm_up=settings.warm_up,
        round_s=settings.round_s,
    )
    with upstream:
        one, one_target = start_router(port, folder, "one")
        with one:
            two, two_target = start_router(port, folder, "two", workers=2, on=both)
            with two:
                first_answer(two_target)
                targets = {ONE: one_target, TWO: two_target}
                found = load.run(programs.load, job, same(SMALL), targets, folder, both)
                time.sleep(SETTLE_S)  # what the logs have pending at the end is soon given up
        lines(one.log_text(), found[ONE].sent)
        lines(two.log_text(), found[TWO].sent + 1)
    return found


def _to_each(**more: Any) -> Callable[[Target], list[Request]]:
    """Requests to each of our own upstreams in turn."""
    return lambda _: [(request(SMALL, model=name, **more), False) for name in OWN]


def _start_to_answer(upstream: int, folder: Path) -> float:
    """Milliseconds from starting the router to its first whole answer."""
    begun = time.perf_counter()
    router, target = start_router(upstream, folder, "start")
    with router:
        first_answer(target)
        return round((time.perf_counter() - begun) * 1000, 1)


def _import_times(count: int, folder: Path) -> dict[str, float]:
    """Milliseconds `import llmr` and the first use of its `Router` take, as -X importtime tells."""
    found: dict[str, list[float]] = {name: [] for name in IMPORTS}
    log = folder / "importtime.log"
    command = [sys.executable, "-X", "importtime", "-c", "from llmr import Router"]
    for _ in range(count):
        with Child(command, cores()[0], cwd=folder, log=log) as child:
            child.ask(b"", 30.0)
            text = child.log_text()
        for name in IMPORTS:
            if line := re.search(rf"\| +(\d+) \| +{re.escape(name)}$", text, re.MULTILINE):
                found[name].append(int(line[1]) / 1000.0)
    return {name: round(statistics.median(took), 1) for name, took in found.items() if took}
