"""What the documents say is so."""

import re
from pathlib import Path
from typing import get_args, get_type_hints

from llmr import config
from llmr.core.request import PRIORITIES, WISHES
from llmr.server.calls import MOST
from llmr.server.process import DRAIN_S
from llmr.upstreams.pool import IDLE_LIMIT_S, MAX_CONNECTIONS, MAX_IDLE, MAX_WAITING

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_sample_configuration_is_valid_and_holds_the_defaults() -> None:
    loaded = config.load(ROOT / "config.yaml", environ={})
    assert loaded == config.load(environ={}, directory=ROOT / "docs")


def test_the_sample_shows_every_setting() -> None:
    text = (ROOT / "config.yaml").read_text()
    for definition in config.schema()["$defs"].values():
        for name in definition["properties"]:
            assert re.search(rf"\b{name}\b", text), name


def test_the_commented_upstream_of_the_sample_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "config.yaml").read_text()
    start, end = text.index("  # lab:"), text.index("redis:")
    lab = re.sub(r"(?m)^  # ?", "  ", text[start:end])
    (tmp_path / "config.yaml").write_text("upstreams:\n" + lab)
    row = config.load(environ={}, directory=tmp_path).upstreams["lab"]
    assert row is not None
    assert row.models is not None
    assert row.models[0].id == "lab-large"


def test_the_table_of_priorities_is_the_codes() -> None:
    for name, weights in PRIORITIES.items():
        cells = " | ".join(f"{weight:.2f}" for weight in weights)
        assert f"| `{name}` | {cells} |" in README


def test_every_wish_is_in_the_readme() -> None:
    for name in WISHES:
        assert f"`{name}`" in README


def test_the_environment_sample_names_real_settings() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = [line.lstrip("# ").split("=", 1) for line in lines if re.match(r"^(# )?[A-Z_]+=", line)]
    environ = {name: value for name, value in pairs if name != "LLMR_CONFIG"}
    loaded = config.load(environ=environ, directory=ROOT / "docs")
    assert loaded.redis.address == "redis://127.0.0.1:6379/0"


def test_the_limits_that_are_no_settings_are_the_codes() -> None:
    text = (ROOT / "docs" / "running.md").read_text()
    for figure in (MOST, MAX_CONNECTIONS, MAX_WAITING, MAX_IDLE):
        assert f"| {figure:,} |" in text
    assert f"idle connections kept, for {IDLE_LIMIT_S:.0f} s" in text
    assert f"go on for up to {DRAIN_S:.0f} s" in " ".join(text.split())


def test_every_way_to_continue_is_told() -> None:
    text = (ROOT / "docs" / "running.md").read_text()
    for value in get_args(get_type_hints(config.LimitsConfig)["continuation"]):
        assert f"| `{value}` |" in text


def test_links_between_documents_lead_somewhere() -> None:
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_room_is_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    source = ROOT / "src" / "llmr"
    rooms = {p.name for p in source.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    rows = {p.stem for room in ("core", "upstreams") for p in (source / room).glob("*.py")}
    alone = {p.stem for p in source.glob("*.py")} - {"__init__", "__main__", "config", "errors"}
    for name in rooms | (rows - {"__init__"}) | alone:
        assert re.search(rf"\b{name}\b", text), name
