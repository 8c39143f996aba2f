"""The pictures of the README: drawn from the code as it is, and naming modules that exist."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("flow.svg", "priorities.svg", "bench.svg")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "tools" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawn(figures: ModuleType) -> dict[str, str]:
    pictures: dict[str, str] = figures.pictures()
    return pictures


def result(at: str, form: int = 2, quick: bool = False) -> dict[str, Any]:
    """A measurement as the bench keeps it, with three targets."""
    by = {"router": 30.0, "nginx": 60.0, "direct": 80.0, "litellm": 0.3}
    ratio = {"target": 0.42, "at_least": True, "measured": 0.5, "unit": "×", "met": True, "by": by}
    most = {"target": 65.0, "at_least": False, "measured": 99.0, "unit": "MB", "met": False}
    return {
        "form": form,
        "at": at,
        "quick": quick,
        "code": {"commit": "abc1234"},
        "machine": {"cpu": "A processor"},
        "versions": {"nginx": "1.22.1"},
        "rows": [
            *({**ratio, "name": f"ratio {n} / nginx"} for n in range(3)),
            {**most, "name": "memory", "by": {}},
        ],
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_picture_is_what_the_code_draws(name: str, drawn: dict[str, str]) -> None:
    file = ROOT / "docs" / "img" / name
    assert file.exists() == (name in drawn), f"docs/img/{name}: run `make figures`"
    if name in drawn:
        stale = f"docs/img/{name} is stale: run `make figures`"
        assert file.read_bytes() == drawn[name].encode(), stale


def test_what_was_measured_is_shown_with_its_method(drawn: dict[str, str]) -> None:
    shown = "(../docs/img/bench.svg)" in (ROOT / "bench" / "README.md").read_text()
    assert shown == ("bench.svg" in drawn), "bench/README.md has to show docs/img/bench.svg"


def test_every_picture_is_xml_with_a_title(figures: ModuleType, drawn: dict[str, str]) -> None:
    for svg in (*drawn.values(), figures.measured(result("2026-01-01T00:00:00Z"))):
        root = ElementTree.fromstring(svg)  # noqa: S314 - our own words
        assert root.tag == f"{SVG}svg"
        assert root.findtext(f"{SVG}title")


def test_the_newest_full_measurement_is_drawn(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for name, kept in {
        "a": result("2026-01-02T10:00:00Z"),
        "b": result("2026-01-02T09:00:00Z"),
        "c": result("2026-01-03T00:00:00Z", quick=True),
        "d": result("2026-01-03T00:00:00Z", form=1),
        "e": {**result("2026-01-03T00:00:00Z"), "rows": []},
        "f": {"date": "2026-01-04", "quick": False},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    assert figures.newest_result()["at"] == "2026-01-02T10:00:00Z"


def test_a_measured_ratio_is_shown_with_its_target(figures: ModuleType) -> None:
    svg = figures.measured(result("2026-01-01T00:00:00Z"))
    words = [t.text for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314
    assert words.count("0.50×  (≥ 0.42)") == 3
    assert words.count("litellm") == 3
    assert "99 MB  (≤ 65)" in words


def test_every_module_named_exists_and_is_shown(figures: ModuleType, drawn: dict[str, str]) -> None:
    for module in figures.MODULES:
        assert (ROOT / "src" / "llmr" / module).is_file(), module
        assert module in drawn["flow.svg"]


def test_the_terms_of_every_bar_add_up_to_its_score(
    figures: ModuleType, drawn: dict[str, str]
) -> None:
    root = ElementTree.fromstring(drawn["priorities.svg"])  # noqa: S314 - our own words
    bars = [r for r in root.iter(f"{SVG}rect") if r.get("height") == str(figures.BAR_HEIGHT)]
    scores = [float(t.text or "") for t in root.iter(f"{SVG}text") if t.get("class") == "bold"]
    terms = [float(r.get("width", "")) for r in bars if r.get("class") in figures.TERMS]
    assert len(terms) == 3 * len(scores) == 3 * 4 * figures.SHOWN
    for place, score in enumerate(scores):
        total = sum(terms[3 * place : 3 * place + 3]) / figures.PANEL_WIDTH
        assert total == pytest.approx(score, abs=0.001)
