"""What a request through the router costs more than one straight to the upstream.

nginx as a plain reverse proxy is measured in the same rounds where it is installed.
"""

import re
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
from msgspec import Struct

from bench import payload
from bench.callers import judged, whole_size
from bench.children import BenchError, Child, cores, module
from bench.load import Job, Measured
from bench.servers import connect, start_nginx, start_router, start_upstream
from bench.settings import LARGE, SMALL, Settings

DIRECT, ROUTER, NGINX = "direct", "router", "nginx"
IMPORTS = ("llmr", "llmr.router")
NO_CATALOGUE = "GET /models answered 404"
SETTLE_S = 0.3  # before memory is looked at

Compared = dict[str, Measured]  # by target


class Memory(Struct, frozen=True):
    """MiB the router holds: after its first answer, after each kind of load, in the end."""

    idle: float | None
    after_single: float | None
    after_busy: float | None
    after_streams: float | None


class OverheadFigures(Struct, frozen=True):
    """Everything this part measures. `busy` is by connections, `cpu_us` by server."""

    single_small: Compared
    single_large: Compared
    busy: dict[int, Compared]
    streams: Compared
    cpu_us: dict[str, float]
    memory: Memory
    start_ms: float
    import_ms: dict[str, float]
    log: list[str]  # lines of the router's log that are no plain request line


def run(settings: Settings) -> OverheadFigures:
    """Start everything, measure, and end everything."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmr-bench-")))
        upstream, port = start_upstream(settings.events, settings.interval_ms)
        stack.enter_context(upstream)
        start_ms = statistics.median(start_to_answer(port, folder) for _ in range(settings.starts))
        import_ms = import_times(settings.starts, folder)
        router, router_port = start_router(port, folder)
        stack.enter_context(router)
        ports = {DIRECT: port, ROUTER: router_port}
        servers = {ROUTER: router}
        if (nginx := start_nginx(port, folder)) is not None:
            stack.enter_context(nginx[0])
            servers[NGINX], ports[NGINX] = nginx
        first_answer(router_port)
        time.sleep(SETTLE_S)
        memory = [router.rss_mb()]
        single = [put(one_connection(ports, size, settings)) for size in (SMALL, LARGE)]
        time.sleep(SETTLE_S)
        memory.append(router.rss_mb())
        busy, cpu_us = {}, {}
        for connections in settings.connections:
            before = {name: child.cpu_s() for name, child in servers.items()}
            job = many_connections(ports, connections, settings)
            busy[connections] = put(job)
            sent = job.rounds * job.requests + job.warm_up
            for name, child in servers.items():
                start, end = before[name], child.cpu_s()
                if start is not None and end is not None:
                    cpu_us[name] = round((end - start) / sent * 1e6, 1)
        time.sleep(SETTLE_S)
        memory.append(router.rss_mb())
        streams = put(many_streams(ports, settings))
        time.sleep(SETTLE_S)
        memory.append(router.rss_mb())
        log = complaints(router.log_text())
    return OverheadFigures(
        single[0], single[1], busy, streams, cpu_us, Memory(*memory), start_ms, import_ms, log
    )


def one_connection(ports: dict[str, int], size: int, settings: Settings) -> Job:
    """One caller that waits for each answer: what the router adds to a request."""
    return Job(
        kind="whole",
        ports=ports,
        body_bytes=size,
        connections=1,
        rounds=settings.rounds,
        requests=settings.single,
        warm_up=settings.warm_up,
    )


def many_connections(ports: dict[str, int], connections: int, settings: Settings) -> Job:
    """Callers that keep the router busy: what it can carry."""
    return Job(
        kind="whole",
        ports=ports,
        body_bytes=SMALL,
        connections=connections,
        rounds=settings.rounds,
        requests=settings.busy,
        warm_up=settings.warm_up,
    )


def many_streams(ports: dict[str, int], settings: Settings) -> Job:
    """Streams side by side: when they begin, and how late their events are."""
    return Job(
        kind="streams",
        ports=ports,
        body_bytes=SMALL,
        connections=settings.streams,
        rounds=settings.stream_rounds,
        events=settings.events,
        ramp_s=settings.ramp_s,
    )


def put(job: Job) -> Compared:
    """Have a job carried out by a load generator of its own."""
    limit_s = 30.0 + job.round_limit_s * (job.rounds + 1) * len(job.ports)
    with Child(module("bench.load"), cores()[1]) as child:
        answer = child.ask(msgspec.json.encode(job), limit_s)
    return msgspec.json.decode(answer, type=Compared)


def start_to_answer(upstream: int, folder: Path) -> float:
    """Milliseconds from starting the router to its first whole answer."""
    begun = time.perf_counter()
    router, port = start_router(upstream, folder)
    with router:
        first_answer(port)
        return round((time.perf_counter() - begun) * 1000, 1)


def first_answer(port: int) -> None:
    """One request, whose answer must be right."""
    with connect(port) as sock:
        sock.sendall(payload.http_post(port, payload.request(SMALL)))
        answer, size = b"", 0
        while not size or len(answer) < size:
            data = sock.recv(65536)
            if not data:
                raise BenchError("the router closed the connection before its first answer.")
            answer += data
            size = whole_size(answer)
    if (problem := judged(answer, size)) is not None:
        raise BenchError(f"the router's first answer is not right: {problem}. {answer[-500:]!r}")


def import_times(count: int, folder: Path) -> dict[str, float]:
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


def complaints(log: str) -> list[str]:
    """What the router's log says besides answered requests and the missing catalogue, each once."""
    lines = [x for x in log.splitlines() if " INFO " not in x and NO_CATALOGUE not in x]
    return list(dict.fromkeys(re.sub(r"^[\d-]+ [\d:,]+ ", "", line) for line in lines))[:20]
