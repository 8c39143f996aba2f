"""Decisions while targets are to be left alone."""

from typing import Any

import pytest
from msgspec.structs import replace

from llmr.core.decide import Decision, Now, Policy, decide
from llmr.core.explain import explain
from tests.builders import NOW, POLICY, decided, model, names, request, snapshot, telemetry

ROWS = [model(f"lab/{i}", quality=0.9 - i / 100) for i in range(6)]
IDS = [row.id for row in ROWS]


def test_targets_that_cool_down_are_skipped() -> None:
    found = decided(ROWS, cooling={ROWS[0].target: "rate_limited"})
    assert names(found) == IDS[1:]
    told = explain(found)
    assert [row["model"] for row in told["candidates"] if "cooling" in row] == IDS[:1]
    assert "rate_limited" in told["reason"]


@pytest.mark.parametrize("keys", [["lab"], [row.target for row in ROWS]])
def test_r02_when_all_cool_down_the_least_bad_is_tried_all_the_same(
    keys: list[str],
) -> None:
    cooling = dict.fromkeys(keys, "overloaded")
    assert names(decided(ROWS, cooling=cooling)) == IDS[:1]
    assert names(decided(ROWS, cooling=cooling, model="lab/3")) == ["lab/3"]


def test_the_best_of_the_well_ones_is_found_behind_many_that_cool_down() -> None:
    rows = [model(f"lab/{i:02d}", quality=0.9 - i / 100) for i in range(40)]
    cooling = {f"lab/lab/{i:02d}": "timeout" for i in range(35)}
    assert names(decided(rows, cooling=cooling)) == [f"lab/{i}" for i in range(35, 40)]


def test_a_pinned_model_served_twice_is_asked_where_it_is_well() -> None:
    rows = [model("one", upstream="lab"), model("one", upstream="openrouter")]
    found = decided(rows, model="one", cooling={"lab": "credit"})
    assert [rows[i].upstream for i in found.chain] == ["openrouter"]


def test_a_fallback_model_that_cools_down_is_not_tried_before_those_that_are_well() -> None:
    rows = [model("lab/first", quality=0.9), model("lab/named"), model("lab/well")]
    policy = Policy(frozenset(("lab",)), ("lab/named",))
    found = names(decided(rows, policy=policy, cooling={"lab/lab/named": "rate_limited"}))
    assert found[:2] == ["lab/first", "lab/well"]


def test_r02_of_those_that_all_cool_down_the_one_that_is_free_soonest_is_tried() -> None:
    of = snapshot(*ROWS)
    known = telemetry(of, {row.target: "timeout" for row in ROWS})
    soon = (NOW.monotonic + 1.0, "timeout")
    known = replace(known, cooling={**known.cooling, ROWS[4].target: soon})

    def chosen(**fields: Any) -> Decision:
        return decide(request(**fields), of, known, POLICY, NOW)

    assert names(chosen()) == ["lab/4"]
    assert names(chosen(models=["lab/2", "lab/4", "lab/0"])) == ["lab/4"]
    assert names(chosen(model="lab/2")) == ["lab/2"]


def test_a_target_is_used_again_once_its_time_is_over() -> None:
    of = snapshot(*ROWS)
    known = telemetry(of, {ROWS[0].target: "timeout"})
    for seconds, expected in ((59.9, IDS[1:]), (60.0, IDS), (61.0, IDS), (0.0, IDS[1:])):
        now = Now(NOW.monotonic + seconds, NOW.wall)
        assert names(decide(request(), of, known, POLICY, now)) == expected


def test_the_best_of_the_well_ones_is_looked_for_again_when_another_gets_well() -> None:
    rows = [model(f"lab/{i:02d}", quality=0.9 - i / 100) for i in range(40)]
    of = snapshot(*rows)
    known = telemetry(of, {row.target: "timeout" for row in rows[:35]})
    known = replace(known, cooling={**known.cooling, rows[30].target: (NOW.monotonic + 9.0, "")})
    for seconds, expected in ((0.0, 35), (10.0, 30), (0.0, 35)):
        now = Now(NOW.monotonic + seconds, NOW.wall)
        assert decide(request(), of, known, POLICY, now).model is rows[expected]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lab/one:free", ["two:free", "one", "far:free"]),
        ("lab:free", ["one", "far:free"]),
        ("lab", ["far:free"]),
        ("openrouter:free", ["one:free", "two:free", "one"]),
        ("other", ["one:free", "two:free", "one", "far:free"]),
    ],
)
def test_an_account_and_its_free_rows_cool_down_together(key: str, expected: list[str]) -> None:
    rows = [
        model("one:free", price=("0", "0"), quality=0.9),
        model("two:free", price=("0", "0"), quality=0.8),
        model("one", price=("0.0000001", "0"), quality=0.7),
        model("far:free", upstream="openrouter", price=("0", "0"), quality=0.6),
    ]
    assert names(decided(rows, cooling={key: "rate_limited"})) == expected


def test_preferred_models_that_cool_down_are_skipped_too() -> None:
    cooling = {ROWS[3].target: "timeout"}
    found = decided(ROWS, cooling=cooling, preferred_models=["lab/3", "lab/5"])
    assert names(found) == ["lab/5", "lab/0", "lab/1", "lab/2", "lab/4"]


def test_listed_models_that_cool_down_are_skipped_while_another_is_well() -> None:
    found = decided(ROWS, cooling={ROWS[3].target: "timeout"}, models=["lab/3", "lab/5"])
    assert names(found) == ["lab/5"]


def test_r02_the_targets_of_a_request_are_all_it_could_go_to() -> None:
    rows = [model(f"lab/{number}") for number in range(13)]
    cooling = {"lab/lab/0": "down"}
    named = decided(rows, models=["lab/0", "lab/1"], cooling=cooling)
    assert named.chain == (1,)
    assert sorted(named.targets) == [0, 1]
    few = decided(rows[:3], cooling=cooling)
    assert few.chain == (1, 2)
    assert sorted(few.targets) == [0, 1, 2]
    assert decided(rows, cooling=cooling).targets == ()  # more than are ranked
    alone = decided(rows, cooling={f"lab/{row.id}": "down" for row in rows})
    assert len(alone.chain) == 1
    assert len(alone.targets) == 12
