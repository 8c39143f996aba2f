"""`llmr quality evaluate`: how good the predictions of quality are."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from llmr import bundle
from llmr.cli.output import fail, print_json, say, table
from llmr.evaluation import (
    LENGTHS,
    READS,
    Measure,
    Tables,
    evaluate,
    held_out,
    made_up,
    read,
    reading_us,
)
from llmr.quality import predict, task_of_prompt

LINE = 'each line of it: {"prompt": "…", "scores": {"model": 0..1}}'


def run(data: Path | None, as_json: bool) -> None:
    """Measure on the sets in a folder; without one, show what was measured on held-out ones."""
    tables = held_out() if data is None else _measured(data)
    reads = _reads()
    if as_json:
        print_json({"sets": msgspec.to_builtins(tables), "reading_us": msgspec.to_builtins(reads)})
        return
    columns = [("measure", "left"), ("value", "right"), ("95 %", "right"), ("beside", "left")]
    for name, parts in tables.items():
        for left_out, found in parts.items():
            heading = f"{name}: {left_out} held out of training" if data is None else name
            table(columns, [_row(one) for one in found], heading)
            print()
    for length, (median, late) in reads.items():
        took = f"p50 {median:.0f} µs, p99 {late:.0f} µs"
        say(f"reading {READS} different prompts of {length:,} characters: {took}")


def _reads() -> dict[int, tuple[float, float]]:
    """What reading takes here, by length in characters."""
    known = [word.decode() for word in bundle.quality().vocabulary.words if len(word) > 1]
    random.Random(0).shuffle(known)

    def read_one(text: str) -> object:
        return bundle.heads().read(task_of_prompt(text))

    return {length: reading_us(read_one, made_up(known, length, READS)) for length in LENGTHS}


def _measured(folder: Path) -> Tables:
    files = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not files:
        fail(f"no outcomes in {folder}: it has no *.jsonl and no *.jsonl.gz", 2, LINE)
    found: Tables = {}
    for path in files:
        try:
            rows = read(path)
        except (ValueError, OSError) as error:
            fail(f"{path.name} cannot be read: {error}", 2, LINE)
        try:
            found[path.name.partition(".")[0]] = {"": evaluate(rows, _predict)}
        except ValueError as error:
            fail(f"{path.name} cannot be measured: {error}", 2, LINE)
    return found


def _predict(
    prompts: Sequence[str], models: Sequence[str], priors: Mapping[str, float]
) -> list[dict[str, float]]:
    return predict(prompts, models=models, priors=priors)


def _row(one: Measure) -> list[str]:
    spread = "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
    beside = ", ".join(f"{name} {value:.3f}" for name, value in one.beside.items())
    return [one.name, f"{one.value:.3f}", spread, beside]
