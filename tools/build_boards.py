"""Build the public boards that ship with the package: facts of models, joined to catalogue ids.

    python tools/build_boards.py SOURCE_DIR

SOURCE_DIR holds the packed boards (`catalogue/`) and the outcomes of public evaluations. A score is
kept only where its model is one row of the bundled catalogue beyond doubt: the same name but for
separators, a date or a word such as `preview`, by the same author, and never a name that means
another model every month.
"""

import csv
import gzip
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "src" / "llmr" / "data"

AUTHORS = {
    "alibaba": "qwen",
    "mistral": "mistralai",
    "xai": "x-ai",
    "zhipuai": "z-ai",
    "meta": "meta-llama",
}
# Names that moved to other models with time, or differ from the catalogue's in more than spelling.
MOVING = re.compile(
    r"latest|^deepseek/deepseek-(?:chat|reasoner|r1)$|^alibaba/qwen-(?:plus|max|turbo|flash)$"
)
KNOWN = {
    "DeepSeek V3 (0324)": "deepseek/deepseek-chat-v3-0324",
    "DeepSeek R1 (0528)": "deepseek/deepseek-r1-0528",
    "DeepSeek-V3.2-Exp (Reasoner)": "deepseek/deepseek-v3.2-exp",
    "DeepSeek-V3.2-Exp (Chat)": "deepseek/deepseek-v3.2-exp",
    "Mistral-Large-2": "mistralai/mistral-large-2407",
    "mistral-large-3": "mistralai/mistral-large-2512",
    "devstral-2": "mistralai/devstral-2512",
    "grok-4.20-beta-0309-reasoning": "x-ai/grok-4.20",
    "gpt-5.2-chat-latest-20260210": "openai/gpt-5.2-chat",
}
NOT_THE_SAME = re.compile(r"\+|multi-agent|search|grounding|terminal|openhands")
EFFORT = re.compile(
    r"[- ]?\(?(?P<none>no think(?:ing)?|non-thinking|non-reasoning|instant)"
    r"|[- ]\(?(?P<minimal>thinking-minimal)"
    r"|[- ]\(?(?P<low>low)\b|[- ]\(?(?P<medium>medium)\b|[- ]\(?(?P<xhigh>xhigh|max)\b"
    r"|[- ]\(?(?P<high>high|thinking-\d+k|\d+k think(?:ing)?(?: tokens)?|thinking|reasoning"
    r"|reasoner)\b"
)


class Source(NamedTuple):
    """Where a board's figures are from, under which licence, and of when."""

    source: str
    licence: str
    captured: str


MODELS_DEV = Source("anomalyco/models.dev, each figure with its own source", "MIT", "2026-07-02")
AIDER = Source("Aider-AI/aider, Polyglot leaderboard", "Apache-2.0", "2025-10-03")
ARENA = Source("oolong-tea-2026/arena-ai-leaderboards, copy of arena.ai", "MIT", "2026-04-19")
ZEROEVAL = Source("WildEval/ZeroEval, outcomes graded again", "Apache-2.0", "2025-01")

# Board of models.dev -> (name here, what it measures, metrics that belong together).
SHEETS = {
    "SWE-Bench Pro": ("swe_bench_pro", "repository", ("resolve rate", "percent resolved")),
    "SWE-Bench Verified": ("swe_bench_verified", "repository", ("resolved", "percent resolved")),
    "SciCode": ("scicode", "code", ("percent correct",)),
    "Artificial Analysis Coding Index": ("aa_coding_2026_07", "code", ("index",)),
    "Terminal-Bench Hard": ("terminal_bench_hard", "agent", ("success rate",)),
    "Artificial Analysis Coding Agent Index": (
        "aa_coding_agent",
        "repository",
        ("average pass@1",),
    ),
    "SWE-Atlas Codebase QnA": ("swe_atlas_questions", "repository", ("score",)),
    "SWE-Atlas Test Writing": ("swe_atlas_tests", "repository", ("score",)),
    "SWE-Atlas Refactoring": ("swe_atlas_refactoring", "repository", ("score",)),
}
Scores = dict[str, dict[str, list[float]]]


def effort_of(name: str) -> str:
    """The reasoning effort a board's name speaks of, or an empty string."""
    found = EFFORT.search(name)
    return (found.lastgroup or "") if found else ""


def spelled(name: str) -> str:
    """A model name with one spelling of its separators."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def looser(name: str) -> str:
    """A spelled name without a date and without words that change no model."""
    name = re.sub(r"-20\d{6}$|-20\d\d-\d\d-\d\d$", "", name)
    return re.sub(r"-(?:instruct|preview|it|exp|inst)$", "", name)


class Join:
    """From a board's name to a catalogue id, or None where it is not certain."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.exact: dict[str, set[str]] = defaultdict(set)
        self.loose: dict[str, set[str]] = defaultdict(set)
        for row in ids:
            tail = spelled(row.split("/", 1)[1])
            self.exact[tail].add(row)
            self.loose[looser(tail)].add(row)

    def __call__(self, name: str) -> str | None:
        """The catalogue id that a name stands for."""
        if name in KNOWN:
            return KNOWN[name]
        if MOVING.search(name) or NOT_THE_SAME.search(name.lower()):
            return None
        author, _, tail = name.rpartition("/")
        plain = EFFORT.sub("", re.sub(r"\((?!no|\d+k).*?harness\)", "", tail).replace(")", ""))
        for form in (tail, plain):
            full = spelled(form)
            for table, key in ((self.exact, full), (self.loose, looser(full))):
                found = {i for i in table.get(key, ()) if _same_author(author, i)}
                if len(found) == 1:
                    return found.pop()
        return None


