"""The names of the Failover Bench, and the pace of answers."""

import json
import time

import pytest

from llmr.sandbox import CANONICAL_ANSWER, catalogue, pace, scenarios
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.settings import Settings
from tests.sandbox.wire import MODEL, SHORT, ask, complete, until

# The Failover Bench names.


def statuses(sandbox: SandboxProcess, model: str, count: int) -> list[int]:
    return [ask(sandbox, model).status for _ in range(count)]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("fb-ok", [200, 200]),
        ("fb-s01-429-retry-after", [429, 200, 200]),
        ("fb-s02-429-persistent", [429, 429, 429]),
        ("fb-s03-500-then-200", [500, 200, 200]),
        ("fb-s04-503-persistent", [503, 503]),
        ("fb-s12-context-length", [400, 400]),
        ("fb-s13-content-filter", [400, 400]),
        ("fb-s16-503-persistent", [503, 503]),
        ("sandbox/fb-s04", [503]),
    ],
)
def test_scenarios_by_status(sandbox: SandboxProcess, model: str, expected: list[int]) -> None:
    assert statuses(sandbox, model, len(expected)) == expected


def test_scenario_bodies_and_hints(sandbox: SandboxProcess) -> None:
    assert "retry-after: 2\r\n" in ask(sandbox, "fb-s01").head + "\r\n"
    assert "retry-after" not in ask(sandbox, "fb-s02").head
    assert ask(sandbox, "fb-s12").json["error"]["code"] == "context_length_exceeded"
    assert ask(sandbox, "fb-s13").json["error"]["code"] == "content_policy_violation"


def test_s05_resets_once(sandbox: SandboxProcess) -> None:
    assert ask(sandbox, "fb-s05-reset") == (b"", "reset")
    assert ask(sandbox, "fb-s05-reset").text == CANONICAL_ANSWER


def test_s06_and_s07_are_slow(sandbox: SandboxProcess, control: Control) -> None:
    defaults = control.settings()
    assert (defaults["silent_s"], defaults["slow_first_token_s"]) == (120, 20)
    control.settings(**SHORT)
    assert ask(sandbox, "fb-s06-no-response", patience=0.05) == (b"", "open")
    assert ask(sandbox, "fb-s06-no-response") == (b"", "eof")
    early = ask(sandbox, "fb-s07-slow-ttft", patience=0.05)
    assert (early.status, early.pieces) == (200, [])
    assert complete(ask(sandbox, "fb-s07-slow-ttft"))


@pytest.mark.parametrize("model", ["fb-s08-stream-cut", "fb-s14-stream-cut"])
def test_s08_and_s14_cut_every_time(sandbox: SandboxProcess, model: str) -> None:
    for _ in range(2):
        wire = ask(sandbox, model)
        assert (len(wire.pieces), wire.end, wire.whole) == (40, "eof", False)
        assert CANONICAL_ANSWER.startswith(wire.text)


def test_s09_stalls_then_closes(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(**SHORT)
    assert ask(sandbox, "fb-s09-stream-stall", patience=0.05).end == "open"
    wire = ask(sandbox, "fb-s09-stream-stall")
    assert (len(wire.pieces), wire.end, wire.whole) == (20, "eof", False)


def test_s10_and_s11_are_otherwise_whole(sandbox: SandboxProcess) -> None:
    malformed, no_done = ask(sandbox, "fb-s10-malformed-chunk"), ask(sandbox, "fb-s11-no-done")
    assert malformed.text == no_done.text == CANONICAL_ANSWER
    assert complete(malformed)
    with pytest.raises(json.JSONDecodeError):
        json.loads(malformed.data_lines[10])
    assert no_done.whole
    assert not complete(no_done)


def test_s15_is_well_after_its_time(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(flap_s=0.2)
    began = time.monotonic()
    assert statuses(sandbox, "fb-s15-flap", 2) == [503, 503]
    assert until(lambda: ask(sandbox, "fb-s15-flap").status == 200)
    assert time.monotonic() - began >= 0.2
    control.reset()
    assert ask(sandbox, "fb-s15-flap").status == 503


def test_every_published_name_is_a_scenario() -> None:
    found = [scenarios.scenario_of(name) for name in scenarios.MODEL_NAMES]
    assert len(set(found)) == len(found) == 18
    assert scenarios.scenario_of("fb-s17-other") is scenarios.scenario_of("fb-s1") is None
    assert scenarios.scenario_of("fb-okay") is None


# Pace.


def test_a_quantile_passes_through_the_record() -> None:
    known = catalogue.Percentiles(0.5, 1.0, 4.0)
    shares = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    values = [pace.quantile(known, share) for share in shares]
    assert values == pytest.approx([0.5, 0.5, 0.5**0.5, 1.0, 2.0, 4.0, 4.0])


def test_latencies_follow_the_seed_and_the_attempt() -> None:
    known = catalogue.load().latency(MODEL)
    assert known
    draws = [pace.draw(known, MODEL, n, Settings(seed=1)) for n in range(300)]
    assert draws == [pace.draw(known, MODEL, n, Settings(seed=1)) for n in range(300)]
    assert draws != [pace.draw(known, MODEL, n, Settings(seed=2)) for n in range(300)]
    first = sorted(one.first_s for one in draws)
    assert known[0].p10 <= first[0] < first[-1] <= known[0].p90
    assert first[150] == pytest.approx(known[0].p50, rel=0.15)


def test_a_model_without_a_record_has_the_median_of_all() -> None:
    drawn = pace.draw(None, "x", 1, Settings(speed=2))
    assert tuple(drawn) == pytest.approx((2.2, 2 / 41))


def test_speed_scales_what_is_recorded(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(speed=0.1, first_token_s=1.0, tokens_per_s=100)
    began = time.monotonic()
    tokens = ask(sandbox, stream=False).json["usage"]["completion_tokens"]
    assert time.monotonic() - began == pytest.approx(0.1 + tokens / 1000, abs=0.08)


def test_tokens_arrive_one_after_another(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(speed=1, fb_first_token_s=0.05, fb_token_s=0.02)
    wire = ask(sandbox, "fb-ok", patience=0.35)
    assert wire.end == "open"
    assert 8 <= len(wire.pieces) <= 16
