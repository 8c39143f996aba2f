"""What routing reads in a chat request: names, wishes, needs, sizes."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmr.cache.key import cache_key
from llmr.core import capability
from llmr.core.body import Body
from llmr.core.decide import decide
from llmr.core.request import PRIORITIES, Request, grid, parse
from llmr.errors import ApiError
from tests.builders import NOW, POLICY, model, raw, request, snapshot, telemetry
from tests.test_body import JSON

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def said(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts), **more}]}


def needs(**fields: Any) -> set[str]:
    return set(capability.names(request(**fields).needs))


def refused(headers: dict[str, str] | None = None, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        request(headers, **fields)
    assert caught.value.status == 400
    return caught.value


# --- which model ---


@pytest.mark.parametrize(
    ("fields", "mode", "models"),
    [
        ({}, "auto", ()),
        ({"model": None}, "auto", ()),
        ({"model": "auto"}, "auto", ()),
        ({"model": "auto:speed"}, "auto", ()),
        ({"model": "lab/one"}, "pinned", ("lab/one",)),
        ({"model": "lab/one:nitro"}, "pinned", ("lab/one:nitro",)),
        ({"model": "automatic"}, "pinned", ("automatic",)),
        ({"model": "openrouter/auto"}, "pinned", ("openrouter/auto",)),
        ({"model": " lab/odd "}, "pinned", (" lab/odd ",)),
        ({"models": ["a", "b"]}, "list", ("a", "b")),
        ({"models": ["a", "b", "a"]}, "list", ("a", "b")),
        ({"model": "auto", "models": ["a"]}, "list", ("a",)),
        ({"model": "c", "models": ["a", "b"]}, "list", ("c", "a", "b")),
        ({"model": "b", "models": ["a", "b"]}, "list", ("a", "b")),
        ({"model": "a", "models": []}, "pinned", ("a",)),
        ({"models": None}, "auto", ()),
    ],
)
def test_the_models_asked_for(fields: dict[str, Any], mode: str, models: tuple[str, ...]) -> None:
    asked = request(**fields)
    assert (asked.mode, asked.models) == (mode, models)


def test_without_a_model_only_route_may_choose() -> None:
    with pytest.raises(ApiError) as caught:
        parse(Body(raw()), {})
    assert (caught.value.status, caught.value.code) == (400, "missing_model")
    assert caught.value.param == "model"
    assert parse(Body(raw(model="auto")), {}).mode == "auto"


# --- wishes ---


@pytest.mark.parametrize(
    ("fields", "headers", "attribute", "expected"),
    [
        ({"priority": "cost"}, {"x-llmr-priority": "cost"}, "priority", "cost"),
        (
            {"weights": {"latency": 1, "quality": 3}},
            {"x-llmr-weights": '{"latency": 1, "quality": 3}'},
            "weights",
            (0.25, 0.0, 0.75),
        ),
        (
            {"preferred_models": ["a", "b"]},
            {"x-llmr-preferred-models": "a, b"},
            "preferred",
            ("a", "b"),
        ),
        ({"max_latency_ms": 900}, {"x-llmr-max-latency-ms": "900"}, "max_latency_ms", 900),
        (
            {"max_cost_per_1k": 0.005},
            {"x-llmr-max-cost-per-1k": "0.005"},
            "max_cost_per_1k",
            0.005,
        ),
        ({"max_cost_usd": 1e-3}, {"x-llmr-max-cost-usd": "1e-3"}, "max_cost_usd", 0.001),
        ({"deadline_ms": 2500}, {"x-llmr-deadline-ms": "2500"}, "deadline_ms", 2500),
    ],
)
def test_every_wish_in_the_body_and_as_a_header(
    fields: dict[str, Any], headers: dict[str, str], attribute: str, expected: Any
) -> None:
    assert getattr(request(), attribute) != expected
    assert getattr(request(**fields), attribute) == expected
    assert getattr(request(headers), attribute) == expected


def test_the_body_wins_over_the_header() -> None:
    headers = {
        "x-llmr-priority": "cost",
        "x-llmr-max-cost-usd": "5",
        "x-llmr-preferred-models": "x",
        "x-llmr-weights": '{"cost": 1}',
    }
    asked = request(
        headers,
        priority="speed",
        max_cost_usd=7,
        preferred_models=["y"],
        weights={"latency": 1},
    )
    assert (asked.priority, asked.max_cost_usd, asked.preferred) == ("speed", 7, ("y",))
    assert asked.weights == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("name", PRIORITIES)
def test_priorities_and_their_weights(name: str) -> None:
    for asked in (request(priority=name), request(model=f"auto:{name}")):
        assert (asked.priority, asked.weights) == (name, PRIORITIES[name])
    assert PRIORITIES == {
        "speed": (0.7, 0.2, 0.1),
        "cost": (0.2, 0.7, 0.1),
        "quality": (0.1, 0.2, 0.7),
        "balanced": (0.4, 0.3, 0.3),
    }


def test_the_configured_default_and_its_weights() -> None:
    def read(**fields: Any) -> Request:
        own = (0.5, 0.25, 0.25)
        return parse(
            Body(raw(**fields)), {}, priority="balanced", balanced=own, model_optional=True
        )

    assert read().weights == (0.5, 0.25, 0.25)
    assert read(priority="speed").weights == PRIORITIES["speed"]
    assert parse(Body(raw(model="auto")), {}, priority="cost").priority == "cost"


@given(st.dictionaries(st.sampled_from(("latency", "cost", "quality")), st.floats(0, 1e12)))
def test_weights_are_shares(weights: dict[str, float]) -> None:
    if not any(weights.values()):
        assert refused(weights=weights).param == "weights"
        return
    found = request(weights=weights).weights
    assert sum(found) == pytest.approx(1.0)
    given_ = [weights.get(key, 0.0) for key in ("latency", "cost", "quality")]
    assert found == pytest.approx([weight / sum(given_) for weight in given_])


UNUSABLE: list[tuple[str, list[Any]]] = [
    ("model", [5, [], {}, "", " ", "auto:fast", "auto:", "x" * 257]),
    ("models", ["a", [1], {}, [None]]),
    ("priority", [5, "fast", "Speed", ["cost"]]),
    ("models", [["x" * 257], [f"lab/{at}" for at in range(65)]]),
    ("preferred_models", [["x" * 257], [f"lab/{at}" for at in range(65)]]),
    ("weights", [5, "cost", [1], {}, {"cost": -1, "quality": 2}, {"price": 1}, {"cost": "1"}]),
    (
        "weights",
        [{"cost": 0}, {"cost": None}, {"cost": 1, "price": 1}, {"cost": 1e308, "quality": 1e308}],
    ),
    ("preferred_models", ["a", [1], {}, 5]),
    ("max_latency_ms", ["1", 0, -1, [], True]),
    ("max_cost_per_1k", ["1", 0, -1, [], True]),
    ("max_cost_usd", ["1", 0, -1e-9, {}, True]),
    ("deadline_ms", ["1", 0, -1, [], True]),
    ("messages", [None, [], {}, "x", [1], [[]], [{}], [{"content": "x"}]]),
    ("messages", [[{"role": 1, "content": "x"}], [{"role": "user", "content": {"a": 1}}]]),
    ("messages", [[{"role": "user", "content": 5}], [{"role": "user", "content": ["x"]}]]),
    ("tools", [{}, "x", 5, True]),
    ("stream", [1, "true", [], {}]),
    ("max_tokens", [1.5, "5", [], True]),
    ("max_completion_tokens", [1.5, "5", [], True]),
    ("n", ["x", 1.5, [], True]),
    ("response_format", ["json_object", 5, [], {"type": 5}]),
    ("reasoning_effort", [5, ["high"], True]),
    ("reasoning", [True, "high", [], {"effort": 5}, {"max_tokens": "x"}]),
    ("modalities", ["image", [1], {}]),
]


@pytest.mark.parametrize(("param", "values"), UNUSABLE)
def test_a_value_routing_cannot_use_is_named(param: str, values: list[Any]) -> None:
    for value in values:
        error = refused(**{param: value})
        assert error.param == param, value
        assert repr(param) in error.message or param in ("model", "priority"), value


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("priority", "fast"),
        ("weights", "cost=1"),
        ("weights", "[1]"),
        ("weights", '{"cost": NaN}'),
        ("weights", '{"cost": -1}'),
        ("max-latency-ms", "soon"),
        ("max-latency-ms", ""),
        ("max-cost-per-1k", "-1"),
        ("max-cost-usd", "nan"),
        ("max-cost-usd", "inf"),
        ("deadline-ms", "0"),
    ],
)
def test_a_header_routing_cannot_use_is_named(header: str, text: str) -> None:
    error = refused({f"x-llmr-{header}": text})
    assert error.param == header.replace("-", "_")


# --- needs ---


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, set()),
        ({"tools": [TOOL]}, {"tools"}),
        ({"tools": []}, set()),
        ({"tools": None}, set()),
        (said({"type": "text", "text": "Look."}, PICTURE), {"vision"}),
        (said({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}), {"audio"}),
        (said({"type": "file", "file": {"file_data": "AA"}}), {"file"}),
        (said({"type": "video_url", "video_url": {"url": "x"}}), {"video"}),
        (said({**PICTURE, "text": ""}), {"vision"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        ({"response_format": {"type": "json_object"}}, {"json_object"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": None}, set()),
        ({"reasoning_effort": "low"}, {"reasoning"}),
        ({"reasoning_effort": "none"}, set()),
        ({"reasoning": {"effort": "high"}}, {"reasoning"}),
        ({"reasoning": {"enabled": True}}, {"reasoning"}),
        ({"reasoning": {"max_tokens": 2000}}, {"reasoning"}),
        ({"reasoning": {"enabled": False}}, set()),
        ({"reasoning": {"exclude": True}}, set()),
        ({"reasoning_effort": None, "reasoning": {"effort": "high"}}, {"reasoning"}),
        ({"modalities": ["text", "image"]}, {"image_output"}),
        ({"modalities": ["text"]}, set()),
        (
            {"tools": [TOOL], "response_format": {"type": "json_schema"}, **said(PICTURE)},
            {"tools", "json_schema", "vision"},
        ),
    ],
)
def test_needs(fields: dict[str, Any], expected: set[str]) -> None:
    assert needs(**fields) == expected


def test_pictures_anywhere_in_the_conversation_count() -> None:
    messages = [
        {"role": "user", "content": [PICTURE]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": [PICTURE], "tool_call_id": "1"},
        {"role": "user", "content": "And?"},
    ]
    assert needs(messages=messages) == {"vision"}


# --- sizes ---


@given(st.floats(1, 1e7))
def test_the_grid_is_finer_than_the_estimate(tokens: float) -> None:
    assert abs(grid(tokens) - tokens) <= 0.045 * tokens + 0.5
    assert grid(tokens) <= grid(tokens * 1.1)


# Characters per token as measured with one large vocabulary, and the bytes of a character.
@pytest.mark.parametrize(
    ("letter", "per_token"),
    [
        pytest.param("e", 4.48, id="english"),
        pytest.param("e", 4.34, id="python"),
        pytest.param("e", 5.26, id="typescript"),
        pytest.param("e", 3.61, id="compact-json"),
        pytest.param("e", 3.54, id="indented-json"),
        pytest.param("e", 3.95, id="german-spanish-french"),
        pytest.param("字", 1.80, id="chinese"),
    ],
)
@pytest.mark.parametrize("length", [200, 5000, 400_000])
def test_the_estimate_lies_within_its_spread(letter: str, per_token: float, length: int) -> None:
    found = request(messages=[{"role": "user", "content": letter * length}]).prompt_tokens
    assert 0.6 * found <= length / per_token + 7 <= 1.3 * found


def test_all_that_is_sent_as_text_counts() -> None:
    text = "word " * 400
    bare = request(messages=[{"role": "user", "content": "x"}]).prompt_tokens
    for fields in (
        {"messages": [{"role": "user", "content": text}]},
        said({"type": "text", "text": text}),
        {"messages": [{"role": "system", "content": text}, {"role": "user", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"arguments": text}]}]},
        {"tools": [{"type": "function", "function": {"name": "x", "description": text}}]},
    ):
        assert 450 < request(**fields).prompt_tokens - bare < 600


def test_every_message_costs_a_little() -> None:
    many = [{"role": "user", "content": ""}] * 200
    assert 700 < request(messages=many).prompt_tokens < 900


def test_a_picture_counts_by_rule_not_by_its_bytes() -> None:
    assert 700 < request(**said(PICTURE)).prompt_tokens < 900
    assert 1500 < request(**said(PICTURE, PICTURE)).prompt_tokens < 1700


@pytest.mark.parametrize(
    ("fields", "limit", "output"),
    [
        ({}, None, 300),
        ({"max_tokens": 50}, 50, 50),
        ({"max_completion_tokens": 50}, 50, 50),
        ({"max_tokens": 90, "max_completion_tokens": 50}, 50, 50),
        ({"max_tokens": 9000}, 9000, 300),
        ({"max_tokens": None}, None, 300),
        ({"max_tokens": 0}, None, 300),
        ({"max_tokens": -1, "max_completion_tokens": 50}, 50, 50),
        ({"n": 4}, None, 1200),
        ({"n": 4, "max_tokens": 10}, 10, 40),
        ({"n": 0}, None, 300),
    ],
)
def test_the_expected_output(fields: dict[str, Any], limit: int | None, output: int) -> None:
    asked = request(**fields)
    assert asked.max_tokens == limit
    assert asked.output_tokens == pytest.approx(output, rel=0.05)


# --- whatever comes ---

ANY = st.one_of(
    JSON,
    st.sampled_from(
        (10**400, -(10**400), 1e308, "auto", "lab/one", "cost", "none", [TOOL], [PICTURE], "high")
    ),
)
FIELDS = sorted(
    {param for param, _ in UNUSABLE} | {"seed", "temperature", "stop", "response_format"}
)
ROWS = snapshot(
    model("lab/one"),
    model("lab/able", supports=list(capability.NAMES), context=1_000_000, max_output=9000),
    model("lab/unknown", price=None, reasoning_default=True, context=None),
)


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=4))
def test_no_body_is_an_error_of_the_router(fields: dict[str, Any]) -> None:
    body = Body(json.dumps({"messages": [{"role": "user", "content": "x"}], **fields}).encode())
    with suppress(ApiError):
        asked = parse(body, {}, model_optional=True)
        cache_key(body, asked, b"scope")
        decide(asked, ROWS, telemetry(ROWS), POLICY, NOW)


@pytest.mark.parametrize("param", ["max_tokens", "max_completion_tokens", "n"])
def test_a_number_beyond_all_bounds_is_refused_or_taken(param: str) -> None:
    with suppress(ApiError):
        fields: dict[str, Any] = {param: 10**400}
        decide(request(**fields), ROWS, telemetry(ROWS), POLICY, NOW)
