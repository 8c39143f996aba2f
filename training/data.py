"""What is learned from: rows of outcomes, and prompts of our own for kinds no file holds."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmr.core.quality.kinds import KINDS

FOLDER = Path(__file__).parent / "data"
FILES = ("mmlu_pro", "routellm_mmlu", "uiuc", "zeroeval_math_l5", "zeroeval_crux")
OWN = "own"
PER_TEMPLATE = 12
CHARACTERS_PER_TOKEN = 4  # as in the costs of the files
Prices = dict[str, dict[str, float]]

KIND_OF_TASK = {
    **dict.fromkeys(("math", "math-l5", "elementary_mathematics", "college_mathematics"), "math"),
    **dict.fromkeys(("high_school_mathematics", "abstract_algebra"), "math"),
    **dict.fromkeys(("high_school_statistics", "econometrics"), "math"),
    **dict.fromkeys(("mbpp", "human_eval", "crux"), "code"),
    **dict.fromkeys(("agentverse-logicgrid", "formal_logic", "logical_fallacies"), "logic"),
    "commongen": "writing",
    **dict.fromkeys(("physics", "chemistry", "engineering", "biology", "health"), "science"),
    **dict.fromkeys(("computer science", "arc_challenge", "openbook_qa"), "science"),
    **dict.fromkeys(("anatomy", "astronomy", "clinical_knowledge", "nutrition"), "science"),
    **dict.fromkeys(("conceptual_physics", "electrical_engineering", "virology"), "science"),
    **dict.fromkeys(("medical_genetics", "human_aging", "professional_medicine"), "science"),
    **dict.fromkeys(("computer_security", "machine_learning"), "science"),
}
SCIENCE = re.compile(r"(biology|chemistry|physics|medicine|computer_science)$")


@dataclass(frozen=True)
class Row:
    """One prompt. `scores`: 0..1 by model; `level`, `gain`, `tokens` where set by hand or known."""

    group: str
    task: str
    kind: str
    prompt: str
    scores: dict[str, float] = field(default_factory=dict)
    level: float = 0.0
    gain: float = 0.0
    tokens: float = 0.0

    @property
    def own(self) -> bool:
        """Whether it was written here, without outcomes."""
        return not self.scores


def kind_of(task: str) -> str:
    """The kind of a task of the files; those that test what one knows are `knowledge`."""
    if task in KIND_OF_TASK:
        return KIND_OF_TASK[task]
    return "science" if SCIENCE.search(task) else "knowledge"


def outcomes(folder: Path = FOLDER) -> list[Row]:
    """Every row of the files of outcomes that the folder holds, in a fixed order."""
    prices = json.loads((FOLDER / "prices.json").read_text())
    rows: list[Row] = []
    for name in FILES:
        path = folder / f"{name}.jsonl.gz"
        if path.exists():
            rows += _read(path, name, prices)
    return rows


def _read(path: Path, group: str, prices: Prices) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            raw = json.loads(line)
            yield Row(
                group,
                raw["sub"],
                kind_of(raw["sub"]),
                raw["prompt"],
                {model: float(score) for model, score in raw["scores"].items()},
                tokens=_answer_tokens(raw, prices),
            )


def _answer_tokens(raw: dict[str, Any], prices: Prices) -> float:
    """Mean length of the answers in tokens, got back from what they cost; 0 where unknown."""
    asked = len(raw["prompt"]) / CHARACTERS_PER_TOKEN
    found = [
        (1e6 * cost - asked * prices[model]["input_usd_per_mtok"])
        / prices[model]["output_usd_per_mtok"]
        for model, cost in raw.get("cost", {}).items()
        if model in prices
    ]
    return max(1.0, sum(found) / len(found)) if found else 0.0


def own_prompts(seed: int = 0) -> list[Row]:
    """The prompts of our own, their slots filled at random with this seed."""
    draw = random.Random(seed)
    slots = _slots()
    rows: list[Row] = []
    seen: set[str] = set()
    for kind, numbers, template in _templates():
        for _ in range(PER_TEMPLATE):
            prompt = re.sub(r"\{([\w-]+)\}", lambda m: draw.choice(slots[m[1]]), template)
            if prompt not in seen:
                seen.add(prompt)
                level, gain, tokens = numbers
                rows.append(Row(OWN, kind, kind, prompt, {}, level, gain, tokens))
    return rows


def _slots() -> dict[str, list[str]]:
    found = {}
    for line in (FOLDER / "slots.txt").read_text(encoding="utf-8").splitlines():
        name, _, entries = line.partition(": ")
        found[name] = [entry.strip() for entry in entries.split(", ")]
    return found


def _templates() -> Iterator[tuple[str, tuple[float, float, float], str]]:
    kind, numbers = "", (0.0, 0.0, 0.0)
    for line in (FOLDER / "prompts.txt").read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"\[(\w+) (\S+) (\S+) (\S+)\]", line):
            kind = header[1]
            assert kind in KINDS, kind
            numbers = (float(header[2]), float(header[3]), float(header[4]))
        elif line and not line.startswith("#"):
            yield kind, numbers, line
