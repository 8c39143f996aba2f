"""What a prompt asks for, and what that makes of the abilities of a model."""

import importlib.util
import json
import math
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from typer.testing import CliRunner

from llmr import bundle, evaluation, measures
from llmr import config as configuration
from llmr.cli.app import app
from llmr.core.body import Body
from llmr.core.explain import explain
from llmr.core.figures import figures, losses
from llmr.core.look import Look
from llmr.core.quality.heads import Reading
from llmr.core.quality.kinds import KINDS
from llmr.core.quality.predict import curve_of
from llmr.core.quality.task import stated
from llmr.core.request import task_of
from llmr.gateway import Gateway
from llmr.quality import predict, task_of_prompt
from llmr.sandbox.process import SandboxProcess
from tests.builders import NOW, POLICY, raw, request, telemetry
from tests.harness import Server, upstream
from tests.test_board import curve, rows

HARD = (
    "Prove that every continuous bijection from a compact space to a Hausdorff space is a "
    "homeomorphism, then compute $\\int_0^\\infty \\frac{\\sin^3 x}{x^2} dx$ rigorously."
)
FORM = bundle.quality().form


def reading(text: str) -> Reading:
    return bundle.heads().read(task_of_prompt(text))


def kind(text: str) -> str:
    kinds = reading(text).kinds
    return KINDS[kinds.index(max(kinds))]


@given(st.text(max_size=3000))
def test_every_text_has_a_reading(text: str) -> None:
    found = reading(text)
    assert math.isclose(sum(found.kinds), 1.0)
    assert 0.0 <= found.coverage <= 1.0
    assert all(map(math.isfinite, (found.ease, found.gain, found.log_tokens)))
    assert found == reading(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, how are you today?", "chat"),
        ("Write a Python function that reverses a linked list.", "code"),
        ("Translate this sentence into Spanish: the weather is fine.", "translation"),
        ("What is the derivative of x^3 + 2x at x = 4?", "math"),
    ],
)
def test_plain_prompts_are_of_their_kind(text: str, expected: str) -> None:
    assert kind(text) == expected


@pytest.mark.parametrize("text", ["Write a function that sorts a list of numbers.", HARD])
def test_case_and_spacing_change_nothing(text: str) -> None:
    assert reading(text.upper()) == reading(text.replace(" ", "  \n ")) == reading(text)


@pytest.mark.parametrize(
    "said",
    [
        "Could you help me? {} Thank you!",
        "Hi there, {} Thanks a lot.",
        "Please {}",
        "Can you please help me with the following: {} Many thanks in advance!",
    ],
)
def test_courtesy_changes_nothing(said: str) -> None:
    text = "work out the integral of x squared from 0 to 3, step by step"
    assert stated(said.format(text)) == text


@pytest.mark.parametrize("text", ["hi", "Hello there!", "thanks", "please", "Thank you so much!"])
def test_where_courtesy_is_all_it_is_the_task(text: str) -> None:
    assert stated(text) == text


def test_data_does_not_pass_for_the_task() -> None:
    code = "```python\n" + "def f(x):\n    return x + 1\n" * 30 + "```"
    asked = "Translate the comments of this text into German, please: "
    assert kind(asked + code) == kind(asked)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("My code:\n```python\n{}```\nTranslate its comments into French.", "into French"),
        ("{}\n```\nx\n```\nNow prove that the sum is even.", "prove that the sum"),
        ("Look: ```python\nprint(1)\n and then tell me what it does.", "tell me what it does"),
        ("Fix <div> aaaaaaaa aaaaaaaa aaaaaaaa aaaaaaaa aaaaaaaa. Then add 1.", "Then add 1"),
    ],
)
def test_a_block_does_not_swallow_what_is_asked_behind_it(text: str, asked: str) -> None:
    assert asked in stated(text.format("x = compute(1)\n" * 300))


def test_a_short_follow_up_inherits_the_task_before() -> None:
    turns = [
        {"role": "user", "content": "Write a Python function that merges two sorted lists."},
        {"role": "assistant", "content": "def merge(a, b): ..."},
        {"role": "user", "content": "Now make it shorter."},
    ]
    after = bundle.heads().read(task_of(Body(raw(messages=turns))))
    alone = bundle.heads().read(task_of(Body(raw(messages=turns[-1:]))))
    code = KINDS.index("code")
    assert after.kinds[code] > alone.kinds[code]
    assert max(after.kinds) == after.kinds[code]