def _same_author(author: str, row: str) -> bool:
    own = row.split("/", 1)[0]
    return not author or own in (author, AUTHORS.get(author)) or (author, own) == ("meta", "meta")


def put(scores: Scores, join: Join, name: str, value: float, effort: str | None = None) -> None:
    """Add a score under its catalogue id and effort, where the join is certain."""
    row = join(name)
    if row is None:
        return
    scores[row][effort_of(name) if effort is None else effort].append(value)


def models_dev(folder: Path, join: Join) -> dict[str, Scores]:
    """The boards of models.dev by their names here; several harnesses count as their mean."""
    out: dict[str, Scores] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    facts = json.loads((folder / "models_dev_facts.json").read_text())
    for name, model in facts.items():
        for figure in model.get("benchmarks", ()):
            sheet = SHEETS.get(figure["name"])
            if sheet and figure.get("metric") in sheet[2]:
                put(out[sheet[0]], join, name, figure["score"], figure.get("variant", ""))
    return out


def aider(folder: Path, join: Join) -> Scores:
    """Pass rates of the Polyglot board, second try."""
    out: Scores = defaultdict(lambda: defaultdict(list))
    with (folder / "aider_polyglot.csv").open() as file:
        for row in csv.DictReader(file):
            put(out, join, row["model"], float(row["pass_rate_2"]), row["reasoning_effort"] or None)
    return out


def arena(folder: Path, join: Join, name: str) -> Scores:
    """Ratings of one arena."""
    out: Scores = defaultdict(lambda: defaultdict(list))
    board = json.loads((folder / f"arena_{name}_2026-04-19.json").read_text())
    for row in board["models"]:
        put(out, join, row["model"], row["score"])
    return out


def outcomes(path: Path, join: Join) -> Scores:
    """Percent of prompts answered well, by model."""
    seen: dict[str, list[float]] = defaultdict(list)
    with gzip.open(path, "rt") as file:
        for line in file:
            for model, score in json.loads(line)["scores"].items():
                seen[model].append(score)
    out: Scores = defaultdict(lambda: defaultdict(list))
    for model, values in seen.items():
        put(out, join, model, 100 * mean(values))
    return out


def board(name: str, measures: str, scale: str, of: Source, scores: Scores) -> dict[str, Any]:
    """One board as it ships: [id, score, effort] rows, best first."""
    rows = [
        (-round(mean(values), 2), row, effort)
        for row, efforts in scores.items()
        for effort, values in efforts.items()
    ]
    shown = [(row, -score, effort) for score, row, effort in sorted(rows)]
    return {"name": name, "measures": measures, "scale": scale, **of._asdict(), "scores": shown}


def main() -> None:
    """Write `boards.json`."""
    folder = Path(sys.argv[1])
    bundled = json.loads((DATA / "catalogue.json").read_text())["data"]
    join = Join({r["id"] for r in bundled if ":" not in r["id"] and not r["id"].startswith("~")})
    sheets = models_dev(folder / "catalogue", join)
    boards = [
        board("arena_text", "chat", "elo", ARENA, arena(folder / "catalogue", join, "text")),
        board("arena_code", "frontend", "elo", ARENA, arena(folder / "catalogue", join, "code")),
        board("aider_polyglot", "code", "percent", AIDER, aider(folder / "catalogue", join)),
        *(
            board(name, measures, "percent", MODELS_DEV, sheets[name])
            for name, measures, _ in SHEETS.values()
        ),
        board(
            "math_l5",
            "math",
            "percent",
            ZEROEVAL,
            outcomes(folder / "zeroeval_math_l5.jsonl.gz", join),
        ),
        board(
            "crux", "logic", "percent", ZEROEVAL, outcomes(folder / "zeroeval_crux.jsonl.gz", join)
        ),
    ]
    compact = {"separators": (",", ":"), "ensure_ascii": False}
    lines = ",\n".join(json.dumps(b, **compact) for b in boards)  # type: ignore[arg-type]
    path = DATA / "boards.json"
    newest = max(b["captured"] for b in boards)
    head = f'"captured": "{newest}",\n"source": "each board names its own",'
    path.write_text("{\n" + head + '\n"boards": [\n' + lines + "\n]\n}\n")
    for b in boards:
        print(f"{b['name']}: {len({r[0] for r in b['scores']})} models")


if __name__ == "__main__":
    main()
