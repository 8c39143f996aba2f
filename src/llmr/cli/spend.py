"""`llmr spend`: what was spent, by day, model, key or tag, and what that saved."""

import csv
import re
import sqlite3
import sys
import time
from collections.abc import Sequence

from llmr import config as configuration
from llmr import spending
from llmr.cli.output import FAILED, USAGE, fail, print_json, say, table
from llmr.core.price import Prices
from llmr.gateway import Gateway
from llmr.ledger.book import place, read
from llmr.spending import GROUPS, Row

DAY = re.compile(r"\d{4}-\d\d-\d\d")
COLUMNS = ("usd", "answers", "attempts", "unpriced", "prompt_tokens", "completion_tokens")


def run(
    config: str | None,
    by: Sequence[str],
    since: str | None,
    until: str | None,
    always: str | None,
    form: str,
) -> None:
    """Print the report. `form` is table, csv or json."""
    loaded = configuration.load(config)
    by = by or ["day"]
    if unknown := [name for name in by if name not in GROUPS]:
        fail(f"there is no group {unknown[0]!r}", USAGE, f"use one of {', '.join(GROUPS)}")
    first, last = _day(since, "--since") or "", _day(until, "--until") or "9999"
    prices = _prices_of(Gateway(loaded, assume_keys=True), always) if always else None
    path = place(loaded.state.path)
    if not path.exists():
        fail(f"nothing was spent yet: there is no {path}", FAILED, "state.path says where it is")
    try:
        rows = spending.report(read(path, first, last), by, prices)
    except sqlite3.Error as error:
        fail(f"{path} cannot be read: {error}", FAILED, "is it the file of state.path?")
    whole = spending.total(rows)
    if form == "json":
        found = [spending.shown(row, by) for row in rows]
        print_json({"by": list(by), "rows": found, "total": spending.shown(whole, ())})
    elif form == "csv":
        _write_csv(rows, by)
    else:
        _print(rows, whole, by, always)


def _day(text: str | None, option: str) -> str | None:
    if text is not None and text.endswith("d") and text[:-1].isdigit():
        return time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400 * (int(text[:-1]) - 1)))
    if text is not None and not DAY.fullmatch(text):
        fail(f"{option} {text!r} is no day", USAGE, "write 2026-11-25, or 7d for seven days")
    return text


def _prices_of(gateway: Gateway, name: str) -> Prices:
    snapshot = gateway.snapshot
    rows = [snapshot.models[index] for index in snapshot.find(name)]
    if priced := [row.prices for row in rows if row.prices.known]:
        return priced[0]
    near = ", ".join(snapshot.nearest(name))
    return fail(f"no price is known of {name!r}", USAGE, f"did you mean {near}?" if near else None)


def _write_csv(rows: Sequence[Row], by: Sequence[str]) -> None:
    found = [spending.shown(row, by) for row in rows]
    names = list(found[0]) if found else [*by, *COLUMNS]
    out = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    out.writeheader()
    out.writerows(found)


def _print(rows: Sequence[Row], whole: Row, by: Sequence[str], always: str | None) -> None:
    if not rows:
        say("nothing was spent in these days")
        return
    columns = [(name, "left") for name in by]
    columns += [(name, "right") for name in ("USD", "answers", "attempts", "tokens in", "cached")]
    columns += [("tokens out", "right"), ("unpriced", "right")]
    if always:
        columns += [("always " + always, "right"), ("saved", "right")]
    table(columns, [*(_row(row, row.group) for row in rows), _row(whole, ["total", *by[1:]], True)])
    if whole.line.unpriced:
        say(
            f"[dim]{whole.line.unpriced} sends have a cost that nobody knows: no price is known, "
            "or the answer broke off; they are not in the sums[/dim]"
        )


def _row(row: Row, names: Sequence[str], whole: bool = False) -> list[str]:
    line = row.line
    found = [
        *([names[0], *("" for _ in names[1:])] if whole else [name or "-" for name in names]),
        _usd(line.usd),
        f"{line.answers:,}",
        f"{line.attempts:,}",
        f"{line.prompt_tokens:,}",
        f"{line.cached_tokens:,}",
        f"{line.completion_tokens:,}",
        f"{line.unpriced:,}" if line.unpriced else "",
    ]
    if row.always_usd is not None and row.saved_usd is not None:
        found += [_usd(row.always_usd), _usd(row.saved_usd)]
    return found


def _usd(value: object) -> str:
    return f"{value:,.6f}"
