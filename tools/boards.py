"""How well the catalogue's abilities agree with published boards, as tables in Markdown.

    python tools/boards.py

Two tables: agreement in rank with each board, with it, without it, and without anything that its
publisher measures; and models placed as if they were new, from facts that say nothing of quality.
"""

import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from llmr import bundle
from llmr.core import openrouter
from llmr.core.quality.ability import Ability
from llmr.core.quality.boards import Board, Source, sources
from llmr.core.quality.facts import Facts
from llmr.core.quality.kinds import KINDS
from llmr.core.quality.placing import place

# What a board measures -> (category of the table, the kinds its models are compared by).
CATEGORIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "intelligence": ("overall", ()),
    "coding": ("code", ("code",)),
    "code": ("code", ("code",)),
    "frontend": ("code", ("code",)),
    "agentic": ("agent", ("agent",)),
    "agent": ("agent", ("agent",)),
    "apps": ("agent", ("agent",)),
    "repository": ("code as an agent", ("code", "agent")),
    "chat": ("chat", ("chat",)),
    "math": ("math", ("math",)),
    "logic": ("logic", ("logic",)),
}
# Boards that share their runs or their parts: leaving one out leaves its twin in.
PUBLISHERS = (
    re.compile("artificial_analysis_|aa_|scicode|terminal_bench_hard"),
    re.compile("design_arena_"),
    re.compile("arena_"),
    re.compile("swe_bench_pro|swe_atlas_"),
)
NEWEST = 55
UNDATED_S = 4_000_000_000


class Agreement(NamedTuple):
    """Rank correlations with one board: all known, the board left out, its publisher left out."""

    name: str
    category: str
    models: int
    known: float
    left_out: float
    unpublished: float


