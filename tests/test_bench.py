"""The benchmarks work from end to end. How fast anything is, is no matter of tests."""

import os
import sys
from pathlib import Path

import msgspec
import pytest

from bench.__main__ import main
from bench.callers import judged, whole_size
from bench.children import BenchError, Child, module
from bench.overhead import DIRECT, ROUTER
from bench.payload import completion, request
from bench.report import Report
from bench.settings import LARGE, QUICK, SMALL
from bench.spread import Spread, spread


def sane(times: Spread) -> bool:
    return times.count > 0 and 0 < times.p50 <= times.p99 <= times.p999 <= times.most


def test_a_quick_measurement_measures_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "--save", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "Deciding" in table
    assert "PROBLEM" not in table
    (file,) = tmp_path.iterdir()
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert report.quick
    assert report.method == QUICK

    decision = report.decision
    assert decision is not None
    assert decision.bundled.routable > 100
    assert decision.synthetic.routable == QUICK.synthetic_models
    for catalogue in (decision.bundled, decision.synthetic):
        assert 1 < catalogue.shapes <= QUICK.shapes
        assert all(map(sane, (catalogue.cold, catalogue.warm, catalogue.alone)))
        assert all(map(sane, (catalogue.repeated, catalogue.explain, catalogue.publish)))
    assert sane(decision.parse_small)
    assert sane(decision.parse_large)

    overhead = report.overhead
    assert overhead is not None
    assert not overhead.log
    for target in (DIRECT, ROUTER):
        for measured in (overhead.single_small[target], overhead.single_large[target]):
            assert measured.answered == QUICK.rounds * QUICK.single
            assert sane(measured.took)
        for by in overhead.busy.values():
            assert by[target].answered == QUICK.rounds * QUICK.busy
            assert by[target].per_s > 0
        streams = overhead.streams[target]
        assert streams.answered == QUICK.stream_rounds * QUICK.streams
        assert streams.late.count == streams.answered * QUICK.events
        assert not streams.errors
    assert overhead.start_ms > 0
    assert set(overhead.import_ms) == {"llmr", "llmr.router"}


def test_requests_have_the_size_they_are_said_to_have() -> None:
    assert [len(request(size)) for size in (SMALL, LARGE)] == [SMALL, LARGE]
    assert 1300 < len(completion()) < 1500


def test_percentiles_are_times_that_were_measured() -> None:
    times = spread(n / 1e6 for n in range(1, 101))
    assert times == Spread(100, 51.0, 100.0, 100.0, 100.0)
    assert spread([]).count == 0


def test_an_answer_is_judged_by_status_size_and_text() -> None:
    body = completion()
    good = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    size = whole_size(good)
    assert size == len(good)
    assert whole_size(good[:20]) == 0
    assert judged(good, size) is None
    assert judged(good.replace(b"200 OK", b"503 No"), size) == "status 503"
    assert judged(good + b"x", size) == "wrong answer"
    assert judged(good.replace(b"often", b"never"), size) == "wrong answer"


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