def test_the_task_of_a_body_is_that_of_its_messages() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "text", "text": "Be brief."}]
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "You are a poet."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": parts},
    ]
    found, told = task_of(Body(raw(messages=turns))), task_of_prompt(turns)
    assert (found.text, found.before, found.system) == (told.text, told.before, told.system)
    assert found.text == "What is this?\nBe brief."


@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(-3, 3), st.floats(-9, 9), st.floats(0, 1))
def test_more_ability_is_never_worth_less(
    one: float, other: float, ease: float, gain: float, coverage: float
) -> None:
    found = curve_of(Reading((0.1,) * 10, ease, gain, coverage, 5.0), FORM)
    least, most = sorted((one, other))
    assert found.quality((least, (0.0,) * 10)) <= found.quality((most, (0.0,) * 10))


def test_what_training_never_saw_leaves_the_prior() -> None:
    read = Reading((0.1,) * 10, 3.0, 5.0, 0.0, 5.0)
    found = curve_of(read, FORM)
    assert found.ease == 0.0
    assert all(share == 0.0 for _, share in found.kinds)
    for quality in (0.2, 0.5, 0.8):
        skill = math.log(quality / (1.0 - quality)), (1.0,) * 10
        assert abs(found.quality(skill) - quality) < 1e-9


@given(st.integers(0, 2**32))
def test_the_loop_over_rows_is_the_curve_written_out(seed: int) -> None:
    rng = random.Random(seed)
    of = rows(rng, 20)
    asked = replace(request(), curve=curve(rng), weights=(0.0, 0.0, 1.0))
    look = Look(asked, of, telemetry(of), POLICY, NOW)
    for loss, index in losses(look, figures(look)):
        assert asked.curve is not None
        assert math.isclose(-loss, asked.curve.quality(of.models[index].skill))
        assert math.isclose(-loss, look.terms(index).quality)


def test_the_artefact_is_small_and_of_this_version() -> None:
    data = files("llmr") / "data" / "quality.msgpack"
    assert len(data.read_bytes()) < 2_000_000
    assert tuple(bundle.quality().kinds) == KINDS


def decided(text: str, priority: str = "balanced", quality: str = "prompt") -> Any:
    tree = {"routing": {"quality": quality}}
    gateway = Gateway(configuration.build(tree, {}), assume_keys=True)
    message = {"role": "user", "content": text}
    body = Body(json.dumps({"model": "auto", "priority": priority, "messages": [message]}).encode())
    return gateway.decide(gateway.request(body, {}, "route"))


def test_a_greeting_and_a_proof_go_to_different_models_and_neither_is_dominated() -> None:
    picks = [decided("hi"), decided(HARD)]
    assert picks[0].model.id != picks[1].model.id
    assert picks[0].model.quality.value < picks[1].model.quality.value
    for pick in picks:
        account = explain(pick)
        first, *others = account["candidates"]
        keys = ("latency_score", "cost_score", "quality_score")
        assert not any(all(c[k] > first[k] for k in keys) for c in others)


def test_static_reads_nothing() -> None:
    pick = decided(HARD, quality="static")
    assert pick.request.curve is None
    assert explain(pick)["prompt"] is None
    assert "reads as" not in explain(pick)["reason"]


def test_the_account_says_what_was_read() -> None:
    account = explain(decided(HARD))
    told = account["prompt"]
    assert told["kind"] == "math"
    assert 0.0 < told["difficulty"] < 1.0
    assert "The prompt reads as math" in account["reason"]
    assert all(0.0 < c["quality_sd"] <= 0.5 for c in account["candidates"])


def test_telling_words_are_told_once_and_never_kept(sandbox_process: SandboxProcess) -> None:
    with Server(upstream(sandbox_process.base_url), sandbox=True) as server:
        fields = {"messages": [{"role": "user", "content": HARD}], "model": "auto"}
        told = server.request("POST", "/v1/decisions", fields).json
        assert "homeomorphism" not in json.dumps(told["reason"])
        assert set(told["telling_words"]) & set(HARD.lower().split())
        kept = server.request("GET", f"/v1/decisions/{told['id']}").body.decode()
        assert "telling_words" not in kept
        assert not any(word in kept for word in ("homeomorphism", "hausdorff", "bijection"))


# --- the plug ---


def test_the_plug_answers_for_every_prompt_and_every_name() -> None:
    prompts: list[Any] = ["Hello.", [{"role": "user", "content": HARD}]]
    models = ["nobody/knows-me", "gpt-4-1106-preview", "third"]
    found = predict(prompts, models=models, priors={models[0]: 0.7, models[1]: 0.8}, prices={})
    assert [list(row) for row in found] == [models, models]
    assert all(0.0 <= value <= 1.0 for row in found for value in row.values())
    assert found == predict(prompts, models=models, priors={models[0]: 0.7, models[1]: 0.8})
    assert found[0]["nobody/knows-me"] > found[1]["nobody/knows-me"]