def facts() -> list[Facts]:
    """The facts of every routable row that ships."""
    path = Path(bundle.__file__).parent / "data" / "catalogue.json"
    rows: list[dict[str, Any]] = msgspec.json.decode(path.read_bytes())["data"]
    barred = {m.id for m in bundle.catalogue().models if m.barred is not None}
    return [openrouter.facts_of(row) for row in rows if row["id"] not in barred]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The rank correlation of two equally long lists; equal values share a rank."""
    a, b = _ranks(one), _ranks(other)
    middle = fmean(a)
    top = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    spread = sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b)
    return top / math.sqrt(spread) if spread else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    below = sorted(values)
    first = {value: at for at, value in reversed(list(enumerate(below)))}
    last = {value: at for at, value in enumerate(below)}
    return [(first[value] + last[value]) / 2 for value in values]


def interval(rho: float, count: int) -> tuple[float, float]:
    """About 95 % for a rank correlation (Fisher's z, variance 1.06 / (n - 3))."""
    wide = 1.96 * math.sqrt(1.06 / max(count - 3, 0.5))
    z = math.atanh(min(rho, 0.9999))
    return math.tanh(z - wide), math.tanh(z + wide)


def measured(ability: Ability, measures: str) -> float:
    """What a board would measure of a model, as a logit."""
    _, kinds = CATEGORIES[measures]
    return ability.overall + sum(ability.by_kind[KINDS.index(k)] for k in kinds) / max(
        len(kinds), 1
    )


def without(rows: Sequence[Facts], boards: Sequence[Board], names: set[str]) -> dict[str, Ability]:
    """Everything placed as if some sources did not exist."""
    left = [
        replace(
            row,
            indices={
                k: v for k, v in row.indices.items() if f"artificial_analysis_{k}" not in names
            },
            arenas={k: v for k, v in row.arenas.items() if f"design_arena_{k[0]}" not in names},
        )
        for row in rows
    ]
    return place(left, [board for board in boards if board.name not in names])


def published_with(name: str, names: Iterable[str]) -> set[str]:
    """The boards of one publisher."""
    ours = [publisher for publisher in PUBLISHERS if publisher.match(name)]
    return {name, *(other for other in names if any(p.match(other) for p in ours))}


def agreements(rows: Sequence[Facts], boards: Sequence[Board]) -> Iterator[Agreement]:
    """The agreement with every source."""
    known = place(rows, boards)
    found = sources(rows, boards)
    for source in found:
        names = [name for name in source.scores if name in known]
        left_out = without(rows, boards, {source.name})
        ours = published_with(source.name, [other.name for other in found])
        unpublished = without(rows, boards, ours)
        ranks = [_rank(placed, source, names) for placed in (known, left_out, unpublished)]
        yield Agreement(source.name, CATEGORIES[source.measures][0], len(names), *ranks)


def _rank(placed: dict[str, Ability], source: Source, names: Sequence[str]) -> float:
    own = [measured(placed[name], source.measures) for name in names]
    return spearman(own, [source.scores[name] for name in names])


def by_category(found: Iterable[Agreement]) -> list[Agreement]:
    """The mean of each category's boards, weighted by their models."""
    groups: dict[str, list[Agreement]] = {}
    for one in found:
        groups.setdefault(one.category, []).append(one)
    out = []
    for category, group in groups.items():
        models = sum(one.models for one in group)
        known, left_out, unpublished = (
            sum(rank * one.models for rank, one in zip(ranks, group, strict=True)) / models
            for ranks in zip(*[one[3:] for one in group], strict=True)
        )
        out.append(Agreement("all of them", category, models, known, left_out, unpublished))
    return out


def hidden(rows: Sequence[Facts], boards: Sequence[Board], names: set[str]) -> dict[str, Ability]:
    """Everything placed as if no board told of some models."""
    bare = [replace(row, indices={}, arenas={}) if row.base in names else row for row in rows]
    left = [
        replace(board, scores=tuple(row for row in board.scores if row[0] not in names))
        for board in boards
    ]
    return place(bare, left)


def newcomers(rows: Sequence[Facts], boards: Sequence[Board]) -> list[str]:
    """Rows of the table of models placed as if they were new."""
    known = place(rows, boards)
    made = {row.base: row.created or UNDATED_S for row in rows}
    judged = sorted(r.id for r in rows if "intelligence" in r.indices and r.id == r.base)
    alone = {name: hidden(rows, boards, {name})[name] for name in judged}
    newest = sorted(judged, key=lambda name: (made[name], name))[-NEWEST:]
    then = {
        name: hidden(rows, boards, {n for n, at in made.items() if at >= made[name]})[name]
        for name in newest
    }
    return [
        _newcomer("its own boards hidden", alone, known),
        _newcomer("its own and all younger models' boards hidden", then, known),
    ]


def _newcomer(what: str, guessed: dict[str, Ability], known: dict[str, Ability]) -> str:
    names = list(guessed)
    rho = spearman([guessed[n].overall for n in names], [known[n].overall for n in names])
    miss = [guessed[n].probability - known[n].probability for n in names]
    inside = fmean(
        [abs(m) <= 1.645 * guessed[n].probability_sd for m, n in zip(miss, names, strict=True)]
    )
    error = math.sqrt(fmean([m * m for m in miss]))
    low, high = interval(rho, len(names))
    wide = f"[{low:.2f}, {high:.2f}]"
    return f"| {what} | {len(names)} | {rho:.3f} {wide} | {error:.3f} | {inside:.2f} |"


def table(found: Sequence[Agreement]) -> list[str]:
    """The table of agreements, categories first."""
    lines = [
        "| category | board | models | all facts | the board left out | its publisher left out |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for one in [*by_category(found), *found]:
        low, high = interval(one.left_out, one.models)
        wide = f" [{low:.2f}, {high:.2f}]" if one.name != "all of them" else ""
        lines.append(
            f"| {one.category} | {one.name} | {one.models} | {one.known:.3f} "
            f"| {one.left_out:.3f}{wide} | {one.unpublished:.3f} |"
        )
    return lines


def main() -> None:
    """Print both tables."""
    rows, boards = facts(), bundle.boards()
    out = [
        *table(list(agreements(rows, boards))),
        "",
        "| models placed | models | rank correlation | error of the probability | within 90 % |",
        "|---|---:|---:|---:|---:|",
        *newcomers(rows, boards),
    ]
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
