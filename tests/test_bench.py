"""The benchmarks work from end to end. How fast anything is, is no matter of tests."""

import os
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bench import load
from bench.__main__ import main, median
from bench.children import BenchError, Child, module
from bench.compiler import Programs, compiled
from bench.features import lines
from bench.load import Compared, Job, Measured
from bench.payload import DONE, MARK, Target, completion, event, request
from bench.report import Report, as_data, targets
from bench.rows import Figures, Row, Soak, rows
from bench.settings import LARGE, QUICK, SMALL
from bench.spread import Spread, spread
from bench.stand import DIRECT, NGINX, ROUTER, same
from bench.wire import Latency, Throughput
from tests.raw_upstream import answering, chunked, reply, serving_beside

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="the bench waits with epoll")


def sane(times: Spread) -> bool:
    return times.count > 0 and 0 < times.p50 <= times.p99 <= times.p999 <= times.most


@only_linux
def test_a_quick_measurement_measures_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "--save", str(tmp_path)]) == 0, capsys.readouterr().err
    table = capsys.readouterr().out
    assert "Targets" in table
    assert "PROBLEM" not in table
    (file,) = tmp_path.iterdir()
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert report.quick
    assert report.method == QUICK
    assert report.rows == [as_data(row) for row in rows(report.figures, QUICK)]
    assert len(report.rows) == 24

    figures = report.figures
    assert figures.decision is not None
    for catalogue, models in zip(
        (figures.decision.usual, figures.decision.large), QUICK.catalogues, strict=True
    ):
        assert catalogue.routable == models
        assert 1 < catalogue.shapes <= QUICK.shapes
        assert all(map(sane, (catalogue.cold, catalogue.warm, catalogue.alone)))
        assert all(map(sane, (catalogue.repeated, catalogue.explain, catalogue.publish)))
    assert sane(figures.decision.parse_small)
    assert sane(figures.decision.parse_large)

    assert figures.latency is not None
    assert figures.throughput is not None
    assert figures.streams is not None
    for target in (DIRECT, ROUTER):
        for by in (figures.latency.small, figures.latency.large, figures.latency.hit):
            assert by[target].answered == QUICK.rounds * QUICK.single
            assert sane(by[target].took)
        assert figures.throughput.busy[target].answered == QUICK.rounds * QUICK.busy
        for by, count in (
            (figures.streams.some, QUICK.streams),
            (figures.streams.many, QUICK.many_streams),
        ):
            assert by[target].answered == QUICK.stream_rounds * count
            assert by[target].late.count == by[target].answered * QUICK.events
    assert figures.in_flight is not None
    assert figures.in_flight.requests == QUICK.in_flight
    assert figures.start is not None
    assert set(figures.start.import_ms) == {"llmr", "llmr.router"}
    features = report.features
    assert features is not None
    assert features.sent == features.counted == features.logged + features.lines_lost
    assert not features.complaints