# --- measuring ---


@pytest.mark.parametrize(
    "scores",
    [
        [{"a": 1, "b": 0}, {"a": 1}, {"a": 0, "b": 0}],
        [{"a": 1}, {"b": 0}],
        [{"a": 0, "b": 0}, {"a": 0, "b": 0}],
        [{"a": 1, "b": 0, "c": 1}, {"a": 1, "c": 0}, {"a": 0, "b": 1, "c": 1}],
        [{"a": 0, "b": 0, "c": 0}] * 3,
        [{}, {"a": 1, "b": 0}] * 4,
    ],
)
def test_outcomes_with_gaps_can_be_measured(scores: list[dict[str, float]]) -> None:
    rows = [
        evaluation.Outcome(f"Add {n}.", one, "", dict.fromkeys(one, 0.1))
        for n, one in enumerate(scores)
    ]
    found = evaluation.evaluate(rows, lambda p, m, q: predict(p, models=m, priors=q))
    assert {"AUC", "Brier", "ECE"} <= {one.name for one in found}
    assert all(math.isfinite(one.value) for one in found)


@pytest.mark.parametrize("prior", [float("nan"), 73.2, -1.0])
def test_a_prior_that_is_no_quality_is_refused(prior: float) -> None:
    with pytest.raises(ValueError, match="prior of m"):
        predict(["x"], models=["m"], priors={"m": prior})


def test_what_is_no_message_counts_as_empty() -> None:
    assert task_of_prompt([None, "x", {"role": "user", "content": [None, 3]}]).text == ""  # type: ignore[list-item]


def test_gap_recovered_by_hand() -> None:
    strong, weak = [1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]
    best = measures.apgr([9.0, 0.0, 0.0, 0.0], strong, weak)
    worst = measures.apgr([0.0, 1.0, 2.0, 3.0], strong, weak)
    assert (best, worst) == (0.875, 0.125)
    assert measures.cpt(0.5, [9.0, 0.0, 0.0, 0.0], strong, weak) == 25.0


def test_calibration_by_hand() -> None:
    assert measures.auc([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == 1.0
    assert measures.auc([0.5, 0.5], [0, 1]) == 0.5
    assert math.isclose(measures.brier([0.0, 1.0, 0.5], [0, 1, 1]), 0.25 / 3)
    assert math.isclose(measures.ece([0.7] * 10, [1.0] * 7 + [0.0] * 3), 0.0, abs_tol=1e-12)


def outcomes(folder: Path, *lines: str) -> Path:
    (folder / "mine.jsonl").write_text("\n".join(lines))
    return folder


def test_anyone_can_measure_on_their_own_outcomes(tmp_path: Path) -> None:
    rng = random.Random(0)
    lines = []
    for n in range(60):
        text = HARD if n % 2 else "hi"
        scores = {"big": 1.0, "small": float(rng.random() > 0.5 * (n % 2))}
        lines.append(json.dumps({"prompt": f"{text} {n}", "scores": scores}))
    found = CliRunner().invoke(
        app, ["quality", "evaluate", "--data", str(outcomes(tmp_path, *lines)), "--json"]
    )
    assert found.exit_code == 0, found.output
    measured = {row["name"]: row for row in json.loads(found.stdout)["sets"]["mine"][""]}
    assert measured["APGR"]["value"] > 0.6
    assert measured["Brier"]["value"] < 0.25
    assert measured["same choice after lower case, %"]["value"] == 100.0


@pytest.mark.parametrize("line", ["{", '{"prompt": 1}', '{"scores": {}}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    good = '{"prompt": "a", "scores": {"m": 1, "n": 0}}'
    folder = str(outcomes(tmp_path, good, line))
    found = CliRunner().invoke(app, ["quality", "evaluate", "--data", folder])
    assert found.exit_code == 2
    assert "line 2" in found.output


def test_the_table_in_the_docs_is_that_of_the_figures() -> None:
    path = Path(__file__).parent.parent / "tools" / "quality_table.py"
    spec = importlib.util.spec_from_file_location("quality_table", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.table() in tool.DOCUMENT.read_text()


def test_the_held_out_tables_are_shipped() -> None:
    for columns in evaluation.held_out().values():
        assert set(columns) == {evaluation.ROWS, evaluation.WHOLE}
        for found in columns.values():
            assert {"AUC", "Brier", "ECE"} <= {one.name for one in found}
