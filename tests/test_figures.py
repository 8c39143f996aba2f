"""The pictures of the README: drawn from the code as it is, and naming modules that exist."""

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("flow.svg", "priorities.svg")
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


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_picture_is_what_the_code_draws(name: str, drawn: dict[str, str]) -> None:
    committed = (ROOT / "docs" / "img" / name).read_bytes()
    assert committed == drawn[name].encode(), f"docs/img/{name} is stale: run `make figures`"


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_xml_with_a_title(name: str, drawn: dict[str, str]) -> None:
    root = ElementTree.fromstring(drawn[name])  # noqa: S314 - our own words
    assert root.tag == f"{SVG}svg"
    assert root.findtext(f"{SVG}title")


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
