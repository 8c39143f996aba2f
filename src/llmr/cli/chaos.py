"""`llmr chaos`: the public faults, against one's own settings."""

import asyncio
from collections.abc import Sequence

import typer

from llmr import chaos
from llmr import config as configuration
from llmr.cli.output import FAILED, USAGE, fail, print_json, say, table


def run(config: str | None, only: Sequence[str], as_json: bool) -> None:
    """Run the scenarios and print the table; exit 1 where one fails."""
    loaded = configuration.load(config)
    known = [scenario.id for scenario in (*chaos.SCENARIOS, chaos.FLAP)]
    wanted = [name.upper() for name in only]
    if unknown := [name for name in wanted if name not in known]:
        fail(f"unknown scenario {unknown[0]}", USAGE, f"use {', '.join(sorted(known))}")
    if not wanted or "S15" in wanted:
        say("[dim]S15 takes a provider down for a minute: this takes about 90 s.[/dim]")
    results = asyncio.run(chaos.run(loaded, wanted, _progress))
    passed = sum(result.passed for result in results)
    if as_json:
        print_json({"passed": passed, "of": len(results), "scenarios": results})
    else:
        rows = [
            [
                r.id,
                r.title,
                "pass" if r.passed else "FAIL",
                r.outcome,
                r.attempts,
                f"{r.seconds:.1f} s",
            ]
            for r in results
        ]
        headings = ("scenario", "fault", "", "outcome", "primary + fallback")
        table([*((h, "left") for h in headings), ("time", "right")], rows)
        print(f"\n{passed} of {len(results)} passed")
    if passed < len(results):
        raise typer.Exit(FAILED)


def _progress(result: chaos.Result) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        word = "[green]pass[/green]" if result.passed else "[red]FAIL[/red]"
        console.print(f"{result.id} {word} {result.seconds:.1f} s")
