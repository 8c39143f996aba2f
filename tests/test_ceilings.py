"""A ceiling is a ceiling: what a request costs at worst, and what is spent on it under faults.

`CALLS` in the environment sets how many calls are made (1,000 unless told).
"""

import asyncio
import os
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmr import Router
from llmr.core import ceiling, price
from llmr.core.catalogue import Model
from llmr.core.lengths import Lengths
from llmr.core.price import Override, Prices
from llmr.errors import ApiError
from llmr.sandbox.process import SandboxProcess
from tests.builders import decided, model, names, prices, request
from tests.harness import Server, upstream

NOON = ((1200, 0),)
CENT = Decimal("0.01")


def bound(row: Model, moments: tuple[tuple[int, int], ...] = NOON, **fields: Any) -> ceiling.Worst:
    found = ceiling.worst(row, request(**fields), moments)
    assert found is not None
    return found


# --- the bound ---


@given(
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(1, 3000),
    st.decimals("0.000001", "1", places=6),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_no_answer_within_the_clamp_costs_more_than_was_to_be_spent(
    prompt: int, completion: int, said: int, usd: Decimal, share: tuple[float, float, float]
) -> None:
    row = model(price=prices(prompt, completion), max_output=8000)
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "word" * said}]}
    found = bound(row, **asked)
    if found.least is None or found.least > usd:
        return
    tokens = found.tokens(usd)
    most = found.most if tokens is None else tokens
    assert most is not None
    size = ceiling.prompt_tokens(row, request(**asked))
    assert size is not None
    usage = {
        "prompt_tokens": int(size * share[0]),
        "completion_tokens": int(most * share[1]),
        "prompt_tokens_details": {"cached_tokens": int(size * share[0] * share[2])},
    }
    cost = price.cost(row.prices.base, usage)
    assert cost is not None
    assert cost <= usd
    assert cost <= found.cost(tokens) <= usd


def test_the_dearest_price_that_may_apply_is_the_one_that_counts() -> None:
    peak = Override({"completion": Decimal("0.01")}, utc_start=1210, utc_end=1300)
    long = Override({"prompt": Decimal("0.5")}, min_prompt_tokens=100)
    row = model(price=prices(1, 2, peak, long))
    assert bound(row).per_token == Decimal("0.002")
    assert bound(row, ((1200, 0), (1210, 0))).per_token == Decimal("0.01")
    said = [{"role": "user", "content": "word" * 85}]  # 92 tokens as estimated, perhaps 120
    assert bound(row, messages=said).before > 50 * bound(row).before


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"n": 3}, 3),
        ({}, 1),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, None),
    ],
)
def test_choices_multiply_the_answer_and_what_nobody_can_measure_fills_the_window(
    fields: dict[str, Any], more: int | None
) -> None:
    row = model(context=1000, supports=["audio"])
    found = bound(row, max_tokens=100, **fields)
    if more is None:
        assert found.before == row.prices.base["prompt"] * 1000
    else:
        assert found.most == 100 * more


def test_writing_the_cache_counts_where_it_is_asked_for() -> None:
    dear = Prices({**prices(1, 1).base, "input_cache_write": Decimal("0.1")})
    part = {"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}}
    said: dict[str, Any] = {"messages": [{"role": "user", "content": [part]}]}
    plain: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello."}]}
    row = model(price=dear)
    assert (
        bound(row, max_cost_usd=9, **said).before > 50 * bound(row, max_cost_usd=9, **plain).before
    )


@pytest.mark.parametrize(
    ("row", "least"),
    [
        (model(price=None), None),
        (model(price=("0", "0"), context=None), Decimal(0)),
        (model(price=("0", "1"), context=None), Decimal("0.001") * 1216),
        (model(price=("0", "1"), lengths=Lengths(answer=2.0)), Decimal("0.001") * 2432),
        (model(price=("0", "1"), max_output=50), Decimal("0.001") * 50),
    ],
)
def test_the_smallest_ceiling_of_a_row(row: Model, least: Decimal | None) -> None:
    found = ceiling.worst(row, request(), NOON)
    assert (None if found is None else found.least) == least


def test_a_row_that_keeps_to_no_limit_counts_with_all_it_can_write() -> None:
    row = model(price=("0", "1"), max_output=5000)
    loose = Model(**{name: getattr(row, name) for name in row.__struct_fields__} | {"supports": 0})
    assert bound(row, max_tokens=10).least == Decimal("0.010")
    assert bound(loose, max_tokens=10).least == Decimal(5)


# --- the refusal ---


def test_models_that_were_named_are_held_to_it_too() -> None:
    rows = [model("lab/dear", price=("1", "1")), model("lab/cheap")]
    assert names(decided(rows, models=["lab/dear", "lab/cheap"], max_cost_usd=0.1)) == ["lab/cheap"]
    with pytest.raises(ApiError, match="the nearest value that does is") as caught:
        decided(rows, model="lab/dear", max_cost_usd=0.1)
    assert (caught.value.status, caught.value.param) == (400, "max_cost_usd")
    least = float(caught.value.message.split(" is ")[1].split()[0])
    assert names(decided(rows, model="lab/dear", max_cost_usd=least)) == ["lab/dear"]


@pytest.mark.parametrize(
    "fields",
    [
        {"plugins": [{"id": "web"}]},
        {"web_search_options": {}},
        {"tools": [{"type": "openrouter:web_search"}]},
        {"model": "lab/one:online"},
    ],
)
def test_what_no_ceiling_can_bound_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="cannot bound plugins, web search") as caught:
        decided([model()], max_cost_usd=1, **fields)
    assert caught.value.status == 400
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    supported = model(supports=["tools"])
    assert decided([supported], max_cost_usd=1, tools=[tool], plugins=[], web_search_options=None)


