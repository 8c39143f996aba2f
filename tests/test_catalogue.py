"""The catalogue: real rows with their traps, hostile rows, the bundled snapshot, own rows."""

import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmr import bundle
from llmr.config import ModelRow
from llmr.core import capability, openrouter
from llmr.core.catalogue import ALIAS, BATCH, NOT_CHAT, ROUTER, Model, Snapshot
from llmr.core.decide import Now, Policy
from llmr.core.explain import explain
from llmr.core.quality.ability import PUBLISHED_SD
from llmr.core.quality.facts import Facts
from llmr.core.quality.placing import place
from llmr.core.sourced import Figure
from llmr.errors import ApiError
from llmr.own import own_rows
from tests.builders import NOW, decided, names

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "openrouter-rows.json"
ROWS: list[dict[str, Any]] = json.loads(FIXTURE.read_bytes())
BY_ID = {row["id"]: row for row in ROWS}
DATA = pathlib.Path(bundle.__file__).parent / "data"
POLICY = Policy(frozenset(("openrouter",)))


def read(rows: list[Any]) -> Snapshot:
    return openrouter.snapshot(rows, upstream="openrouter", captured="2026-08-18", recorded={})


REAL = read(ROWS)


def real(name: str) -> Model:
    return REAL.models[REAL.by_id[name][0]]


def is_finite(figure: Figure) -> bool:
    return math.isfinite(figure.value) and figure.value >= 0


# --- the traps of real rows ---


@pytest.mark.parametrize(
    ("name", "barred"),
    [
        ("openrouter/auto", ROUTER),
        ("openrouter/fusion", ROUTER),
        ("openrouter/free", ROUTER),
        ("anthropic/claude-sonnet-4.6:batch", BATCH),
        ("~anthropic/claude-sonnet-latest", ALIAS),
        ("~deepseek/deepseek-v4-flash-latest", ALIAS),
        ("google/gemini-3.1-flash-image", NOT_CHAT),
        ("google/lyria-3-pro-preview", NOT_CHAT),
        ("openai/gpt-audio", NOT_CHAT),
        ("openai/gpt-oss-safeguard-20b", NOT_CHAT),
        ("meta-llama/llama-guard-4-12b", NOT_CHAT),
        ("nvidia/nemotron-3.5-content-safety:free", NOT_CHAT),
        ("morph/morph-v3-fast", NOT_CHAT),
        ("relace/relace-apply-3", NOT_CHAT),
        ("google/gemma-4-31b-it:free", None),
        ("openai/gpt-oss-20b", None),
        ("qwen/qwen-plus-2025-07-28:thinking", None),
        ("deepseek/deepseek-v4-pro", None),
    ],
)
def test_rows_that_are_no_candidates(name: str, barred: str | None) -> None:
    assert real(name).barred == barred
    assert names(decided(REAL, policy=POLICY, model=name)) == [name]


@pytest.mark.parametrize("priority", ["speed", "cost", "quality", "balanced"])
def test_auto_falls_into_no_trap(priority: str) -> None:
    told = explain(decided(REAL, policy=POLICY, priority=priority))
    candidates = {row["model"] for row in told["candidates"]}
    assert candidates == {m.id for m in REAL.models if m.barred is None}
    assert len(candidates) == 19
    assert all(row["estimated_cost_usd"] is not None for row in told["candidates"])


@pytest.mark.parametrize("name", ["openrouter/auto", "openrouter/fusion"])
def test_a_price_of_minus_one_is_unknown(name: str) -> None:
    assert not real(name).prices.known
    assert real(name).price_source == "unknown"


@pytest.mark.parametrize(
    ("name", "change", "barred"),
    [
        ("~anthropic/claude-sonnet-latest", {"alias_target": None}, ALIAS),
        ("openai/gpt-5.4", {"alias_target": {"slug": "openai/gpt-5.5"}}, ALIAS),
        ("openai/gpt-5.4", {"pricing": {"prompt": "-1", "completion": "-1"}}, ROUTER),
        ("openai/gpt-5.4", {"pricing": {"prompt": "0", "completion": "-1"}}, ROUTER),
        ("openai/gpt-5.4", {"id": "some/model-router"}, ROUTER),
        ("openai/gpt-5.4", {"architecture": {"output_modalities": ["text", "image"]}}, NOT_CHAT),
    ],
)
def test_one_sign_of_a_trap_is_enough(name: str, change: dict[str, Any], barred: str) -> None:
    assert read([BY_ID[name] | change]).models[0].barred == barred


