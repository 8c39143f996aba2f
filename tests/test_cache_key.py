"""The cache key: all that can change the answer changes it, and nothing else."""

import json
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from itertools import combinations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmr.cache.key import cache_key, deterministic
from llmr.core.body import Body
from llmr.core.request import parse
from llmr.errors import ApiError
from tests.test_body import JSON, TEXT

FULL: dict[str, Any] = {
    "model": "auto",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello."}], "name": "ann"},
    ],
    "temperature": 0,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.1,
    "seed": 1,
    "stop": ["a", "b"],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 2,
    "n": 2,
    "max_tokens": 100,
    "max_completion_tokens": 90,
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "reasoning": {"effort": "low", "exclude": True},
    "reasoning_effort": "low",
    "verbosity": "low",
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "x"},
    "user": "someone",
    "metadata": {"key": "value"},
    "provider": {"order": ["a", "b"], "allow_fallbacks": False},
    "plugins": [{"id": "web"}],
    "session_id": "s",
    "service_tier": "flex",
    "transforms": [],
    "a_field_of_the_future": {"deep": [{"er": None}]},
}
WISHES: dict[str, list[Any]] = {
    "priority": ["speed", "cost", "quality", None],
    "weights": [{"latency": 1}, {"cost": 1}, {"latency": 1, "cost": 1}],
    "preferred_models": [["a"], ["b"], ["a", "b"], []],
    "max_latency_ms": [1000, 2000, None],
    "max_cost_per_1k": [0.1, 0.2, None],
    "max_cost_usd": [0.1, 0.2, None],
}


def key_of(data: bytes, scope: bytes = b"one", headers: Mapping[str, str] | None = None) -> bytes:
    body = Body(data)
    return cache_key(body, parse(body, headers or {}, model_optional=True), scope)


