"""The ledger's file: what it adds up, what it does where it cannot be written, and `llmr spend`."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmr.cli.app import app
from llmr.cli.serve import run
from llmr.errors import ConfigError
from llmr.ledger import keeper, sheet
from llmr.ledger.book import MIGRATIONS, open_book, read, write
from llmr.ledger.keeper import Ledger
from llmr.ledger.settling import total_in
from llmr.ledger.sheet import OTHER, Key, Line, Sheet
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import Server, eventually, upstream

HI = [{"role": "user", "content": "Hi."}]
MODEL = "openai/gpt-5.4-mini"


def key(model: str = "lab/a", day: str = "2026-11-25", tag: str = "") -> Key:
    return Key(day, "open", tag, "lab", model, "reported")


def line(usd: str, tokens: int = 10) -> Line:
    return Line(1, 1, 0, tokens, 0, 0, tokens, 0, Decimal(usd))


def sums(path: Path) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for one, each in read(path):
        found[one.model] = found.get(one.model, Decimal(0)) + each.usd
    return found


def put(path: Path, *lines: tuple[Key, Line]) -> None:
    with closing(open_book(path)) as book:
        for one, each in lines:
            write(book, {one: each})


# --- sums ---


def test_sums_of_the_smallest_prices_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    put(path, *((key(), line("0.0000000000001")) for _ in range(1000)), (key(), line("1000000.1")))
    assert sums(path) == {"lab/a": Decimal("1000000.1000000001")}


def test_a_sheet_is_bounded_and_loses_no_money(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "MOST_LINES", 3)
    found = Sheet()
    for number in range(50):
        found.add(key(tag=f"t{number}"), line("0.1"))
    lines = found.take()
    assert len(lines) == 4
    assert sum(each.usd for each in lines.values()) == Decimal(5)
    assert {one.tag for one in lines} == {"t0", "t1", "t2", OTHER}


@pytest.mark.parametrize(
    ("body", "usd"),
    [
        (b'{"data": {"total_cost": 0.25}}', Decimal("0.25")),
        (b'{"data": {"total_cost": -1}}', None),
        (b'{"data": {"total_cost": "much"}}', None),
        (b'{"data": []}', None),
        (b"[" * 100_000, None),
        (b"<html>", None),
        (b'"\xff"', None),
    ],
)
def test_what_a_generation_was_billed(body: bytes, usd: Decimal | None) -> None:
    assert total_in(body) == usd


# --- over the wire ---


def kept(sandbox_process: SandboxProcess, path: Path, **more: Any) -> dict[str, Any]:
    return upstream(sandbox_process.base_url, state={"path": str(path)}, **more)


def test_answers_stand_by_key_tag_and_model(
    sandbox_process: SandboxProcess, sandbox: Control, tmp_path: Path
) -> None:
    path = tmp_path / "state.sqlite"
    tree = kept(sandbox_process, path, server={"api_keys": ["key-one", "key-two"]})
    with Server(tree, sandbox=True) as server:
        for name, tag in (("one", "nightly"), ("one", None), ("two", "nightly")):
            headers = {"authorization": f"Bearer key-{name}"}
            headers |= {"x-llmr-tag": tag} if tag else {}
            assert server.chat(model=MODEL, messages=HI, headers=headers).status == 200
    rows = list(read(path))
    assert {one.tag for one, _ in rows} == {"nightly", ""}
    assert len({one.tenant for one, _ in rows}) == 2
    assert "key-one" not in path.read_bytes().decode("latin-1")
    assert sum(each.usd for _, each in rows) == Decimal(sandbox.invoice()["total"])
    assert {one.source for one, _ in rows} == {"reported"}


@pytest.mark.parametrize("tag", ["x" * 65, "caf\u00e9", "a\tb"])
def test_a_tag_that_is_none_is_refused(server: Server, tag: str) -> None:
    reply = server.chat(
        model=MODEL, messages=HI, headers={"x-llmr-tag": tag.encode().decode("latin-1")}
    )
    assert (reply.status, reply.error["code"]) == (400, "invalid_tag")


def test_p06_a_locked_file_holds_up_nobody(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmr.ledger.book.BUSY_S", 0.05)
    path = tmp_path / "state.sqlite"
    with Server(kept(sandbox_process, path), sandbox=True) as server:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(5):
                assert server.chat(model=MODEL, messages=HI).status == 200

            def health() -> Any:
                return server.request("GET", "/health").json["ledger"]

            eventually(lambda: health()["error"] is not None, "told")
            assert "locked" in health()["error"]
            other.execute("ROLLBACK")
        eventually(lambda: health()["error"] is None and not health()["waiting"], "written")
        assert sums(path)[MODEL] == Decimal(sandbox.invoice()["total"])


def test_p07_a_full_disk_keeps_the_sums(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    ledger = Ledger(path)
    ledger._open()
    assert ledger._book is not None
    pages = ledger._book.execute("PRAGMA page_count").fetchone()[0]
    ledger._book.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(500):
        ledger.put(key(tag=f"t{number}"), line("0.1"))
    ledger.flush()
    assert "full" in ledger.status()["error"]
    ledger._book.execute("PRAGMA max_page_count = 100000")
    ledger.flush()
    assert ledger.status()["error"] is None
    assert sums(path) == {"lab/a": Decimal(50)}
    ledger.close()


@pytest.mark.parametrize("damage", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_p07_a_damaged_file_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(damage)
    ledger = Ledger(path)
    ledger.start()
    ledger.put(key(), line("0.5"))
    ledger.close()
    assert sums(path) == {"lab/a": Decimal("0.5")}
    (aside,) = tmp_path.glob("state.sqlite.damaged-*")
    assert aside.read_bytes() == damage


def test_p07_what_cannot_be_opened_is_told_and_serving_goes_on(
    sandbox_process: SandboxProcess, tmp_path: Path
) -> None:
    path = tmp_path / "file" / "state.sqlite"
    path.parent.write_text("no folder")
    with Server(kept(sandbox_process, path), sandbox=True) as server:
        assert server.chat(model=MODEL, messages=HI).status == 200
        assert server.request("GET", "/health").json["ledger"]["error"]


def test_p07_a_newer_file_refuses_to_start(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with closing(open_book(path)) as book:
        book.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    flags = {"state.path": str(path), "server.port": 0}
    with pytest.raises(ConfigError, match="newer llmr"):
        run(None, flags, 1, False, "info")


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    one, two = Ledger(path), Ledger(path)
    one.start()
    two.start()
    for ledger in (one, two):
        for _ in range(100):
            ledger.put(key(), line("0.01"))
    one.close()
    two.close()
    assert sums(path) == {"lab/a": Decimal(2)}


def test_what_is_counted_is_written_within_a_second_or_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "WRITE_S", 0.01)
    ledger = Ledger(tmp_path / "state.sqlite")
    ledger.start()
    ledger.put(key(), line("0.25"))
    eventually(lambda: sums(tmp_path / "state.sqlite") == {"lab/a": Decimal("0.25")}, "written")
    ledger.close()


# --- llmr spend ---


@pytest.fixture
def spent(tmp_path: Path) -> list[str]:
    path = tmp_path / "state.sqlite"
    put(
        path,
        (key("lab/a", "2026-11-24"), line("0.001", 1000)),
        (key("lab/b", "2026-11-25"), line("0.02", 2000)),
        (key("lab/b", "2026-11-25", "nightly"), line("0.03", 3000)),
    )
    file = tmp_path / "config.yaml"
    file.write_text(f"state:\n  path: {path}\n")
    return ["spend", "--config", str(file)]


def test_spend_by_model_as_json(spent: list[str]) -> None:
    found = json.loads(CliRunner().invoke(app, [*spent, "--by", "model", "--json"]).stdout)
    assert [(row["model"], row["usd"]) for row in found["rows"]] == [
        ("lab/a", "0.001"),
        ("lab/b", "0.05"),
    ]
    assert found["total"]["usd"] == "0.051"


def test_spend_as_csv_by_two_groups_since_a_day(spent: list[str]) -> None:
    arguments = ["--by", "day", "--by", "tag", "--since", "2026-11-25", "--csv"]
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(app, [*spent, *arguments]).stdout)))
    assert [(row["day"], row["tag"], row["usd"]) for row in rows] == [
        ("2026-11-25", "", "0.02"),
        ("2026-11-25", "nightly", "0.03"),
    ]


def test_spend_says_what_was_saved(spent: list[str]) -> None:
    arguments = ["--always", "openai/gpt-5.4", "--json"]
    total = json.loads(CliRunner().invoke(app, [*spent, *arguments]).stdout)["total"]
    always = 6000 * (Decimal("0.0000025") + Decimal("0.000015"))
    assert Decimal(total["always_usd"]) == always
    assert Decimal(total["saved_usd"]) == always - Decimal("0.051")


def test_spend_as_a_table(spent: list[str]) -> None:
    shown = CliRunner().invoke(app, spent).stdout
    assert "0.051000" in shown
    assert "2026-11-24" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--by", "hour"], 2, "no group"),
        (["--since", "yesterday"], 2, "is no day"),
        (["--always", "openai/gpt-5.4x"], 2, "did you mean"),
    ],
)
def test_spend_says_what_is_wrong(
    spent: list[str], arguments: list[str], code: int, words: str
) -> None:
    result = CliRunner().invoke(app, [*spent, *arguments])
    assert result.exit_code == code
    assert words in result.stderr


def test_spend_without_a_ledger(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"state:\n  path: {tmp_path / 'none.sqlite'}\n")
    result = CliRunner().invoke(app, ["spend", "--config", str(file)])
    assert result.exit_code == 1
    assert "nothing was spent yet" in result.stderr