def test_equal_rows_have_an_equal_version_and_others_another() -> None:
    assert read(deepcopy(ROWS)).version == REAL.version
    assert read(ROWS[1:]).version != REAL.version
    cheaper = BY_ID["openai/gpt-5.4"] | {"pricing": {"prompt": "0", "completion": "0"}}
    assert read([*ROWS, cheaper]).version != REAL.version


def test_free_rows_are_known_to_be_free() -> None:
    assert {m.id for m in REAL.models if m.free and m.barred is None} == {
        "google/gemma-4-31b-it:free",
        "nvidia/nemotron-nano-12b-v2-vl:free",
    }
    assert real("google/gemma-4-31b-it:free").prices.known


@pytest.mark.parametrize(
    ("hhmm", "prompt"),
    [
        *((hhmm, "0.66") for hhmm in (0, 59, 400, 559, 1000, 2359)),
        *((hhmm, "1.32") for hhmm in (100, 359, 600, 959)),
    ],
)
def test_prices_by_the_hour(hhmm: int, prompt: str) -> None:
    found = real("deepseek/deepseek-v4-pro").prices.at(1000, hhmm)
    assert found["prompt"] == Decimal(prompt) / 10**6
    assert found["completion"] == Decimal(prompt) * 3 / 10**6
    now = Now(0.0, 1_786_924_800.0 + hhmm // 100 * 3600 + hhmm % 100 * 60)
    decision = decided(REAL, policy=POLICY, now=now, model="deepseek/deepseek-v4-pro")
    shown = decision.look().terms(decision.chain[0])
    sent, out = decision.request.prompt_tokens, decision.request.output_tokens
    factor = decision.model.lengths.prompt  # of DeepSeek's tokenizer
    assert shown.cost_usd == pytest.approx(float(prompt) * (sent * factor + 3 * out) / 1e6)


@pytest.mark.parametrize(("tokens", "prompt"), [(200_000, "2"), (200_001, "4")])
def test_prices_by_the_length_of_the_prompt(tokens: int, prompt: str) -> None:
    found = real("google/gemini-3.1-pro-preview").prices.at(tokens)
    assert found["prompt"] == Decimal(prompt) / 10**6


def test_an_override_inherits_the_prices_it_does_not_name() -> None:
    prices = real("google/gemini-3.1-pro-preview").prices
    assert prices.at(300_000).keys() == prices.base.keys()


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("deepseek/deepseek-v4-flash", 1_024_000),
        ("qwen/qwen3.6-27b", 131_072),
        ("openai/gpt-5.4", 1_050_000),
        ("openrouter/fusion", 1_000_000),
    ],
)
def test_the_smaller_window_counts(name: str, window: int) -> None:
    assert real(name).context_length == window


def test_a_model_that_always_reasons_is_left_out_where_none_is_wanted() -> None:
    told = explain(decided(REAL, policy=POLICY, reasoning_effort="none"))
    reasons = {row["model"]: row["reason"] for row in told["excluded"]}
    always = {m.id for m in REAL.models if m.reasoning_mandatory and m.barred is None}
    assert {"google/gemini-3.1-pro-preview", "openai/gpt-oss-20b"} <= always
    assert {name for name, why in reasons.items() if why == "reasoning_mandatory"} == always


@pytest.mark.parametrize(
    ("name", "day", "out"),
    [
        ("z-ai/glm-5-turbo", 0.0, False),
        ("z-ai/glm-5-turbo", 9e8, False),
        ("nvidia/nemotron-nano-12b-v2-vl:free", 6.0, False),
        ("nvidia/nemotron-nano-12b-v2-vl:free", 7.0, True),
        ("z-ai/glm-4.5", 7.0, False),
        ("z-ai/glm-4.5", 137.0, True),
    ],
)
def test_a_row_ends_on_its_day_but_never_on_a_sentinel(name: str, day: float, out: bool) -> None:
    assert (real(name).expires is None) is (name == "z-ai/glm-5-turbo")
    wall = NOW.wall + (day * 86_400 if day < 1e6 else day)
    told = explain(decided(REAL, policy=POLICY, now=Now(0.0, wall)))
    reasons = {row["model"]: row["reason"] for row in told["excluded"]}
    assert reasons.get(name) == ("expired" if out else None)


def test_a_price_per_image_is_no_price_per_token() -> None:
    row = deepcopy(BY_ID["google/gemini-3.6-flash"])
    row["pricing"] |= {"image": "100", "audio": "100"}
    costs = [
        decided(read([one]), policy=POLICY, model=row["id"]).look().terms(0).cost_usd
        for one in (row, BY_ID[row["id"]])
    ]
    assert costs[0] == costs[1] is not None


