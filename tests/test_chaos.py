"""The public faults, as `llmr chaos` runs them; S15 takes a minute and is left out."""

import asyncio
import json
from pathlib import Path

from llmr import chaos, config
from tests.test_cli import llmr

QUICK = [s.id for s in chaos.SCENARIOS if s.id not in ("S06", "S07", "S09")]


def test_the_quick_scenarios_pass() -> None:
    results = asyncio.run(chaos.run(config.build({}, {}), QUICK, lambda _: None))
    assert [(r.id, r.outcome) for r in results if not r.passed] == []
    assert [r.id for r in results] == sorted(QUICK)


def test_slow_scenarios_pass_within_shorter_limits() -> None:
    tree = {"limits": {"first_event_s": 1, "idle_s": 1}}
    results = asyncio.run(chaos.run(config.build(tree, {}), ["S06", "S07", "S09"], lambda _: None))
    assert [(r.id, r.outcome) for r in results if not r.passed] == []


def test_settings_that_give_up_show(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("limits: {continue: never}\n")
    out = llmr(tmp_path, "chaos", "-s", "S08", "-s", "s03", "--json")
    assert out.returncode == 1
    told = json.loads(out.stdout)
    assert (told["passed"], told["of"]) == (1, 2)
    assert "upstream_cut_answer" in told["scenarios"][1]["outcome"]
    assert llmr(tmp_path, "chaos", "-s", "S99").returncode == 2
