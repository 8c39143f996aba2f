"""Prices: what an answer cost, to the last digit; prices that depend on length and hour."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmr.core.decide import Now, decide
from llmr.core.price import UNKNOWN, Override, Prices, amount, cost, parse
from tests.builders import NOW, POLICY, model, request, snapshot, telemetry
from tests.test_body import JSON

# As published on 2026-08-18, USD per million tokens: prompt, completion, cache read, cache write.
# Only gemini-3.6-flash is as recorded six days earlier: by the 18th its prices had been halved.
PUBLISHED = {
    "anthropic/claude-sonnet-4.6": ("3", "15", "0.3", "3.75"),
    "anthropic/claude-sonnet-4.5": ("3", "15", "0.3", "3.75"),
    "anthropic/claude-haiku-4.5": ("1", "5", "0.1", "1.25"),
    "google/gemini-3.6-flash": ("1.5", "7.5", None, None),
    "openai/gpt-4.1-mini": ("0.4", "1.6", "0.1", None),
    "openai/gpt-4o-mini": ("0.15", "0.6", "0.075", None),
    "openai/o3": ("2", "8", "0.5", None),
    "deepseek/deepseek-chat": ("0.2574", "1.0287", None, None),
}
FIELDS = ("prompt", "completion", "input_cache_read", "input_cache_write")

# By model: recording, (prompt, completion, cached, written) tokens, USD charged for the tokens.
# What a recording was charged for searches and tools on top is left out.
RECORDED = {
    "anthropic/claude-sonnet-4.6": (
        ("openrouter-cache-read", (2649, 100, 2569, 79), "0.00256995"),
        ("openrouter-cache-write", (2572, 63, 0, 2569), "0.01058775"),
        ("openrouter-usage-empty-choices-2026-03", (254, 5, 0, 0), "0.000837"),
    ),
    "anthropic/claude-sonnet-4.5": (
        ("openrouter-reasoning-effort-high", (43, 53, 0, 0), "0.000924"),
        ("openrouter-reasoning-anthropic-2025-12", (43, 36, 0, 0), "0.000669"),
    ),
    "anthropic/claude-haiku-4.5": (
        ("openrouter-plain-2026-06", (15, 9, 0, 0), "0.00006"),
        ("openrouter-reasoning-details-with-tool-call-1", (626, 106, 0, 0), "0.001156"),
        ("openrouter-reasoning-details-with-tool-call-2", (754, 28, 0, 0), "0.000894"),
        ("openrouter-tool-call-turn1-2026-06", (633, 75, 0, 0), "0.001008"),
        ("openrouter-tool-call-turn2-2026-06", (748, 64, 0, 0), "0.001068"),
    ),
    "openai/o3": (("openrouter-reasoning-encrypted-o3-2025-11", (9, 104, 0, 0), "0.00085"),),
    "google/gemini-3.6-flash": (("openrouter-gemini-3.6-2026-08", (30, 26, 0, 0), "0.00024"),),
    "openai/gpt-4.1-mini": (
        ("openrouter-web-search-usage-2026-08", (8174, 30, 0, 0), "0.0033176"),
        ("openrouter-server-tool-usage-2026-08", (8174, 30, 0, 0), "0.0033176"),
    ),
    "openai/gpt-4o-mini": (("openrouter-long-keepalive-advisor", (888, 74, 0, 0), "0.0001776"),),
    "deepseek/deepseek-chat": (
        ("openrouter-web-search-annotations", (2317, 53, 0, 0), "0.0006509169"),
    ),
}


def published(name: str) -> dict[str, Decimal]:
    pairs = zip(FIELDS, PUBLISHED[name], strict=True)
    return {field: Decimal(price) / 10**6 for field, price in pairs if price is not None}


def usage(prompt: int, completion: int, cached: int = 0, written: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": completion // 2},
    }


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_answers_to_the_last_digit(name: str) -> None:
    for recording, tokens, charged in RECORDED[name]:
        assert cost(published(name), usage(*tokens)) == Decimal(charged), recording


def test_a_recorded_search_is_priced_where_its_price_is_known() -> None:
    searched = usage(8174, 30) | {"server_tool_use_details": {"web_search_requests": 1}}
    with_price = published("openai/gpt-4.1-mini") | {"web_search": Decimal("0.01")}
    assert cost(with_price, searched) == Decimal("0.0133176")
    assert cost(published("deepseek/deepseek-chat"), searched) is None


def test_more_cached_tokens_than_tokens_are_clamped() -> None:
    # Recorded: an answer with 7 prompt tokens, 161 of them cached.
    found = published("anthropic/claude-sonnet-4.6")
    assert cost(found, usage(7, 1, 161)) == cost(found, usage(7, 1, 7))
    assert cost(found, usage(100, 1, 60, 90)) == cost(found, usage(100, 1, 60, 40))
    assert cost(found, usage(100, 1, -5, -5)) == cost(found, usage(100, 1))


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**8), st.integers(0, 10**8))
def test_cached_tokens_never_cost_more_than_fresh_or_written_ones(
    prompt: int, completion: int, cached: int, written: int
) -> None:
    found = published("anthropic/claude-sonnet-4.6")
    plain = cost(found, usage(prompt, completion))
    read = cost(found, usage(prompt, completion, cached))
    both = cost(found, usage(prompt, completion, cached, written))
    assert plain is not None
    assert read is not None
    assert both is not None
    assert 0 <= read <= plain
    assert read <= both <= plain * Decimal("1.25")


def test_cache_prices_that_are_not_published_are_those_of_the_prompt() -> None:
    found = published("deepseek/deepseek-chat")
    assert cost(found, usage(1000, 10, 400, 300)) == cost(found, usage(1000, 10))


@pytest.mark.parametrize(
    ("details", "field", "per"),
    [
        ({"completion_tokens_details": {"audio_tokens": 4}}, "audio_output", "2"),
        ({"completion_tokens_details": {"image_tokens": 4}}, "image_output", "2"),
        ({"prompt_tokens_details": {"audio_tokens": 4}}, "audio", "1"),
    ],
)
def test_a_part_costs_its_own_price_and_else_that_of_the_whole(
    details: dict[str, Any], field: str, per: str
) -> None:
    base = {"prompt": Decimal(1), "completion": Decimal(2)}
    usage = {"prompt_tokens": 10, "completion_tokens": 10, **details}
    assert cost(base, usage) == 30
    assert cost({**base, field: Decimal(7)}, usage) == 30 + 4 * (7 - Decimal(per))


def test_a_price_per_request_counts_once() -> None:
    found = published("openai/o3") | {"request": Decimal("0.01")}
    assert cost(found, usage(9, 104)) == Decimal("0.01085")


@pytest.mark.parametrize("missing", ["prompt", "completion"])
def test_without_a_token_price_the_cost_is_unknown(missing: str) -> None:
    found = published("openai/o3")
    del found[missing]
    assert cost(found, usage(9, 104)) is None
    assert cost({}, usage(9, 104)) is None


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "9", "completion_tokens": "104"},
        {"input_tokens": 9, "output_tokens": 104},
    ],
)
def test_without_token_counts_the_cost_is_unknown_and_not_nothing(counts: dict[str, Any]) -> None:
    assert cost(published("openai/o3"), counts) is None


@given(st.dictionaries(st.sampled_from(sorted(usage(1, 1))), JSON))
def test_no_usage_is_an_error(counts: dict[str, Any]) -> None:
    found = cost(published("openai/o3"), counts)
    assert found is None or found >= 0


# --- what is published ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.000003", "0.000003"),
        ("0", "0"),
        ("3e-6", "0.000003"),
        ("0.0000000416666666666667", "0.0000000416666666666667"),
        (0, "0"),
        (3e-6, "0.000003"),
        (0.1, "0.1"),
        (2, "2"),
    ],
)
def test_a_price_is_read_exactly(value: Any, expected: str) -> None:
    assert amount(value) == Decimal(expected)


@pytest.mark.parametrize(
    "value",
    [
        *("-1", -1, "-0.0001", -1e-9, "NaN", "sNaN", "Infinity", "-Infinity", math.nan, math.inf),
        *("", " ", "free", "$3", "1,5", "0x1", None, True, False, [], {}, ["1"]),
    ],
)
def test_what_is_no_price_is_unknown(value: Any) -> None:
    assert amount(value) is None
    found = parse({"prompt": value, "completion": "0.000001"})
    assert not found.known
    assert "prompt" not in found.at(100)


def test_a_missing_price_is_unknown() -> None:
    assert not parse({}).known
    assert not parse({"prompt": "1"}).known
    assert parse({"prompt": "0", "completion": "0"}).known
    assert not UNKNOWN.known


@pytest.mark.parametrize("overrides", [None, {}, "x", 5, [None, 5, "x", []]])
def test_overrides_that_cannot_be_read_are_left_out(overrides: Any) -> None:
    found = parse({"prompt": "1", "completion": "2", "overrides": overrides})
    assert found == Prices({"prompt": Decimal(1), "completion": Decimal(2)})


# --- prices that depend on length and hour ---


def rule(**conditions: Any) -> Override:
    """A rule by which a prompt token costs 9."""
    (found,) = parse({"overrides": [{"prompt": "9", **conditions}]}).overrides
    return found


@pytest.mark.parametrize(
    ("conditions", "tokens", "hhmm", "day", "holds"),
    [
        ({}, 1, 0, 0, True),
        ({"min_prompt_tokens": 200_000}, 199_999, 0, 0, False),
        ({"min_prompt_tokens": 200_000}, 200_000, 0, 0, False),
        ({"min_prompt_tokens": 200_000}, 200_001, 0, 0, True),
        ({"min_prompt_tokens": 2e5}, 200_001, 0, 0, True),
        ({"utc_start": 100, "utc_end": 400}, 1, 59, 0, False),
        ({"utc_start": 100, "utc_end": 400}, 1, 100, 0, True),
        ({"utc_start": 100, "utc_end": 400}, 1, 359, 0, True),
        ({"utc_start": 100, "utc_end": 400}, 1, 400, 0, False),
        ({"utc_start": 1000, "utc_end": 100}, 1, 959, 0, False),
        ({"utc_start": 1000, "utc_end": 100}, 1, 1000, 0, True),
        ({"utc_start": 1000, "utc_end": 100}, 1, 2359, 0, True),
        ({"utc_start": 1000, "utc_end": 100}, 1, 0, 0, True),
        ({"utc_start": 1000, "utc_end": 100}, 1, 59, 0, True),
        ({"utc_start": 1000, "utc_end": 100}, 1, 100, 0, False),
        ({"utc_start": 0, "utc_end": 2400}, 1, 2359, 0, True),
        ({"utc_days": [5, 6]}, 1, 0, 4, False),
        ({"utc_days": [5, 6]}, 1, 0, 5, True),
        ({"utc_days": []}, 1, 0, 5, False),
        ({"min_prompt_tokens": 10, "utc_start": 100, "utc_end": 400}, 11, 200, 0, True),
        ({"min_prompt_tokens": 10, "utc_start": 100, "utc_end": 400}, 10, 200, 0, False),
        ({"min_prompt_tokens": 10, "utc_start": 100, "utc_end": 400}, 11, 500, 0, False),
        ({"min_prompt_tokens": "x", "utc_days": "x"}, 1, 0, 0, True),
    ],
)
def test_when_a_rule_holds(
    conditions: dict[str, Any], tokens: int, hhmm: int, day: int, holds: bool
) -> None:
    found = Prices({"prompt": Decimal(1)}, (rule(**conditions),))
    assert found.at(tokens, hhmm, day) == {"prompt": Decimal(9 if holds else 1)}


def test_later_rules_win_key_by_key_and_absent_keys_inherit() -> None:
    found = parse(
        {
            "prompt": "1",
            "completion": "2",
            "input_cache_read": "0.1",
            "overrides": [
                {"min_prompt_tokens": 100, "prompt": "3", "completion": "4"},
                {"min_prompt_tokens": 50, "prompt": "5", "input_cache_read": "-1"},
            ],
        }
    )
    read = Decimal("0.1")
    assert found.at(40) == {"prompt": 1, "completion": 2, "input_cache_read": read}
    assert found.at(60) == {"prompt": 5, "completion": 2, "input_cache_read": read}
    assert found.at(101) == {"prompt": 5, "completion": 4, "input_cache_read": read}


@given(st.integers(0, 2359), st.integers(0, 2359), st.integers(0, 2359))
def test_a_stretch_of_the_day_and_its_rest_cover_every_minute_once(
    start: int, end: int, hhmm: int
) -> None:
    if start != end:
        inside = rule(utc_start=start, utc_end=end).holds(1, hhmm, 0)
        assert inside != rule(utc_start=end, utc_end=start).holds(1, hhmm, 0)


@pytest.mark.parametrize("lengths", [(10, 11), (11, 10), (9, 10, 11, 12, 11, 10)])
def test_a_decision_is_made_by_the_prices_of_its_length(lengths: tuple[int, ...]) -> None:
    cheap, dear = {"prompt": "0.0001", "completion": "0.0001"}, {"prompt": "1", "completion": "1"}
    tiered = parse(cheap | {"overrides": [dear | {"min_prompt_tokens": 10}]})
    rows = snapshot(model("lab/tiered", price=tiered), model("lab/steady", price=("0.2", "0.2")))
    for tokens in lengths:
        asked = request(messages=[{"role": "user", "content": "word" * (tokens - 7)}])
        assert asked.prompt_tokens == tokens
        expected = "lab/tiered" if tokens <= 10 else "lab/steady"
        assert decide(asked, rows, telemetry(rows), POLICY, NOW).model.id == expected


@pytest.mark.parametrize(
    "conditions",
    [
        {"utc_days": [1]},
        {"utc_days": [1], "utc_start": 1100, "utc_end": 1300},
        {"utc_start": 0, "utc_end": 1200},
        {"utc_start": 2300, "utc_end": 1200},
    ],
)
def test_a_decision_is_made_by_the_prices_of_its_moment(conditions: dict[str, Any]) -> None:
    # The same vector of expectations serves decisions at several moments.
    dear = {"prompt": "0.01", "completion": "0.01"}
    cheap = {"prompt": "0.000001", "completion": "0.000001"}
    rows = snapshot(
        model("lab/changing", price=parse(cheap | {"overrides": [dear | conditions]})),
        model("lab/steady", price=parse({"prompt": "0.0001", "completion": "0.0001"})),
    )
    known = telemetry(rows)
    for hours in (0, 23, 24, 25, 36, 0, 24):
        now = Now(NOW.monotonic, NOW.wall + hours * 3600.0)
        hhmm, day, _ = now.utc()
        expected = "lab/steady" if rule(**conditions).holds(1, hhmm, day) else "lab/changing"
        assert decide(request(priority="cost"), rows, known, POLICY, now).model.id == expected