def test_abilities_come_from_parameters_and_modalities() -> None:
    supports = capability.names(real("google/gemini-3.1-pro-preview").supports)
    assert {"tools", "json_schema", "reasoning", "vision", "audio", "file", "video"} <= set(
        supports
    )
    assert "vision" not in capability.names(real("deepseek/deepseek-v4-flash").supports)


# --- quality and prices ---

MAPS: list[Callable[[float], float]] = [
    lambda x: x * 0.7 - 3,
    lambda x: math.exp(x / 9),
    lambda x: x**3,
    lambda x: -1 / (x + 1),
    math.log1p,
]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 700)), min_size=len(ROWS), max_size=len(ROWS)),
    st.sampled_from(MAPS),
)
def test_rebased_indices_give_the_same_quality(
    tenths: list[int | None], change: Callable[[float], float]
) -> None:
    def with_indices(value: Callable[[float], float]) -> dict[str, Figure]:
        rows = deepcopy(ROWS)
        for row, tenth in zip(rows, tenths, strict=True):
            figure = None if tenth is None else value(tenth / 10)
            row["benchmarks"] = {"artificial_analysis": {"intelligence_index": figure}}
        return {m.id: m.quality for m in read(rows).models}

    assert with_indices(float) == with_indices(change)


def test_places_count_distinct_indices_from_the_lowest_to_the_highest() -> None:
    rows = [
        Facts(f"author-{'abcd'[at]}/model", 1.0, indices={"intelligence": index})
        for at, index in enumerate((7.0, 1.0, 7.0, 9.0))
    ]
    placed = place(rows)
    found = [placed[row.id].probability for row in rows]
    assert found == pytest.approx([0.625, 0.3, 0.625, 0.95], abs=0.03)
    assert found[0] == found[2]


def test_a_higher_index_never_means_a_lower_quality() -> None:
    pairs = sorted(
        (row["benchmarks"]["artificial_analysis"]["intelligence_index"], real(row["id"]).quality)
        for row in ROWS
        if "benchmarks" in row and real(row["id"]).barred is None
    )
    values = [figure.value for _, figure in pairs]
    assert values == sorted(values)
    assert {figure.source for _, figure in pairs} == {"published"}


def test_a_guess_is_no_surer_than_a_published_figure() -> None:
    guessed = [m.quality for m in REAL.models if m.quality.source == "estimated"]
    assert guessed
    assert all((figure.sd or 0) > PUBLISHED_SD for figure in guessed)
    assert all(figure.cautious < figure.value for figure in guessed)


@pytest.mark.parametrize(
    "pricing", [None, {}, {"prompt": "0.1"}, {"prompt": "x", "completion": "0"}, "free", [1]]
)
def test_a_price_is_never_estimated(pricing: Any) -> None:
    twin = BY_ID["openai/gpt-5.4"] | {"id": "openai/gpt-5.4-twin", "pricing": pricing}
    found = read([*ROWS, twin])
    row = found.models[found.by_id["openai/gpt-5.4-twin"][0]]
    assert (row.prices.known, row.price_source, row.free) == (False, "unknown", False)


# --- hostile rows ---

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        (
            "text",
            "tools",
            "-1",
            "0",
            "1e400",
            "9e999999",
            "1e-999999",
            "NaN",
            "Infinity",
            "2026-01-01",
        )
    ),
    st.sampled_from((10**400, -(10**400), 2**63, 1e308)),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield (*path, key)
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*path, key))


WORDS = sorted(
    {key for row in ROWS for path in places(row) for key in path if isinstance(key, str)}
)
KEYS = st.one_of(st.sampled_from([*WORDS, "kind", "utc_days", "max_tokens"]), st.text(max_size=5))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=15,
)


def received(value: Any) -> Any:
    """The value as it comes out of the decoder of replies."""
    return msgspec.json.decode(json.dumps(value))


def usable(found: Snapshot) -> None:
    """Every row has figures a decision can be made by."""
    for row in found.models:
        assert is_finite(row.ttft_s)
        assert is_finite(row.tpot_s)
        assert is_finite(row.quality)
        assert 0 <= row.quality.value <= 1
        assert row.barred or all(p.is_finite() and p >= 0 for p in row.prices.base.values())
    with suppress(ApiError):
        explain(decided(found, policy=POLICY))


@given(st.lists(JSON, max_size=4))
def test_no_rows_at_all_like_rows_are_an_error(rows: list[Any]) -> None:
    usable(read(received(rows)))


@given(st.lists(st.dictionaries(KEYS, JSON, max_size=9), max_size=5))
def test_no_row_is_an_error(rows: list[dict[str, Any]]) -> None:
    usable(read(received([{"id": f"some/{at}", **row} for at, row in enumerate(rows)])))


