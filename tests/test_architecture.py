"""The rules of the house, held by reading the source: who imports whom, how large things are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "llmr"

# A package may import itself and what stands in its row; arrows point down.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "outbox": set(),
    "opinion": {"core", "errors", "observe"},
    "watch": set(),
    "core": {"errors"},
    "loops": {"errors"},
    "config": {"config_file", "errors", "loops"},
    "config_file": {"errors"},
    "bundle": {"core"},
    "quality": {"bundle", "core"},
    "measures": set(),
    "evaluation": {"measures"},
    "upstreams": {"outbox"},
    "execution": {"core", "errors", "upstreams", "watch"},
    "cache": {"config", "core", "errors", "execution"},
    "observe": {"core", "errors"},
    "spending": {"core", "ledger"},
    "ledger": {"core", "errors", "observe", "upstreams"},
    "learned": {"core"},
    "own": {"config", "core"},
    "sessions": {"core"},
    "shelf": set(),
    "source": {"bundle", "config", "core", "own", "shelf", "upstreams"},
    "refresh": {"core", "source"},
    "gateway": {
        *(
            "accounting",
            "bundle",
            "cache",
            "calls",
            "config",
            "wiring",
            "core",
            "errors",
            "execution",
            "learned",
            "ledger",
            "listing",
            "loops",
            "observe",
            "opinion",
            "outbox",
        ),
        *("refresh", "sessions", "source", "ticket", "upstreams"),
    },
    "answering": {
        "accounting",
        "cache",
        "calls",
        "core",
        "errors",
        "execution",
        "gateway",
        "ticket",
    },
    "accounting": {"core", "errors", "execution", "observe", "ticket"},
    "ticket": {"core", "errors", "execution", "observe"},
    "calls": {"core", "errors", "execution", "ticket"},
    "wiring": {"config", "errors", "outbox", "upstreams"},
    "native": {"core", "execution", "ticket"},
    "listing": {"core"},
    "router": {"answering", "config", "core", "errors", "gateway", "native", "ticket"},
    "sync": {"config", "router"},
    "chaos": {"config", "errors", "router", "sandbox"},
    "server": {
        *(
            "answering",
            "config",
            "core",
            "errors",
            "gateway",
            "native",
            "observe",
            "outbox",
            "ticket",
            "watch",
        ),
    },
    "sandbox": set(),
    "cli": {
        *("bundle", "cache", "chaos", "config", "core", "errors", "evaluation", "gateway"),
        *("ledger", "listing", "observe", "quality", "spending"),
        *("router", "sandbox", "server", "source"),
    },
}
CORE_OUTSIDE = {"msgspec"}
PURE = {"asyncio", "socket", "threading", "time", "random", "os", "logging", "subprocess"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "llmr":
                yield from (f"llmr.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    if here in ("__init__", "__main__"):
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "llmr" or len(parts) < 2 or parts[1] == "__version__":
            continue
        assert parts[1] == here or parts[1] in MAY_IMPORT[here], f"{here} imports {name}"


def test_the_core_is_pure() -> None:
    for path in (SOURCE / "core").rglob("*.py"):
        names = {name.split(".")[0] for name in imports(path)} - {"llmr"}
        assert not names & PURE, path.name
        outside = {n for n in names if n not in {*CORE_OUTSIDE} and not is_standard(n)}
        assert not outside, f"{path.name}: {outside}"


def is_standard(name: str) -> bool:
    import sys

    return name in sys.stdlib_module_names


def test_the_imports_of_the_core_have_no_cycle() -> None:
    graph = {
        path.stem: {name.split(".")[2] for name in imports(path) if name.startswith("llmr.core.")}
        for path in (SOURCE / "core").rglob("*.py")
    }

    def reach(start: str, seen: frozenset[str]) -> None:
        for following in graph.get(start, set()):
            assert following not in seen, f"cycle through {following}"
            reach(following, seen | {following})

    for name in graph:
        reach(name, frozenset({name}))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 80, f"{node.name} has {length} lines"


def test_every_public_definition_of_the_core_says_what_it_is() -> None:
    for path in (SOURCE / "core").rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path.name
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
