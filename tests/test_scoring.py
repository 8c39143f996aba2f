"""The score by the formula, term by term, and what thinking adds to time and cost."""

import math
from typing import Any

import pytest

from llmr.core.catalogue import Model
from llmr.core.lengths import EFFORT_TOKENS
from llmr.core.scoring import Terms, terms
from llmr.core.sourced import Figure
from tests.builders import model, request

RATES = (1e-6, 4e-6, 0.0)
USUAL = EFFORT_TOKENS["low"]
LOUD = model(reasoning_default=True, default_effort="low", thinks_aloud=True)
QUIET = model(reasoning_default=True, default_effort="low", thinks_aloud=False)
PLAIN = model()


def found(row: Model, rates: tuple[float, float, float] | None = RATES, **fields: Any) -> Terms:
    """The terms at one second to the first token and 20 ms for each after it."""
    return terms(row, 1.0, 0.02, rates, request(**fields))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [None, 10, 300])
def test_the_score_is_that_of_the_formula(stream: bool, limit: int | None) -> None:
    fields: dict[str, Any] = {"stream": stream, "priority": "cost", "max_tokens": limit}
    asked = request(**fields)
    tail = asked.output_tokens * 0.02
    felt = 1.0 + (0.3 * tail if stream else tail)
    usd = asked.prompt_tokens * 1e-6 + asked.output_tokens * 4e-6
    latency = 1 - math.log(felt / 0.1) / math.log(1000)
    cost = 1 - math.log(usd / 1e-6) / math.log(1e6)
    score = 0.2 * latency + 0.7 * cost + 0.1 * 0.5
    expected = (score, latency, cost, 0.5, 1.0, 1.0 + tail, usd)
    assert found(PLAIN, **fields) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("usd", "score"),
    [(0.0, 1.0), (1e-9, 1.0), (1e-6, 1.0), (1e-3, 0.5), (1.0, 0.0), (1000.0, -0.5)],
)
def test_a_cost_has_a_floor_and_no_ceiling(usd: float, score: float) -> None:
    shown = found(PLAIN, (0.0, 0.0, usd))
    assert shown.cost_usd == usd
    assert shown.cost_score == pytest.approx(score)


@pytest.mark.parametrize(
    ("seconds", "score"), [(0.001, 5 / 3), (0.1, 1.0), (1.0, 2 / 3), (100.0, 0.0), (1000.0, -1 / 3)]
)
def test_a_time_has_neither_floor_nor_ceiling(seconds: float, score: float) -> None:
    assert terms(PLAIN, seconds, 0.0, RATES, request()).latency_score == pytest.approx(score)


def test_an_unknown_price_counts_as_one_dollar_and_is_shown_as_unknown() -> None:
    shown = found(PLAIN, None)
    assert (shown.cost_usd, shown.cost_score) == (None, 0.0)


def test_a_guess_of_quality_counts_one_deviation_less_and_a_published_figure_whole() -> None:
    for source, counted in (("estimated", 0.58), ("published", 0.7), ("configured", 0.7)):
        row = model(quality=Figure(0.7, source, 0.12))
        assert found(row).quality == pytest.approx(counted)


# --- thinking ---


def extra(row: Model, **fields: Any) -> tuple[int, int]:
    """(tokens of first-token time, tokens of cost) more than without any thinking."""
    shown, plain = found(row, **fields), found(PLAIN, **fields)
    assert shown.cost_usd is not None
    assert plain.cost_usd is not None
    return (
        round((shown.ttft_s - 1.0) / 0.02),
        round((shown.cost_usd - plain.cost_usd) / RATES[1]),
    )


@pytest.mark.parametrize("row", [LOUD, QUIET])
def test_usual_thinking_is_in_the_first_token_time_and_costs_output(row: Model) -> None:
    assert extra(row) == (0, USUAL)


@pytest.mark.parametrize("row", [LOUD, QUIET])
@pytest.mark.parametrize("effort", ["medium", "high", "xhigh", "max"])
def test_more_effort_than_usual_takes_longer_and_costs_more(row: Model, effort: str) -> None:
    plain, asked = found(PLAIN), found(row, reasoning_effort=effort)
    assert asked.ttft_s == pytest.approx(1.0 + (EFFORT_TOKENS[effort] - USUAL) * 0.02)
    assert asked.cost_usd == pytest.approx((plain.cost_usd or 0) + EFFORT_TOKENS[effort] * 4e-6)
    assert asked.total_s == pytest.approx(plain.total_s + asked.ttft_s - 1.0)


def test_less_effort_is_known_to_start_earlier_only_where_the_thoughts_are_seen() -> None:
    for aloud, first in ((True, 0.1), (False, 1.0)):
        row = model(reasoning_default=True, default_effort="high", thinks_aloud=aloud)
        shown = found(row, reasoning_effort="none")
        assert shown.ttft_s == pytest.approx(first)
        assert shown.cost_usd == found(PLAIN).cost_usd


@pytest.mark.parametrize(
    "effort", [None, "none", "minimal", "low", "medium", "high", "xhigh", "max"]
)
@pytest.mark.parametrize("limit", [1, 20, 100, 100_000])
def test_nobody_thinks_longer_than_they_may_write(effort: str | None, limit: int) -> None:
    fields: dict[str, Any] = {"reasoning_effort": effort, "max_tokens": limit}
    plain = found(PLAIN, max_tokens=limit)
    for row in (LOUD, QUIET, model(reasoning_mandatory=True, default_effort="max")):
        shown = found(row, **fields)
        assert shown.cost_usd is not None
        assert plain.cost_usd is not None
        assert shown.cost_usd - plain.cost_usd <= limit * RATES[1] + 1e-12
        assert 0.1 <= shown.ttft_s <= 1.0 + limit * 0.02