@settings(max_examples=300)
@given(st.data(), st.one_of(SCALARS, JSON))
def test_no_field_of_a_real_row_is_an_error(data: st.DataObject, value: Any) -> None:
    row = deepcopy(data.draw(st.sampled_from(ROWS)))
    *path, last = data.draw(st.sampled_from(list(places(row))))
    inner: Any = row
    for key in path:
        inner = inner[key]
    inner[last] = value
    usable(read(received([row, BY_ID["openai/gpt-5.4"]])))


@pytest.mark.parametrize(
    "change",
    [
        {"created": 10**400},
        {"benchmarks": {"artificial_analysis": {"intelligence_index": 10**400}}},
        {"pricing": {"prompt": "9e999999", "completion": "9e999999"}},
        {"id": f"some/model-{'9' * 400}b"},
        {"context_length": 10**400, "top_provider": {"max_completion_tokens": 10**400}},
        {"id": "x" * 100_000},
    ],
    ids=["created", "index", "price", "size", "window", "id"],
)
def test_numbers_beyond_all_bounds_are_no_error(change: dict[str, Any]) -> None:
    usable(read(received([BY_ID["openai/gpt-5.4"] | change, BY_ID["openai/gpt-5.4-mini"]])))


def test_one_absurd_row_does_not_spoil_the_guesses_of_the_others() -> None:
    absurd = BY_ID["openai/gpt-5.4"] | {
        "id": "some/absurd",
        "pricing": {"prompt": "1e400", "completion": "1"},
    }
    before = {m.id: m.quality.value for m in REAL.models}
    after = {m.id: m.quality.value for m in read([*ROWS, absurd]).models}
    assert all(abs(after[name] - value) < 0.15 for name, value in before.items())


def test_an_id_given_twice_is_one_row() -> None:
    found = read([BY_ID["openai/gpt-5.4"], BY_ID["openai/gpt-5.4"] | {"context_length": 5000}])
    assert [m.context_length for m in found.models] == [5000]


# --- the bundled snapshot ---


def test_the_bundled_catalogue_is_whole() -> None:
    found = bundle.catalogue()
    rows = [found.models[i] for i in found.routable]
    assert 300 <= len(rows) <= 400
    assert len({row.id for row in rows}) == len(rows)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found.captured["openrouter"])
    assert "Artificial Analysis" in found.citation
    for row in rows:
        assert row.price_source == ("published" if row.prices.known else "unknown")
        assert 0 <= row.quality.value <= 1
        assert row.quality.sd
        assert row.quality.source in ("published", "estimated")
        assert {row.ttft_s.source, row.tpot_s.source} <= {"recorded", "estimated"}
        assert 0.05 < row.ttft_s.value < 200
        assert 0.0005 < row.tpot_s.value < 1
        assert row.context_length


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


@pytest.mark.parametrize("name", ["catalogue.json", "latency.json", "boards.json"])
def test_the_data_files_hold_facts_with_date_and_source(name: str) -> None:
    parsed = json.loads((DATA / name).read_bytes())
    assert re.match(r"20\d\d-\d\d-\d\d", parsed["captured"])
    assert parsed.get("sources") or parsed["source"]
    rows = parsed.get("data") or parsed.get("rows") or parsed["boards"]
    assert not any("description" in row for row in rows if isinstance(row, dict))
    assert max(len(text) for text in texts(rows)) <= 120


# --- own rows ---


def test_own_rows_are_as_their_owner_says() -> None:
    rows = (
        ModelRow(
            id="large",
            context_length=128_000,
            prompt_cost_per_1k=0.001,
            completion_cost_per_1k=0.002,
            avg_latency_ms=500,
            tokens_per_s=50,
            quality_score=0.8,
            supports=("tools", "json_schema"),
        ),
        ModelRow(id="bare", prompt_cost_per_1k=0),
    )
    large, bare = own_rows("lab", rows).models
    assert large.prices.base == {"prompt": Decimal("0.000001"), "completion": Decimal("0.000002")}
    assert (large.ttft_s, large.tpot_s) == (Figure(0.5, "configured"), Figure(0.02, "configured"))
    assert (large.quality, large.price_source) == (Figure(0.8, "configured"), "configured")
    assert capability.names(large.supports) == [
        *("tools", "json_schema", "json_object", "tool_choice", "max_tokens"),
    ]
    assert (bare.price_source, bare.prices.known, bare.free) == ("unknown", False, False)
    assert (bare.quality.source, bare.ttft_s.source) == ("unknown", "estimated")
