"""The reducers of health and of the retry budget, in virtual time."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmr.core import classify, health
from llmr.core.budget import FLOOR, SHARE, SPAN_S, RetryBudget
from llmr.core.health import JITTER, PROBE_LEASE_S, WELL, Health
from llmr.core.learner import Learner
from tests.builders import model, snapshot

DRAWS = st.floats(0, 1)


def down(state: Health, now: float, **more: object) -> Health:
    return health.failed(state, "overloaded", now, 0.5, hard=True, **more)  # type: ignore[arg-type]


def test_the_first_hard_fault_cools_for_five_seconds() -> None:
    state = down(WELL, 100.0)
    assert state.until == 105.0
    assert health.admit(state, 104.9) == (False, state)
    assert health.admit(state, 105.0)[0]


def test_r01_the_wait_doubles_up_to_its_bound_while_probes_fail() -> None:
    state, now, waits = WELL, 0.0, []
    for _ in range(6):
        state = down(state, now)
        waits.append(state.until - now)
        now = state.until
    middle = health.LONGEST_S / (1.0 + JITTER)
    assert waits == pytest.approx([5.0, 10.0, 20.0, middle, middle, middle])
    assert health.succeeded(state, now).strikes == 0


def test_r01_no_wait_is_longer_than_thirty_seconds_however_the_jitter_falls() -> None:
    waits = [
        health.failed(Health(strikes), "down", 0.0, draw, hard=True).until
        for strikes in range(3, 40)
        for draw in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert max(waits) == pytest.approx(30.0)
    assert max(waits) <= 30.0
    assert max(waits) - min(waits) > 5.0  # they are spread, not held at the bound


def test_r01_a_target_that_failed_for_days_still_has_a_wait() -> None:
    assert down(Health(strikes=100_000), 0.0).until <= health.LONGEST_S


def test_r01_one_probe_at_a_time_until_one_succeeds() -> None:
    state = down(WELL, 0.0)
    admitted, probing = health.admit(state, 6.0)
    assert admitted
    assert not health.admit(probing, 6.1)[0]
    assert health.admit(health.let_go(probing), 6.2)[0]
    assert health.admit(probing, 6.0 + PROBE_LEASE_S)[0]
    assert health.admit(health.succeeded(probing, 7.0), 7.0) == (
        True,
        health.succeeded(probing, 7.0),
    )


def test_u03_a_hint_is_obeyed_up_to_its_maximum() -> None:
    assert down(WELL, 0.0, hint_s=2.0).until == 2.0
    assert down(WELL, 0.0, hint_s=9e9).until == health.HINT_LONGEST_S


def test_soft_faults_cool_once_half_of_ten_failed() -> None:
    state = WELL
    for number in range(9):
        state = health.failed(state, "cut", float(number), 0.5, hard=False)
        assert state.until == 0.0
    state = health.failed(state, "cut", 9.0, 0.5, hard=False)
    assert state.until == 14.0


def test_a_shorter_wait_does_not_cut_a_longer_one_short() -> None:
    state = down(WELL, 0.0, hint_s=200.0)
    assert down(state, 1.0).until == 200.0
    assert down(state, 1.0, hint_s=2.0).until == 200.0


def test_a_probe_that_fails_softly_is_over() -> None:
    _, probing = health.admit(down(WELL, 0.0), 6.0)
    after = health.failed(probing, "cut", 6.5, 0.5, hard=False)
    assert health.admit(after, 6.6)[0]


def test_old_outcomes_fade() -> None:
    state = WELL
    for _ in range(9):
        state = health.failed(state, "cut", 0.0, 0.5, hard=False)
    later = health.failed(state, "cut", 40.0, 0.5, hard=False)
    assert later.until == 0.0
    assert len(later.slots) == 1


@settings(max_examples=1000)
@given(st.lists(st.tuples(st.sampled_from("hsgpl"), st.floats(0, 20), DRAWS), max_size=60))
def test_whatever_happens_a_target_is_tried_again_within_its_bounds(
    schedule: list[tuple[str, float, float]],
) -> None:
    state, now = WELL, 0.0
    for event, wait, draw in schedule:
        now += wait
        if event in "hs":
            state = health.failed(state, "x", now, draw, hard=event == "h")
        elif event == "g":
            state = health.succeeded(state, now)
            assert health.admit(state, now)[0]
        elif event == "p":
            state = health.admit(state, now)[1]
        else:
            state = health.let_go(state)
        assert state.until <= now + health.LONGEST_S
        assert health.admit(state, max(state.until, now) + PROBE_LEASE_S + 1e-6)[0]
        assert len(state.slots) <= health.SLOTS + 1


@pytest.mark.parametrize(
    ("kind", "cooled"),
    [
        (classify.OVERLOADED, {"lab/a"}),
        (classify.TIMEOUT, {"lab/a"}),
        (classify.CREDIT, {"lab"}),
        (classify.CREDENTIALS, {"lab"}),
        (classify.FREE_LIMIT, {"lab:free"}),
        (classify.CALLER, set()),
        (classify.REFUSED, set()),
        (classify.CONTEXT, set()),
        (classify.CUT, set()),
    ],
)
def test_r07_only_faults_of_the_target_or_its_account_count(
    kind: classify.Kind, cooled: set[str]
) -> None:
    learner = Learner(lambda: 0.5)
    learner.fault(model("a"), kind, 100.0, None, hard=kind.hard)
    assert set(learner.cooling(100.0)) == cooled


@pytest.mark.parametrize("cooled", [classify.OVERLOADED, classify.CREDIT])
def test_a_probe_that_met_the_callers_own_mistake_is_over(cooled: classify.Kind) -> None:
    learner, row = Learner(lambda: 0.5), model("a")
    learner.fault(row, cooled, 0.0, 10.0, hard=True)
    assert not learner.admit(row, 9.9)
    assert learner.admit(row, 10.0)
    assert not learner.admit(row, 10.1)
    assert learner.cooling(10.1)
    learner.fault(row, classify.CALLER, 10.2, None, hard=True)
    assert learner.cooling(10.3) == {}
    assert learner.admit(row, 10.3)


def test_an_answer_shows_that_the_account_is_well_again() -> None:
    learner, one, other = Learner(lambda: 0.5), model("a"), model("b")
    learner.fault(one, classify.CREDIT, 0.0, 10.0, hard=True)
    assert learner.admit(other, 10.0)
    learner.well(other, 10.5)
    assert learner.admit(one, 10.6)
    assert learner.admit(other, 10.6)


def test_u08_r07_the_callers_own_mistakes_in_any_number_change_no_health() -> None:
    learner, row = Learner(lambda: 0.5), model("a")
    for number in range(1000):
        assert learner.admit(row, float(number))
        learner.fault(row, classify.CALLER, float(number), None, hard=True)
    assert learner.cooling(1000.0) == {}
    assert not learner.failing("lab", 1000.0)


def test_r03_a_target_that_fails_fast_gains_nothing_by_it() -> None:
    learner, rows = Learner(lambda: 0.5), snapshot(model("a", ttft=1.0), model("b", ttft=1.0))
    before = learner.publish(rows, 0.0)
    for number in range(50):
        learner.fault(rows.models[0], classify.SERVER, float(number), None, hard=True)
    after = learner.publish(rows, 50.0)
    assert after.ttft_s[0] > 2 * before.ttft_s[0]
    assert after.ttft_s[1] == before.ttft_s[1]
    assert "lab/a" in after.cooling


# --- the retry budget ---


def test_the_floor_is_there_without_traffic() -> None:
    budget = RetryBudget()
    assert [budget.spend(0.0) for _ in range(FLOOR + 1)] == [True] * FLOOR + [False]
    assert budget.spend(SPAN_S + 0.01)


@pytest.mark.parametrize("rate", [5, 50, 200])
def test_r04_extra_sends_stay_within_their_share_of_a_steady_load(rate: int) -> None:
    budget, spent, seconds = RetryBudget(), 0, 60
    for number in range(rate * seconds):
        now = number / rate
        budget.request(now)
        spent += budget.spend(now)
    allowed = SHARE * rate * seconds + FLOOR * (seconds / SPAN_S + 1)
    assert spent <= allowed * 1.05


def test_r04_ten_thousand_seeded_schedules_never_exceed_the_budget() -> None:
    for seed in range(10_000):
        rng, budget, now = random.Random(seed), RetryBudget(), 0.0
        requests: list[float] = []
        spent: list[float] = []
        for _ in range(20):
            now += rng.expovariate(2.0)
            if rng.random() < 0.6:
                budget.request(now)
                requests.append(now)
            elif budget.spend(now):
                spent.append(now)
            recent = sum(t >= now - SPAN_S - 0.1 for t in requests)
            taken = sum(t > now - SPAN_S for t in spent)
            assert taken <= FLOOR + SHARE * recent + 1, f"seed {seed}"
