"""Decisions by example: what is picked, what is left out and why, what is refused and how."""

import re
from collections.abc import Sequence
from itertools import combinations
from statistics import mean
from typing import Any

import pytest

from llmr import bundle
from llmr.config import ModelRow
from llmr.core.catalogue import ALIAS, BATCH, FAULT, NOT_CHAT, ROUTER, Model, Snapshot
from llmr.core.decide import Policy
from llmr.core.explain import explain, top
from llmr.core.price import Prices
from llmr.core.request import PRIORITIES
from llmr.errors import ApiError
from llmr.listing import model_rows
from llmr.own import own_rows
from tests.builders import decided, model, names, pick, prices, snapshot, telemetry

FLASH, MINI = "google/gemini-3.1-flash-lite-preview", "openai/gpt-5.4-mini"
SONNET, PRO = "anthropic/claude-sonnet-4.6", "google/gemini-3.1-pro-preview"
GPT, OPUS = "openai/gpt-5.4", "anthropic/claude-opus-4.7"

TABLE = (
    (FLASH, 400, 0.00025, 0.0015, 0.78, 1_000_000),
    (MINI, 700, 0.00075, 0.0045, 0.85, 400_000),
    (SONNET, 900, 0.003, 0.015, 0.92, 1_000_000),
    (PRO, 1100, 0.002, 0.012, 0.93, 1_000_000),
    (GPT, 1200, 0.0025, 0.015, 0.96, 1_000_000),
    (OPUS, 1500, 0.005, 0.025, 0.98, 1_000_000),
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


@pytest.fixture(scope="module")
def six() -> Snapshot:
    rows = [
        ModelRow(
            id=name,
            avg_latency_ms=latency,
            prompt_cost_per_1k=prompt,
            completion_cost_per_1k=completion,
            quality_score=quality,
            context_length=context,
        )
        for name, latency, prompt, completion, quality, context in TABLE
    ]
    return own_rows("lab", tuple(rows))


def said(tokens: int) -> list[dict[str, Any]]:
    """Messages of about so many tokens."""
    return [{"role": "user", "content": "word" * (tokens - 7)}]


def excluded(rows: Sequence[Model], **fields: Any) -> dict[str, str]:
    """Reasons by id."""
    return {row["model"]: row["reason"] for row in explain(decided(rows, **fields))["excluded"]}


def refused(rows: Snapshot | Sequence[Model], **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        decided(rows, **fields)
    return caught.value


def last_number(text: str) -> float:
    return float(re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)[-1])


# --- the pick ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tokens", [20, 500, 4000])
@pytest.mark.parametrize(
    ("priority", "expected"), [("speed", [FLASH]), ("cost", [FLASH]), ("quality", [GPT, OPUS])]
)
def test_the_six_models_of_the_table(
    six: Snapshot, priority: str, expected: list[str], tokens: int, stream: bool
) -> None:
    assert pick(six, priority=priority, stream=stream, messages=said(tokens)) in expected


@pytest.fixture(scope="module")
def four() -> dict[str, list[dict[str, Any]]]:
    """The ten first candidates of the bundled catalogue for each priority."""
    bundled = bundle.catalogue()
    return {name: top(decided(bundled, priority=name), 10) for name in PRIORITIES}


def test_four_priorities_give_four_orders(four: dict[str, list[dict[str, Any]]]) -> None:
    orders = [[row["model"] for row in rows] for rows in four.values()]
    assert all(one != other for one, other in combinations(orders, 2))
    assert len({order[0] for order in orders}) >= 3


@pytest.mark.parametrize(
    ("priority", "figure", "share"),
    [
        ("quality", "quality_score", 1.4),
        ("cost", "estimated_cost_usd", 0.25),
        ("speed", "estimated_total_ms", 0.6),
    ],
)
def test_each_priority_is_clearly_best_at_what_it_is_for(
    four: dict[str, list[dict[str, Any]]], priority: str, figure: str, share: float
) -> None:
    means = {name: mean(row[figure] for row in rows) for name, rows in four.items()}
    own = means.pop(priority)
    for other in means.values():
        assert own >= other * share if share > 1 else own <= other * share


def test_the_default_is_balanced(six: Snapshot) -> None:
    assert names(decided(six)) == names(decided(six, priority="balanced"))
    assert names(decided(six, model="auto:quality")) == names(decided(six, priority="quality"))


def test_weights_override_the_priority(six: Snapshot) -> None:
    assert pick(six, priority="cost", weights={"quality": 1}) == OPUS
    assert pick(six, priority="quality", weights={"latency": 2, "cost": 1}) == FLASH


def test_the_length_of_the_answer_decides_between_early_and_quick() -> None:
    late = model("lab/late", ttft=1.0, tpot=0.001)
    slow = model("lab/slow", ttft=0.1, tpot=0.01)
    assert pick([late, slow], priority="speed", max_tokens=300) == "lab/late"
    assert pick([late, slow], priority="speed", max_tokens=20) == "lab/slow"


# --- hard filters ---


@pytest.mark.parametrize(
    ("able", "unable", "fields", "reason"),
    [
        ({"supports": ["tools"]}, {}, {"tools": [TOOL]}, "lacks tools"),
        (
            {"supports": ["vision"]},
            {},
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
                ]
            },
            "lacks vision",
        ),
        (
            {"supports": ["json_schema", "json_object"]},
            {"supports": ["json_object"]},
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "lacks json_schema",
        ),
        ({"supports": ["reasoning"]}, {}, {"reasoning_effort": "high"}, "lacks reasoning"),
        (
            {"supports": ["reasoning"]},
            {"supports": ["reasoning"], "reasoning_mandatory": True},
            {"reasoning_effort": "none"},
            "reasoning_mandatory",
        ),
        ({"context": 9000}, {"context": 2000}, {"messages": said(6000)}, "context"),
        ({"context": None}, {"context": 2000}, {"messages": said(6000)}, "context"),
        ({"max_output": 500}, {"max_output": 400}, {"max_tokens": 450}, "max_tokens"),
        ({"max_output": None}, {"max_output": 400}, {"max_tokens": 450}, "max_tokens"),
        ({"expires": "2026-08-18"}, {"expires": "2026-08-17"}, {}, "expired"),
        ({}, {"upstream": "keyless"}, {}, "no_key"),
        ({"ttft": 0.5}, {"ttft": 0.6}, {"max_latency_ms": 550}, "max_latency_ms"),
        (
            {"price": ("0.001", "0.002")},
            {"price": ("0.001", "0.0021")},
            {"max_cost_per_1k": 0.003},
            "max_cost_per_1k",
        ),
        (
            {"price": ("0.001", "0.002")},
            {"price": ("0.001", "0.003")},
            {"max_cost_usd": 0.0025},
            "max_cost_usd",
        ),
        ({}, {"price": None}, {"max_cost_usd": 1000.0}, "max_cost_usd"),
        ({}, {"price": None}, {"max_cost_per_1k": 1000.0}, "max_cost_per_1k"),
    ],
)
def test_r09_a_row_that_cannot_do_it_is_left_out_with_its_reason(
    able: dict[str, Any], unable: dict[str, Any], fields: dict[str, Any], reason: str
) -> None:
    # The row that cannot do it is otherwise the better one by far.
    better: dict[str, Any] = {"ttft": 0.1, "price": ("0.00001", "0.00001"), "quality": 0.99}
    better |= unable
    rows = [model("lab/able", **able), model("lab/unable", **better)]
    assert excluded(rows, **fields) == {"lab/unable": reason}
    assert names(decided(rows, **fields)) == ["lab/able"]