@only_linux
def test_a_soak_takes_the_memory_piece_by_piece(tmp_path: Path) -> None:
    assert main(["--soak", "400", "--save", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    soak = msgspec.json.decode(file.read_bytes(), type=Report).figures.soak
    assert soak is not None
    assert soak.requests == [200, 400]
    assert not soak.errors


def test_requests_have_the_size_they_are_said_to_have() -> None:
    assert [len(request(size)) for size in (SMALL, LARGE)] == [SMALL, LARGE]
    assert 1300 < len(completion()) < 1500


def test_percentiles_are_times_that_were_measured() -> None:
    times = spread(n / 1e6 for n in range(1, 101))
    assert times == Spread(100, 51.0, 96.0, 100.0, 100.0, 100.0)
    assert spread([]).count == 0


# --- the load generator ---


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return compiled(tmp_path_factory.mktemp("native"))


WHOLE = reply(completion(), "content-type: application/json")
EVENTS = [event(None), event(MARK), event(MARK.replace("event=000000", "event=000001"))]
END = [event("", "stop"), DONE]
STREAM = "content-type: text/event-stream\r\n"


def streamed(*events: bytes) -> bytes:
    return chunked(*events, fields=STREAM)


@only_linux
@pytest.mark.parametrize(
    ("answer", "stream", "problem"),
    [
        (WHOLE, False, None),
        (WHOLE.replace(b"200 OK", b"503 No"), False, "status 503"),
        (WHOLE.replace(b"often", b"never"), False, "wrong answer"),
        (WHOLE + b"x", False, "more than promised"),
        (WHOLE[:-1], False, "connection lost"),
        (b"What?\r\n\r\n", False, "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", False, "not HTTP/1.1"),
        (chunked(completion()), False, None),
        (chunked(completion(), end=b""), False, "connection lost"),
        (WHOLE, True, "not a stream"),
        (streamed(*EVENTS, *END), True, None),
        (streamed(b"".join(EVENTS)[:50], b"".join([*EVENTS, *END])[50:]), True, None),
        (streamed(b": a comment\n\n", *EVENTS, *END), True, None),
        (streamed(*EVENTS[:2], *END), True, "events missing"),
        (streamed(EVENTS[0], *EVENTS[2:], *END), True, "event missing or twice"),
        (streamed(*EVENTS, EVENTS[2], *END), True, "event missing or twice"),
        (streamed(EVENTS[0], EVENTS[1].replace(b" sent", b" send"), *END), True, "event changed"),
        (streamed(*EVENTS, DONE), True, "no finish reason"),
        (streamed(*EVENTS, END[0]), True, "no [DONE]"),
        (streamed(*EVENTS, *END, EVENTS[1]), True, "event after the end"),
    ],
)
def test_every_answer_is_judged(
    programs: Programs, tmp_path: Path, answer: bytes, stream: bool, problem: str | None
) -> None:
    job = Job(connections=1, requests=1, events=2, patience_s=5.0)
    with serving_beside(answering(answer, close=True)) as served:
        targets = {"scripted": Target(served.port)}
        found = load.run(programs.load, job, same(SMALL, stream), targets, tmp_path, ())
    measured = found["scripted"]
    assert measured.errors == ({problem: 1} if problem else {})
    assert measured.sent == 1
    assert measured.answered == (0 if problem else 1)


@only_linux
def test_an_open_loop_times_from_when_a_request_was_due(programs: Programs, tmp_path: Path) -> None:
    # One connection, everything due at once: each has waited for those before it.
    job = Job(connections=1, requests=50, per_s=1e6)
    with serving_beside(answering(WHOLE)) as served:
        targets = {"scripted": Target(served.port)}
        found = load.run(programs.load, job, same(SMALL), targets, tmp_path, ())["scripted"]
    assert found.answered == found.took.count == 50
    assert found.took.most > 49 * (1e6 / found.per_s) * 0.5


@only_linux
def test_a_missing_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="apt-get install gcc"):
        compiled(tmp_path)


# --- the table ---


def took(p50: float, p99: float = 0.0, per_s: float = 0.0) -> Measured:
    times = Spread(1, p50, p99, p99, p99, p99)
    return Measured(1, 1, 0, per_s, [per_s], times, spread([]), times, {})


def by(direct: Measured, router: Measured, nginx: Measured | None = None) -> Compared:
    found = {DIRECT: direct, ROUTER: router}
    return found if nginx is None else {**found, NGINX: nginx}


def measured_latency(nginx: Measured | None) -> Figures:
    one = by(took(20, 40), took(140, 340), nginx)
    return Figures(latency=Latency(one, one, one, one))


def test_added_latency_is_compared_with_nginxs() -> None:
    found = rows(measured_latency(took(120, 240)), QUICK)
    assert [row.measured for row in found] == [1.2, 1.5, 1.2, 1.2, 0.34, 0.34]
    assert [row.met for row in found] == [True, True, True, False, False, False]
    assert found[0].by == {ROUTER: 120, NGINX: 100}


@pytest.mark.parametrize("nginx", [None, took(20, 40)])
def test_where_there_is_nothing_to_compare_with_there_is_no_verdict(nginx: Measured | None) -> None:
    found = rows(measured_latency(nginx), QUICK)
    assert [row.met for row in found[:4]] == [None] * 4
    assert "NO" not in "".join(targets(found[:4]))


def test_a_target_is_a_least_or_a_most() -> None:
    least = Row("much", 0.42, 0.42, "×", at_least=True)
    assert least.met
    assert not replace(least, measured=0.41).met
    assert not replace(least, at_least=False, measured=0.43).met
    assert "NO" in "\n".join(targets([replace(least, measured=0.41)]))


def test_memory_of_a_soak_is_compared_with_that_after_its_first_piece() -> None:
    (row,) = rows(Figures(soak=Soak([100_000, 200_000], [60, 63], {})), QUICK)
    assert row.measured == 1.05


def test_of_each_part_the_median_run_is_kept() -> None:
    def run(per_s: float, p50: float) -> Report:
        one = by(took(p50, p50), took(p50, p50, per_s))
        figures = Figures(latency=Latency(one, one, one, one), throughput=Throughput(one, {}))
        blank = {"at": "", "quick": True, "code": None, "machine": None, "versions": {}}
        return Report(**blank, method=QUICK, figures=figures)  # type: ignore[arg-type]

    kept = median([run(3, 7), run(1, 9), run(2, 8)]).figures
    assert kept.throughput is not None
    assert kept.throughput.busy[ROUTER].per_s == 2
    assert kept.latency is not None
    assert kept.latency.small[ROUTER].took.p50 == 8


def test_a_log_that_lacks_lines_refuses_the_figures() -> None:
    line = "2026-01-01 00:00:00,000 INFO    200 v1 a/b cache=bypass total=1.0ms\n"
    assert lines(line * 3, 3) == (3, 0)
    assert lines(line + "2 log lines were lost\n", 3) == (1, 2)
    with pytest.raises(BenchError, match="3 requests were sent, and the log has 2 lines"):
        lines(line * 2, 3)


# --- child processes ---


def test_a_child_that_fails_is_named(tmp_path: Path) -> None:
    command = module("bench.no_such_module")
    with (
        Child(command, log=tmp_path / "log") as child,
        pytest.raises(BenchError, match=r"bench\.no_such_module did not start[^$]*No module named"),
    ):
        child.line()


def test_a_child_that_takes_too_long_is_ended() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with Child(command) as child, pytest.raises(BenchError, match="took more than"):
        child.ask(b"", 0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
