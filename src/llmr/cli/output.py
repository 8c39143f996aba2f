"""How the command line speaks: tables for people, JSON for programs, hints for what to do next."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec
import typer

FAILED, USAGE, CONFIG, UPSTREAM = 1, 2, 3, 4


def print_json(value: Any) -> None:
    """Data for a program: one JSON document on stdout."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Talk for a person, on stderr, in colour only on a terminal."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text)


def fail(text: str, code: int = FAILED, hint: str | None = None) -> NoReturn:
    """An error, what to do about it, and the exit code that goes with it."""
    from rich.markup import escape

    say(f"[red]error:[/red] {escape(text)}")
    if hint:
        say(f"[dim]hint:[/dim] {escape(hint)}")
    raise typer.Exit(code)


def table(
    columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], title: str = ""
) -> None:
    """A table on stdout. Columns are (heading, left or right)."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for heading, side in columns:
        out.add_column(heading, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        out.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(out)


def ms(value: float | None) -> str:
    """Milliseconds for reading."""
    if value is None:
        return "?"
    return f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:,.0f} ms"


def usd(value: float | None) -> str:
    """Dollars for reading; an unknown price says so."""
    if value is None:
        return "unknown"
    return "free" if value == 0 else f"${value:.6f}".rstrip("0").rstrip(".")