def test_a_window_that_may_not_hold_the_prompt_is_used_only_where_none_surely_does() -> None:
    perhaps = model("lab/perhaps", context=4000, quality=0.99)
    surely = model("lab/surely", context=9000)
    small = model("lab/small", context=3000)
    fields: dict[str, Any] = {"messages": said(6000)}
    assert names(decided([perhaps, surely, small], **fields)) == ["lab/surely"]
    assert names(decided([perhaps, small], **fields)) == ["lab/perhaps"]
    assert excluded([perhaps, small], **fields) == {"lab/small": "context"}


def test_a_window_of_just_the_size_is_large_enough() -> None:
    # Ten tokens may be thirteen, and six at the least.
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": "x" * 12}]}
    sizes = {size: model(f"lab/{size}", context=size) for size in (5, 6, 12, 13)}
    assert names(decided(list(sizes.values()), **fields)) == ["lab/13"]
    assert names(decided([sizes[5], sizes[6], sizes[12]], **fields)) == ["lab/12", "lab/6"]


def test_the_room_for_the_answer_counts_in_the_window() -> None:
    tight, roomy = model("lab/tight", context=10_000, quality=0.99), model("lab/roomy")
    fields: dict[str, Any] = {"messages": said(6000)}
    assert pick([tight, roomy], **fields) == "lab/tight"
    assert pick([tight, roomy], **fields, max_tokens=4000) == "lab/roomy"


