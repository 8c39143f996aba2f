"""How many tokens a prompt and an answer are likely to be, by model, before and after some were."""

import math
import random
from typing import Any

import pytest

from llmr.core import ceiling
from llmr.core.learner import Learner
from llmr.core.lengths import LengthBook, Lengths, differs, of_family
from llmr.core.look import Look
from llmr.core.scoring import usual_thinking
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.builders import NOW, POLICY, model, request, snapshot, telemetry
from tests.harness import Server, eventually, upstream


def usage(prompt: int, completion: int, thought: int = 0) -> dict[str, Any]:
    details = {"reasoning_tokens": thought}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "completion_tokens_details": details,
    }


@pytest.mark.parametrize(
    ("name", "tokenizer", "factor"),
    [
        ("openai/gpt-5.4", "GPT", 1.0),
        ("anthropic/claude-3-haiku", "Claude", 1.15),
        ("anthropic/claude-sonnet-4", "Claude", 1.15),
        ("anthropic/claude-opus-4.6", None, 1.15),
        ("anthropic/claude-opus-4.7", "Claude", 1.45),
        ("~anthropic/claude-opus-latest", None, 1.45),
        ("anthropic/claude-fable-5", "Claude", 1.45),
        ("deepseek/deepseek-v3", "DeepSeek", 1.08),
        ("qwen/qwen3-8b", None, 1.08),
        ("mistralai/x", None, 1.1),
        ("lab/one", None, 1.0),
    ],
)
def test_families_of_tokenizers(name: str, tokenizer: str | None, factor: float) -> None:
    assert of_family(name, tokenizer).prompt == factor


def test_a_steady_workload_is_known_to_a_few_percent() -> None:
    rng, book = random.Random(1), LengthBook()
    known = of_family("anthropic/claude-opus-4.7")
    for _ in range(300):
        prompt, answer = rng.randint(100, 5000), rng.randint(50, 500)
        counted = usage(round(prompt * 1.31 * rng.uniform(0.97, 1.03)), answer * 2)
        book.add("lab/a", counted, prompt, answer, None, True, 0.0)
    found = book.of("lab/a", known, 0.0)
    assert found.prompt == pytest.approx(1.31, rel=0.03)
    assert found.prompt_late < 1.08
    assert found.answer == pytest.approx(2.0, rel=0.1)
    assert book.of("lab/b", known, 0.0) is known
    assert differs(found, known)
    assert not differs(found, found)


def test_the_first_few_answers_move_little_and_the_late_ones_are_covered() -> None:
    rng, book = random.Random(2), LengthBook()
    book.add("lab/a", usage(300, 100), 100, 300, None, True, 0.0)
    assert book.of("lab/a", Lengths(), 0.0).prompt < 1.1
    seen = [rng.lognormvariate(math.log(300), 0.8) for _ in range(2000)]
    for length in seen:
        book.add("lab/a", usage(100, int(length) + 1), 100, 300, None, True, 0.0)
    found = book.of("lab/a", Lengths(), 0.0)
    late = 300 * found.answer * found.answer_late
    assert 0.9 < sum(length < late for length in seen) / len(seen) < 0.99


def test_answers_cut_short_tell_nothing_of_length_and_thoughts_count_by_effort() -> None:
    book = LengthBook()
    for _ in range(200):
        book.add("lab/a", usage(100, 16), 100, 300, None, False, 0.0)
        book.add("lab/b", usage(100, 2300, 2000), 100, 300, "high", True, 0.0)
        book.add("lab/b", usage(100, 340, 40), 100, 300, None, True, 0.0)
    assert book.of("lab/a", Lengths(), 0.0).answer == 1.0
    found = book.of("lab/b", Lengths(), 0.0)
    assert found.answer == pytest.approx(1.0, rel=0.05)
    assert found.thoughts("high") == pytest.approx(2000, rel=0.15)
    assert found.thoughts("low") is None
    row = model("lab/b", lengths=found, reasoning_default=True)
    assert usual_thinking(row) == pytest.approx(40, rel=0.4)


@pytest.mark.parametrize(
    "odd",
    [
        *({}, {"prompt_tokens": -5}, {"prompt_tokens": "9", "completion_tokens": None}),
        {"completion_tokens": 10**12, "completion_tokens_details": [1]},
    ],
)
def test_odd_usage_tells_nothing(odd: dict[str, Any]) -> None:
    book = LengthBook()
    book.add("lab/a", odd, 100, 300, "weird", True, 0.0)
    found = book.of("lab/a", Lengths(), 0.0)
    assert (found.prompt, found.answer) == (1.0, 1.0)


def test_a_wordy_model_costs_more_and_takes_longer() -> None:
    plain = model("lab/a", price=("0.001", "0.002"), reasoning_default=False)
    wordy = model("lab/b", price=("0.001", "0.002"), lengths=Lengths(prompt=2.0, answer=3.0))
    rows = snapshot(plain, wordy)
    one = request(messages=[{"role": "user", "content": "word" * 993}])
    look = Look(one, rows, telemetry(rows), POLICY, NOW)
    first, second = look.terms(0), look.terms(1)
    assert first.cost_usd is not None
    assert second.cost_usd is not None
    tokens = one.output_tokens
    per_token = 1e-6
    assert second.cost_usd - first.cost_usd == pytest.approx(
        one.prompt_tokens * per_token + tokens * 2 * 2 * per_token
    )
    assert second.total_s - first.total_s == pytest.approx(2 * tokens * 0.02)
    tight = request(max_tokens=tokens)
    near = Look(tight, rows, telemetry(rows), POLICY, NOW)
    assert near.terms(1).total_s == near.terms(0).total_s, "a limit leaves it no room"
    assert ceiling.prompt_tokens(wordy, one) == pytest.approx(one.prompt_tokens * 2.6, abs=2)


def test_the_learner_hands_on_what_was_counted() -> None:
    learner, rows = Learner(random.Random(1).random), snapshot(model("a"), model("b"))
    assert learner.counted(rows, 0.0) is rows
    for _ in range(50):
        learner.lengths.add("lab/b", usage(200, 300), 100, 300, None, True, 0.0)
    found = learner.counted(rows, 0.0)
    assert found.models[0] is rows.models[0]
    assert found.models[1].lengths.prompt > 1.5


def test_a_running_router_learns_it(
    sandbox_process: SandboxProcess, sandbox: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmr.gateway.CORRECT_S", 0.0)
    name = "anthropic/claude-opus-4.7"
    with Server(upstream(sandbox_process.base_url)) as server:

        def factor() -> float:
            of = server.gateway.snapshot
            return of.models[of.by_id[name][0]].lengths.prompt

        assert factor() == 1.45
        said = [{"role": "user", "content": "Tell me. " * 200}]
        for _ in range(30):
            assert server.chat(model=name, messages=said).status == 200
        eventually(lambda: factor() < 1.3, "the sandbox counts bytes by four")

        def shown() -> float:
            rows = server.request("GET", "/models").json["models"]
            found: float = next(row for row in rows if row["id"] == name)["tokens"]["prompt"]
            return found

        eventually(lambda: shown() == pytest.approx(factor(), rel=0.01), "it is listed")
