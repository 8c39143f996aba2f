"""`llmr catalogue`: where the rows are from, how old they are, and what a refresh changes."""

import asyncio
import time
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import typer

from llmr import config as configuration
from llmr.cli.output import UPSTREAM, print_json, say, table
from llmr.core.changes import Changes, Repriced
from llmr.gateway import Gateway
from llmr.source import Source

SHOWN = 20  # lines of each kind of change


def show(config: str | None, as_json: bool) -> None:
    """Print where each upstream's rows are from."""
    sources = Gateway(configuration.load(config), assume_keys=True).sources.values()
    if as_json:
        print_json({source.name: _status(source) for source in sources})
        return
    _print(sources)


def refresh(config: str | None, as_json: bool, *, keep: bool, accept: bool) -> None:
    """Look at every upstream, and print what came of it.

    `keep`: put good lists into the state folder; `accept`: odd prices and lost rows too.
    """
    looked = asyncio.run(_looked(Gateway(configuration.load(config)), keep=keep, accept=accept))
    if as_json:
        print_json({s.name: {**_status(s), "changes": s.changes or Changes()} for s in looked})
    else:
        _print(looked)
        for source in looked:
            _print_changes(source)
    if any(source.error for source in looked):
        raise typer.Exit(UPSTREAM)


async def _looked(gateway: Gateway, *, keep: bool, accept: bool) -> list[Source]:
    found = [s for s in gateway.sources.values() if not s.own_rows]
    keyed = [s for s in found if not s.missing_key]
    await asyncio.gather(*(source.look(accept=accept, keep=keep) for source in keyed))
    await gateway.close()
    for source in found:
        if source.missing_key:
            source.error = "no key"
    return found


def _status(source: Source) -> dict[str, Any]:
    return {**source.status(), "file": None if source.path is None else str(source.path)}


def _print(sources: Iterable[Source]) -> None:
    columns = [("upstream", "left"), ("rows", "left"), ("captured", "left"), ("age", "right")]
    columns += [("models", "right"), ("routable", "right"), ("what is wrong", "left")]
    rows = []
    for source in sources:
        status = source.status()
        rows.append(
            [
                source.name,
                status["catalogue"],
                status["captured"],
                _age(source.age_s(time.time())),
                str(status["models"]),
                str(status["routable"]),
                status["error"] or "",
            ]
        )
    table(columns, rows)
    for source in sources:
        for text in source.status()["refused"]:
            say(f"[yellow]not believed yet:[/yellow] {text}")
        if source.status()["refused"]:
            say("[dim]llmr catalogue refresh --accept takes it as it is[/dim]")


def _print_changes(source: Source) -> None:
    found = source.changes
    if source.error or found is None or not found:
        if not source.error:
            say(f"[dim]{source.name}: nothing changed[/dim]")
        return
    lines: tuple[tuple[str, Iterable[str]], ...] = (
        ("new", found.added),
        ("gone", found.removed),
        ("price", map(_price, found.repriced)),
        ("changed", (f"{name} {what}" for name, what in found.altered)),
    )
    table(
        [("", "left"), (source.name, "left")],
        [[word, text] for word, texts in lines for text in _some(texts)],
    )


def _some(texts: Iterable[str]) -> list[str]:
    known = list(texts)
    more = [f"and {len(known) - SHOWN} more"] if len(known) > SHOWN else []
    return [*known[:SHOWN], *more]


def _price(one: Repriced) -> str:
    return f"{one.model} {one.field}: {_per_million(one.before)} to {_per_million(one.after)}"


def _per_million(usd: Decimal | None) -> str:
    return "unknown" if usd is None else f"${(usd * 1_000_000).normalize():f}/M"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for size, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"