# --- prices ---


def test_an_unknown_price_is_never_shown_as_nothing() -> None:
    rows = snapshot(model("lab/unknown", price=None))
    assert explain(decided(rows))["candidates"][0]["estimated_cost_usd"] is None
    (shown,) = model_rows(rows, telemetry(rows), {}, 0.0)
    assert (shown["prompt_cost_per_1k"], shown["completion_cost_per_1k"]) == (None, None)
    assert shown["sources"]["price"] == "unknown"


@pytest.mark.parametrize("priority", PRIORITIES)
def test_an_unknown_price_ranks_below_every_usual_one(priority: str) -> None:
    dear = model("lab/dear", price=("0.1", "1"))
    unknown = model("lab/a-twin", price=None)
    assert names(decided([unknown, dear], priority=priority)) == ["lab/dear", "lab/a-twin"]


def test_half_a_price_is_an_unknown_price() -> None:
    half = Prices({"prompt": prices("0.001", "0.001").base["prompt"]})
    assert excluded([model("lab/half", price=half), model("lab/whole")], max_cost_per_1k=10.0) == {
        "lab/half": "max_cost_per_1k"
    }


# --- preferred and fallback models ---


def test_preferred_models_that_pass_come_first_by_score(six: Snapshot) -> None:
    plain = names(decided(six, priority="cost"))
    found = names(decided(six, priority="cost", preferred_models=[OPUS, "no/such", GPT]))
    assert found[:2] == [GPT, OPUS]
    assert found[2:] == [name for name in plain if name not in found[:2]]


def test_a_preferred_model_that_does_not_pass_stays_out(six: Snapshot) -> None:
    found = names(decided(six, preferred_models=[OPUS], max_cost_per_1k=0.02))
    assert OPUS not in found
    assert found == names(decided(six, max_cost_per_1k=0.02))


@pytest.mark.parametrize("barred", [ALIAS, BATCH, ROUTER, NOT_CHAT, FAULT])
@pytest.mark.parametrize("as_fallback", [False, True])
def test_no_wish_makes_auto_use_a_row_that_is_never_a_candidate(
    barred: str, as_fallback: bool
) -> None:
    rows = [model("lab/plain"), model("lab/odd", barred=barred)]
    policy = Policy(frozenset(("lab",)), ("lab/odd",) if as_fallback else ())
    wishes: dict[str, Any] = {} if as_fallback else {"preferred_models": ["lab/odd"]}
    assert names(decided(rows, policy=policy, **wishes)) == ["lab/plain"]


def test_a_preferred_model_in_the_grey_zone_gives_way_to_one_that_surely_fits() -> None:
    rows = [model("lab/surely"), model("lab/perhaps", context=7000)]
    fields: dict[str, Any] = {"preferred_models": ["lab/perhaps"], "messages": said(6000)}
    assert names(decided(rows, **fields)) == ["lab/surely"]
    assert excluded(rows, **fields) == {"lab/perhaps": "context"}