# --- the chain ---


def test_the_answer_is_held_to_what_is_left(sandbox_process: SandboxProcess) -> None:
    control, name = sandbox_process.control, "openai/gpt-5.4-mini"
    control.reset()
    said: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": "Hi."}]}
    with Server(upstream(sandbox_process.base_url)) as server:
        assert server.chat(**said, max_cost_usd=5).status == 200
        assert server.chat(**said, max_cost_usd=0.01, max_completion_tokens=7000).status == 200
        told = server.chat("/route", **said, max_cost_usd=0.01).json["routing_decision"]
        first, second, third = control.attempts()
        assert "max_tokens" not in first["body"]
        assert 1500 < second["body"]["max_completion_tokens"] < 2300
        assert third["body"]["max_tokens"] == second["body"]["max_completion_tokens"]
        assert told["attempts"][0]["added"] == f"max_tokens {third['body']['max_tokens']}"
        control.fault(name, {"kind": "cut", "after_tokens": 0}, times=1)
        gone = server.chat(**said, models=[name, "openai/gpt-5.4"], max_cost_usd=0.02)
        assert gone.status >= 500
        assert gone.error["message"].endswith("max_cost_usd leaves nothing for another attempt.")


PAID = (
    *("openai/gpt-5.4-mini", "anthropic/claude-sonnet-4.6", "google/gemini-3.1-flash-lite"),
    *("anthropic/claude-opus-4.7", "google/gemini-3.1-pro-preview", "openai/gpt-5.4-nano"),
)
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "cut", "after_tokens": 25},
    {"kind": "cut", "after_tokens": 35},
    {"kind": "cut", "after_tokens": 4, "how": "reset"},
    {"kind": "error_event", "at_token": 3},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 429},
    {"kind": "reset"},
    {"kind": "close"},
    {"kind": "no_done"},
    {"kind": "malformed", "at_token": 3, "data": "{", "replace": False},
    {"kind": "empty_stream"},
    {"kind": "json_body", "body": "{"},
)


async def call(router: Router, rng: random.Random, number: int, seen: Counter[str]) -> float:
    """Make a call; its ceiling in USD."""
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Say it. " * int(10 ** rng.uniform(0, 3))}],
        "user": str(number),
        "model": rng.choice((*PAID, "auto:cost", "auto:quality")),
        "max_cost_usd": float(f"{10 ** rng.uniform(-5, -1):.3g}"),
    }
    if rng.random() < 0.3:
        fields["models"] = rng.sample(PAID, 3)
    if rng.random() < 0.7:  # answers that fill what they may: the ceiling is near
        fields["max_tokens"] = rng.randint(1, 60)
    if rng.random() < 0.2:
        fields["n"] = rng.randint(2, 3)
    if rng.random() < 0.2:
        fields["reasoning_effort"] = rng.choice(("low", "high"))
    if rng.random() < 0.7 and not (fields["model"].startswith("auto") and "models" not in fields):
        # About what the cheapest of those that may answer costs at worst.
        with pytest.raises(ApiError) as caught:
            router.decide(**{**fields, "max_cost_usd": 1e-12})
        least = float(caught.value.message.split("does is ")[1].split()[0])
        fields["max_cost_usd"] = float(f"{least * rng.uniform(1, 2):.4g}")
    try:
        if rng.random() < 0.7:
            seen["attempts"] += len((await router.chat(**fields)).routing_decision.attempts)
        else:
            async for _ in router.stream(**fields):
                pass
        seen["answers"] += 1
    except ApiError as error:
        seen[error.code] += 1
        seen["held"] += "max_cost_usd leaves nothing" in error.message
    return float(fields["max_cost_usd"])


async def traffic(provider: SandboxProcess, calls: int, seen: Counter[str]) -> list[float]:
    rng = random.Random(8)
    tree = {
        "upstreams": {"openrouter": {"base_url": provider.base_url, "api_key": "sk-test"}},
        "cache": {"default": "never"},
        "limits": {"attempts": 5},
    }
    ceilings = [0.0] * calls
    async with Router(tree) as router:
        await asyncio.sleep(0.3)  # the first look at the catalogue

        async def some(numbers: range) -> None:
            for number in numbers:
                if rng.random() < 0.6:
                    fault, name = rng.choice(FAULTS), rng.choice((*PAID, "*"))
                    await asyncio.to_thread(
                        provider.control.fault, name, fault, rng.randint(1, 3), 5.0
                    )
                ceilings[number] = await call(router, rng, number, seen)

        await asyncio.gather(*(some(range(start, calls, 8)) for start in range(8)))
    return ceilings


def test_no_call_costs_more_than_its_ceiling() -> None:
    calls, seen = int(os.environ.get("CALLS", "1000")), Counter[str]()
    with SandboxProcess(speed=0) as provider:
        ceilings = asyncio.run(traffic(provider, calls, seen))
        spent = {
            int(user): usd for user, usd in provider.control.invoice()["by_user"].items() if user
        }
    over = {n: (usd, ceilings[n]) for n, usd in spent.items() if Decimal(usd) > ceilings[n]}
    shares = sorted(float(usd) / ceilings[n] for n, usd in spent.items())
    near = sum(share > 0.5 for share in shares)
    print(f"\n{calls} calls: {dict(seen)}; {near} of them cost more than half of their ceiling")
    assert over == {}
    assert seen["answers"] > calls / 6
    assert near > calls / 50