def key(scope: bytes = b"one", headers: Mapping[str, str] | None = None, /, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": "Hello."}]
    return key_of(json.dumps({"messages": messages, **fields}).encode(), scope, headers)


BASE = key(**FULL)


# --- what changes it ---


@pytest.mark.parametrize("name", [name for name in FULL if name != "messages"])
def test_k06_leaving_a_field_out_changes_the_key(name: str) -> None:
    rest = {field: value for field, value in FULL.items() if field != name}
    # No model and `auto` ask for the same.
    assert (key(**rest) == BASE) is (name == "model")


OTHERS: dict[str, list[Any]] = {
    "model": ["auto:cost", "lab/one", "lab/two", "lab/one:nitro"],
    "messages": [
        [{"role": "user", "content": "Hello."}],
        [{"role": "user", "content": "Hello"}],
        [{"role": "user", "content": "hello."}],
        [{"role": "user", "content": "Hello. "}],
        [{"role": "user", "content": "Hello\u200b."}],
        [{"role": "system", "content": "Hello."}],
        [{"role": "user", "content": "Hello.", "name": "ann"}],
        [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}],
        [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": ""}],
        [{"role": "user", "content": "Hello.", "cache_control": {"type": "ephemeral"}}],
    ],
    "temperature": [0.1, 1, None],
    "seed": [2, 2**53, 2**53 + 1, 2**64, 2**64 + 1, None],
    "stop": [["b", "a"], ["a"], "a", []],
    "logit_bias": [{"50256": -99}, {"50257": -100}],
    "tools": [[], [{"type": "function", "function": {"name": "look", "parameters": {"x": 1}}}]],
    "provider": [{"order": ["b", "a"], "allow_fallbacks": False}, {"order": ["a", "b"]}],
    "user": ["", "Someone", None],
    "a_field_of_the_future": [{"deep": [{"er": False}]}, {"deep": [{}]}, {"deep": {}}, [], 0, ""],
}


@pytest.mark.parametrize("name", OTHERS)
def test_k06_every_other_value_of_a_field_has_a_key_of_its_own(name: str) -> None:
    keys = [key(**{**FULL, name: value}) for value in OTHERS[name]]
    assert len({*keys, BASE}) == len(keys) + 1


@given(st.data(), JSON)
def test_k06_any_change_of_an_unknown_field_changes_the_key(
    data: st.DataObject, value: Any
) -> None:
    fields = deepcopy(data.draw(st.dictionaries(TEXT.map("x_".__add__), JSON, min_size=1)))
    name = data.draw(st.sampled_from(sorted(fields)))
    changed = {**fields, name: value}
    assert (key(**fields) == key(**changed)) is (plain(fields) == plain(changed))


def plain(value: Any) -> Any:
    """The value with every number in one form, so that equality is that of the JSON values."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return (type(value).__name__, value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"null", b"false"),
        (b"0", b"false"),
        (b"0", b'""'),
        (b"1", b"true"),
        (b"1", b'"1"'),
        (b"[]", b"{}"),
        (b"[1]", b"1"),
        (b"[[],1]", b"[[1]]"),
        (b'"a\\u0000"', b'"a"'),
        ('"é"'.encode(), '"e\u0301"'.encode()),
        (b"0.1", b"0.2"),
        (b"9007199254740992", b"9007199254740993"),
        (b"18446744073709551616", b"18446744073709551617"),
        (b"1e308", b"1e307"),
        (b'{"a":1,"a":2}', b'{"a":2}'),  # who reads it may take the first
        (b'[{"a":1,"a":2}]', b'[{"a":2,"a":2}]'),
    ],
)
def test_k06_values_that_are_nearly_alike_differ(one: bytes, other: bytes) -> None:
    sent = b'{"messages":[{"role":"user","content":"x"}],"value":%b}'
    assert key_of(sent % one) != key_of(sent % other)


@pytest.mark.parametrize(("one", "other"), [(b"1e400", b"null"), (b"1e400", b"-1e400")])
def test_a_number_beyond_all_bounds_is_refused_or_has_its_own_key(one: bytes, other: bytes) -> None:
    sent = b'{"messages":[{"role":"user","content":"x"}],"value":%b}'
    with suppress(ApiError):
        assert key_of(sent % one) != key_of(sent % other)


@pytest.mark.parametrize("name", WISHES)
def test_k06_every_wish_has_a_key_of_its_own(name: str) -> None:
    keys = [key(**{name: value}) for value in WISHES[name]]
    assert len(set(keys)) == len(keys)


def test_the_wishes_do_not_run_into_each_other() -> None:
    found = {
        key(),
        key(max_latency_ms=5),
        key(max_cost_per_1k=5),
        key(max_cost_usd=5),
        key(model="a"),
        key(models=["a"]),
        key(models=["a", "b"]),
        key(models=["b", "a"]),
        key(preferred_models=["a"]),
    }
    assert len(found) == 9


def test_a_pinned_model_is_part_of_it_and_the_pick_of_auto_is_not() -> None:
    assert key(model="lab/one") != key(model="lab/two") != key(model="auto")
    assert key(model="lab/one", models=["lab/two"]) == key(models=["lab/one", "lab/two"])


def test_k07_every_scope_has_keys_of_its_own() -> None:
    scopes = [b"", b"a", b"b", b"ab", b"a\x00", b"library"]
    for one, other in combinations(scopes, 2):
        assert key(one, **FULL) != key(other, **FULL)


# --- what does not change it ---


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(value)}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(FULL, separators=(",", ":")).encode(),
        json.dumps(FULL, indent=4).encode(),
        b" \r\n\t" + json.dumps(FULL).encode() + b"\n",
        json.dumps(shuffled(FULL)).encode(),
        json.dumps(FULL)
        .replace("Hello.", "\\u0048ello\\u002e")
        .replace('"user"', '"\\u0075ser"')
        .encode(),
        json.dumps({**FULL, "temperature": 0.0, "seed": 1.0, "top_k": 5.0}).encode(),
        json.dumps(FULL).replace('"top_k": 5', '"top_k": 0.5e1').encode(),
        json.dumps({**FULL, "stream": True}).encode(),
        json.dumps({**FULL, "stream": False}).encode(),
        json.dumps({**FULL, "stream": True, "stream_options": {"include_usage": True}}).encode(),
    ],
    ids=[
        *("compact", "indented", "padded", "reordered", "escaped"),
        *("floats", "exponent", "stream", "no-stream", "options"),
    ],
)
def test_k06_the_form_of_the_body_does_not_count(data: bytes) -> None:
    assert key_of(data) == BASE


@given(st.dictionaries(TEXT.map("x_".__add__), JSON), st.booleans())
@example({"x_": ["", ":"]}, False)
@example({"x_": ["\\", '":', {'"': ":"}]}, True)
def test_k06_neither_order_nor_spacing_nor_escapes_count(
    fields: dict[str, Any], escaped: bool
) -> None:
    sent = {"messages": [{"role": "user", "content": "Hello."}], **fields}
    other = json.dumps(shuffled(sent), ensure_ascii=escaped, indent=1)
    assert key_of(other.encode()) == key(**fields)


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"priority": "cost"}, {"x-llmr-priority": "cost"}),
        ({"weights": {"cost": 2}}, {"x-llmr-weights": '{"cost": 7}'}),
        ({"max_cost_usd": 0.5}, {"x-llmr-max-cost-usd": "5e-1"}),
        ({"preferred_models": ["a", "b"]}, {"x-llmr-preferred-models": "a,b"}),
        ({"model": "auto:cost"}, {"x-llmr-priority": "cost"}),
        ({"weights": {"latency": 4, "cost": 3, "quality": 3}}, {}),
        ({"preferred_models": ["a", "a"]}, {"x-llmr-preferred-models": "a"}),
    ],
)
def test_the_same_wish_said_in_another_way_is_the_same_request(
    fields: dict[str, Any], headers: dict[str, str]
) -> None:
    assert key(**fields) == key(b"one", headers)


# --- which requests are meant to give one answer ---


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 1e-9}, False),
        ({"temperature": None}, False),
        ({"seed": 0}, True),
        ({"seed": 7, "temperature": 1}, True),
        ({"seed": None}, False),
        ({"seed": None, "temperature": 0}, True),
        ({"top_p": 0}, False),
    ],
)
def test_k13_deterministic_requests(fields: dict[str, Any], expected: bool) -> None:
    assert deterministic(Body(json.dumps(fields).encode())) is expected