def test_fallback_models_come_second_in_their_own_order(six: Snapshot) -> None:
    plain = names(decided(six, priority="cost"))
    policy = Policy(frozenset(("lab",)), (OPUS, "no/such", SONNET))
    found = names(decided(six, priority="cost", policy=policy))
    assert found[:3] == [plain[0], OPUS, SONNET]
    assert sorted(found) == sorted(plain)


def test_r09_a_fallback_model_that_cannot_do_it_is_left_out() -> None:
    rows = [model("lab/able", supports=["tools"]), model("lab/named")]
    policy = Policy(frozenset(("lab",)), ("lab/named",))
    assert names(decided(rows, policy=policy, tools=[TOOL])) == ["lab/able"]
    assert "lab/named" in names(decided(rows, policy=policy))


def test_fallback_models_are_never_for_a_pinned_model(six: Snapshot) -> None:
    policy = Policy(frozenset(("lab",)), (OPUS,))
    assert names(decided(six, policy=policy, model=MINI)) == [MINI]
    assert names(decided(six, policy=policy, models=[MINI, GPT])) == [MINI, GPT]


# --- named models ---


def test_a_pinned_model_is_used_whatever_the_catalogue_says_of_it() -> None:
    row = model("lab/poor", context=10, max_output=5, expires="2020-01-01", price=None)
    wishes: dict[str, Any] = {
        "max_latency_ms": 1,
        "preferred_models": ["lab/rich"],
    }
    found = decided(
        [row, model("lab/rich")],
        model="lab/poor",
        tools=[TOOL],
        max_tokens=4000,
        messages=said(600),
        **wishes,
    )
    assert names(found) == ["lab/poor"]


@pytest.mark.parametrize("name", ["lab/one:nitro", "lab/one:floor", "lab/one:online"])
def test_a_serving_variant_stands_for_its_row(name: str) -> None:
    assert names(decided([model("lab/one"), model("lab/two")], model=name)) == ["lab/one"]


def test_a_variant_that_has_a_row_is_that_row() -> None:
    rows = [model("lab/one"), model("lab/one:free", price=("0", "0"))]
    assert names(decided(rows, model="lab/one:free")) == ["lab/one:free"]


def test_a_list_is_tried_in_its_order_unknown_names_left_out(six: Snapshot) -> None:
    assert names(decided(six, models=[GPT, "no/such", FLASH, GPT])) == [GPT, FLASH]
    assert names(decided(six, models=[GPT, FLASH], model=OPUS)) == [OPUS, GPT, FLASH]
    assert names(decided(six, models=[GPT, FLASH], model=FLASH)) == [GPT, FLASH]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("openai/gpt-5.4-mni", MINI),
        ("gpt-5.4-mini", MINI),
        ("claude-opus-4.7", OPUS),
        ("Anthropic/Claude-Sonnet-4.6", SONNET),
        ("google/gemini-3.1-pro", PRO),
    ],
)
def test_an_unknown_name_gives_a_404_with_the_nearest_names(
    six: Snapshot, name: str, near: str
) -> None:
    error = refused(six, model=name)
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert name in error.message
    assert near in error.message


@pytest.mark.parametrize("name", ["x" * 256, "lab/one:unknown-variant", ":free", "/", "é"])
def test_an_odd_unknown_name_gives_a_short_404(name: str) -> None:
    error = refused([model("lab/one")], model=name)
    assert (error.status, error.code) == (404, "model_not_found")
    assert len(error.message) < 500


@pytest.mark.parametrize("barred", [ALIAS, BATCH, ROUTER, NOT_CHAT, FAULT])
def test_rows_that_auto_never_picks_can_be_pinned(barred: str) -> None:
    rows = [model("lab/plain"), model("lab/odd", barred=barred, price=("0", "0"), quality=1.0)]
    assert names(decided(rows, model="lab/odd")) == ["lab/odd"]
    assert names(decided(rows)) == ["lab/plain"]
    assert excluded(rows) == {"lab/odd": barred}


