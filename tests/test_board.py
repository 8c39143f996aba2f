"""A board makes decisions quick and changes none of them."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llmr.core.board import Board
from llmr.core.decide import Decision, decide
from llmr.core.learner import Learner
from llmr.core.look import Now
from llmr.core.quality.ability import Ability, logit
from llmr.core.quality.curve import Curve
from llmr.core.quality.kinds import KINDS
from llmr.core.sourced import Figure
from llmr.errors import ApiError
from tests.builders import NOW, POLICY, model, request, snapshot
from tests.test_decide_laws import priced

PRIORITIES = ("speed", "cost", "quality", "balanced")


def rows(rng: random.Random, count: int) -> Any:
    return snapshot(
        *(
            model(
                f"lab/{n}",
                ttft=round(10 ** rng.uniform(-1, 1), 2),
                tpot=10 ** rng.uniform(-3, -1),
                price=priced(rng.randint(0, 300), rng.randint(0, 3000)),
                quality=Figure(round(rng.uniform(0.2, 0.9), 2), "published", 0.05),
                supports=("tools",) if rng.random() < 0.7 else (),
                context=rng.choice((4_000, 8_000, 128_000, None)),
                max_output=rng.choice((500, 4096, None)),
                reasoning_default=rng.random() < 0.3,
                placed=Ability(
                    logit(rng.uniform(0.2, 0.9)), tuple(rng.uniform(-1, 1) for _ in KINDS)
                ),
            )
            for n in range(count)
        )
    )


def asked(rng: random.Random, size: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": "word " * size}],
        "priority": rng.choice(PRIORITIES),
        "stream": rng.random() < 0.5,
    }
    if rng.random() < 0.3:
        fields["max_tokens"] = rng.choice((100, 700, 4000))
    if rng.random() < 0.2:
        fields["reasoning_effort"] = rng.choice(("low", "high"))
    if rng.random() < 0.2:
        fields["max_cost_usd"] = 10 ** rng.uniform(-6, -1)
    if rng.random() < 0.1:
        fields["max_latency_ms"] = 10 ** rng.uniform(2, 4)
    return fields


def curve(rng: random.Random) -> Curve:
    one, two, three = rng.sample(range(10), 3)
    shares = (one, 0.6), (two, 0.3), (three, 0.1)
    return Curve(rng.gauss(0.0, 1.0), rng.uniform(0.3, 1.5), shares)


def outcome(*arguments: Any) -> Decision | str:
    try:
        return decide(*arguments)
    except ApiError as error:
        return str(error)


@given(st.integers(0, 2**32), st.sampled_from([5, 40, 120]))
@settings(max_examples=60)
def test_decisions_with_a_board_are_those_without(seed: int, count: int) -> None:
    rng, board = random.Random(seed), Board()
    of, learner = rows(rng, count), Learner(rng.random)
    known, now = learner.publish(of, 0.0), NOW.monotonic
    requests = [request(**asked(rng, int(10 ** rng.uniform(0, 4)))) for _ in range(8)]
    requests += [replace(one, curve=curve(rng)) for one in requests * 3]
    for _ in range(100):
        if rng.random() < 0.5:
            for row in rng.sample(of.models, rng.randint(0, 3)):
                for _ in range(rng.randint(1, 40)):
                    learner.observe(
                        row, 10 ** rng.uniform(-1.5, 1.5), 10 ** rng.uniform(-4, 0), now
                    )
            known = learner.publish(of, now)
        if rng.random() < 0.05:
            of = rows(rng, count)
            known = learner.publish(of, now)
        arguments = rng.choice(requests), of, known, POLICY, Now(now, NOW.wall)
        assert outcome(*arguments, board) == outcome(*arguments)


@pytest.mark.parametrize("versions", [1, 3, 64, 65, 200])
def test_a_row_that_became_quick_is_seen_however_long_ago(versions: int) -> None:
    rng, board = random.Random(1), Board()
    of, learner = rows(rng, 100), Learner(rng.random)
    ask = request(priority="speed", messages=[{"role": "user", "content": "word " * 20}])
    now = Now(NOW.monotonic, NOW.wall)
    before = decide(ask, of, learner.publish(of, 0.0), POLICY, now, board)
    last = max(of.models, key=lambda row: row.ttft_s.value + row.tpot_s.value * 300)
    for _ in range(400):
        learner.observe(last, 0.001, 0.00001, 0.0)
    for _ in range(versions):
        known = learner.publish(of, 0.0)
    after = decide(ask, of, known, POLICY, now, board)
    assert last.id not in [of.models[i].id for i in before.chain]
    assert after.model.id == last.id


def test_the_vector_is_the_same_whether_made_anew_or_from_the_one_before() -> None:
    rng = random.Random(3)
    of, learner = rows(rng, 50), Learner(rng.random)
    learner.publish(of, 0.0)
    for row in rng.sample(of.models, 20):
        learner.observe(row, rng.uniform(0.1, 3.0), rng.uniform(0.01, 0.1), 0.0)
        onward = learner.publish(of, 0.0)
    learner.publish(rows(rng, 3), 0.0)
    anew = learner.publish(of, 0.0)
    assert (onward.ttft_s, onward.tpot_s, onward.slow_s) == (anew.ttft_s, anew.tpot_s, anew.slow_s)


@pytest.mark.parametrize("seed", range(5))
def test_no_row_is_better_than_the_best_of_its_band(seed: int) -> None:
    rng = random.Random(seed)
    of = rows(rng, 60)
    for _ in range(20):
        prompt = curve(rng)
        best = of.bands.best(prompt)
        for index, band in of.bands.of.items():
            assert prompt.quality(of.models[index].skill) <= best[band] + 1e-12
