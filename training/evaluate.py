"""`python -m training evaluate`: what predictions are worth on prompts not trained on."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from llmr.core.quality.artefact import Artefact, Form
from llmr.core.quality.known import Known
from llmr.evaluation import Predictor, Tables, evaluate, read
from llmr.quality import task_of_prompt
from training.data import FILES, FOLDER, outcomes, own_prompts
from training.fit import fit

HELD_OUT = 0.2
TARGET = Path(__file__).parent.parent / "src" / "llmr" / "data" / "quality-held-out.json"


def predictor(artefact: Artefact) -> Predictor:
    """The plug over another artefact than that which ships."""
    known = Known(artefact)

    def predict(
        prompts: Sequence[str], models: Sequence[str], priors: Mapping[str, float]
    ) -> list[dict[str, float]]:
        return known.predict([task_of_prompt(prompt) for prompt in prompts], models, priors)

    return predict


def table(form: Form) -> Tables:
    """Every file, once with a fifth of all rows left out, once with the whole file left out."""
    rows = outcomes()
    draw = random.Random(1)
    left_out = {number for number in range(len(rows)) if draw.random() < HELD_OUT}
    most = fit([r for n, r in enumerate(rows) if n not in left_out] + own_prompts(), form)
    found: Tables = {}
    for name in FILES:
        prompts = {rows[n].prompt for n in left_out if rows[n].group == name}
        whole = read(FOLDER / f"{name}.jsonl.gz")
        unseen = [row for row in whole if row.prompt in prompts]
        others = fit([row for row in rows if row.group != name] + own_prompts(), form)
        found[name] = {
            "a fifth of the rows": evaluate(unseen, predictor(most)),
            "the benchmark": evaluate(whole, predictor(others)),
        }
        print(name, "done", flush=True)
    return found


def run(form: Form) -> None:
    """Work it out, and keep it beside the artefact."""
    TARGET.write_bytes(msgspec.json.format(msgspec.json.encode(table(form)), indent=1))
