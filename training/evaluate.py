"""`python -m training evaluate`: what predictions are worth on prompts not trained on."""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from llmr.core.quality.artefact import Artefact, Form
from llmr.core.quality.known import Known
from llmr.evaluation import ROWS, WHOLE, Predictor, Tables, evaluate, read
from llmr.quality import task_of_prompt
from training.data import FILES, FOLDER, Row, outcomes, own_prompts
from training.fit import fit

FOLDS = 5
TARGET = Path(__file__).parent.parent / "src" / "llmr" / "data" / "quality-held-out.json"


def predictor(artefact: Artefact) -> Predictor:
    """The plug over another artefact than that which ships."""
    known = Known(artefact)

    def predict(
        prompts: Sequence[str], models: Sequence[str], priors: Mapping[str, float]
    ) -> list[dict[str, float]]:
        return known.predict([task_of_prompt(prompt) for prompt in prompts], models, priors)

    return predict


def question(prompt: str) -> str:
    """What is the same in one question wherever it stands: without options, case, punctuation."""
    return re.sub(r"[^a-z0-9]", "", prompt.partition("\nA. ")[0].lower())


def folds(rows: Sequence[Row]) -> list[int]:
    """A fifth for each row, the same for equal questions, in whatever files they stand."""
    draw, known = random.Random(1), dict[str, int]()
    return [known.setdefault(question(row.prompt), draw.randrange(FOLDS)) for row in rows]


def table(form: Form) -> Tables:
    """Every file: each fifth of all rows left out in turn, and the whole file left out.

    Left out is every row with such a question: MMLU-Pro has many of MMLU's.
    """
    rows, own = outcomes(), own_prompts()
    fold = folds(rows)
    parts = [
        predictor(fit([r for r, f in zip(rows, fold, strict=True) if f != number] + own, form))
        for number in range(FOLDS)
    ]
    found: Tables = {}
    for name in FILES:
        whole = read(FOLDER / f"{name}.jsonl.gz")
        inside = [f for r, f in zip(rows, fold, strict=True) if r.group == name]
        inner = {question(row.prompt) for row in rows if row.group == name}
        others = fit([row for row in rows if question(row.prompt) not in inner] + own, form)
        found[name] = {
            ROWS: evaluate(whole, _by_fold(parts, inside), reworded=False),
            WHOLE: evaluate(whole, predictor(others)),
        }
        print(name, "done", flush=True)
    return found


def _by_fold(parts: Sequence[Predictor], fold: Sequence[int]) -> Predictor:
    """Each prompt of a file by the artefact that has not seen it, in its place."""

    def predict(
        prompts: Sequence[str], models: Sequence[str], priors: Mapping[str, float]
    ) -> list[dict[str, float]]:
        found: list[dict[str, float]] = [{} for _ in prompts]
        for number, part in enumerate(parts):
            members = [n for n, f in enumerate(fold) if f == number]
            rows = part([prompts[n] for n in members], models, priors)
            for n, row in zip(members, rows, strict=True):
                found[n] = row
        return found

    return predict


def run(form: Form) -> None:
    """Work it out, and keep it beside the artefact."""
    TARGET.write_bytes(msgspec.json.format(msgspec.json.encode(table(form)), indent=1))