def test_fb_names_of_an_own_upstream_are_never_picked_by_auto() -> None:
    own = own_rows("lab", (ModelRow(id="fb-ok", quality_score=1.0), ModelRow(id="lab/plain")))
    assert names(decided(own)) == ["lab/plain"]
    assert names(decided(own, model="fb-ok")) == ["fb-ok"]


# --- refusals ---


@pytest.mark.parametrize(
    ("param", "value"),
    [("max_latency_ms", 399), ("max_cost_per_1k", 0.0017), ("max_cost_usd", 0.001)],
)
def test_a_limit_nobody_meets_is_named_with_the_nearest_value_which_then_passes(
    six: Snapshot, param: str, value: float
) -> None:
    error = refused(six, **{param: value})
    assert (error.status, error.code, error.param) == (400, "no_candidates", param)
    found = re.search(r"nearest value that does is (\S+) \((\S+)\)", error.message)
    assert found
    assert float(found[1]) < value * 10
    assert pick(six, **{param: float(found[1])}) == found[2] == FLASH


def test_the_most_tokens_any_model_gives_is_named_and_passes() -> None:
    rows = [model("lab/one", max_output=4000), model("lab/two", max_output=6000)]
    error = refused(rows, max_tokens=7000)
    assert (error.status, error.code, error.param) == (400, "no_candidates", "max_tokens")
    assert pick(rows, max_tokens=int(last_number(error.message.rstrip(".")))) == "lab/two"


def test_r09_the_largest_window_is_named() -> None:
    rows = [model("lab/one", context=1000), model("lab/two", context=3000)]
    error = refused(rows, messages=said(6000))
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "messages")
    assert last_number(error.message.rstrip(".")) == 3000
    assert pick(rows, messages=said(2900)) == "lab/two"


def test_r09_an_ability_nobody_has_is_named() -> None:
    error = refused([model("lab/one", supports=["vision"])], tools=[TOOL])
    assert (error.status, error.code) == (400, "no_candidates")
    assert "tools" in error.message


def test_no_effort_where_all_must_reason_is_named() -> None:
    rows = [model("lab/one", supports=["reasoning"], reasoning_mandatory=True)]
    error = refused(rows, reasoning_effort="none")
    assert (error.status, error.param) == (400, "reasoning_effort")
    assert pick(rows) == "lab/one"


def test_limits_that_only_together_leave_nothing_are_all_named(six: Snapshot) -> None:
    error = refused(six, max_latency_ms=300, max_cost_per_1k=0.0001, tools=[TOOL])
    assert (error.status, error.code) == (400, "no_candidates")
    assert "tools" in error.message


@pytest.mark.parametrize("param", ["max_cost_per_1k", "max_cost_usd"])
def test_no_value_is_promised_where_every_price_is_unknown(param: str) -> None:
    error = refused([model("lab/one", price=None)], **{param: 0.5})
    assert (error.status, error.code) == (400, "no_candidates")
    assert param in error.message
    assert "inf" not in error.message


@pytest.mark.parametrize("fields", [{}, {"model": "openrouter/one"}])
def test_a_missing_key_is_named(fields: dict[str, Any]) -> None:
    rows = [model("openrouter/one", upstream="openrouter")]
    error = refused(rows, policy=Policy(frozenset()), **fields)
    assert (error.status, error.code) == (503, "no_upstream_key")
    assert "OPENROUTER_API_KEY" in error.message


def test_the_missing_key_of_another_upstream_is_named() -> None:
    error = refused([model("lab/one")], policy=Policy(frozenset(("openrouter",))))
    assert "upstreams.lab.api_key" in error.message


def test_an_empty_catalogue_is_a_503() -> None:
    error = refused([])
    assert (error.status, error.code, error.retryable) == (503, "empty_catalogue", True)
