"""The ledger is the provider's invoice: mixed calls, each of which the sandbox charges for.

`CALLS` in the environment sets how many (1,500 unless told).
"""

import asyncio
import os
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmr import Router
from llmr.errors import ApiError
from llmr.ledger.book import read
from llmr.ledger.sheet import Line
from llmr.sandbox.process import SandboxProcess

AT_ONCE = 16
STEADY = "openai/gpt-5.4-nano"  # whoever leaves asks it: what is billed to those who leave before
# the head of an answer, a continuation's for instance, nobody can find out
PAID = ("openai/gpt-5.4-mini", "anthropic/claude-sonnet-4.6", "google/gemini-3.1-flash-lite")
UNPRICED, FREE = "openrouter/bodybuilder", "cohere/north-mini-code:free"
TIERED = "google/gemini-3.1-pro-preview"  # dearer beyond 200,000 tokens
LONG = "word " * 180_000
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "cut", "after_tokens": 4, "how": "close"},  # a reset can swallow even the head
    {"kind": "error_event", "at_token": 3},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 500},
    {"kind": "reset"},
    {"kind": "no_done"},
    {"kind": "malformed", "at_token": 3, "data": "{", "replace": False},
    {"kind": "empty_stream"},
    {"kind": "json_body", "body": "{"},
    {"kind": "close"},
)


def tree(provider: SandboxProcess, path: Path) -> dict[str, Any]:
    return {
        "upstreams": {"openrouter": {"base_url": provider.base_url, "api_key": "sk-test"}},
        "state": {"path": str(path)},
        "cache": {"default": "never"},
    }


async def call(router: Router, rng: random.Random, number: int, seen: Counter[str]) -> None:
    kind = rng.choice(("plain", "plain", "cached", "reasoning", "limited", "list", "leave", "odd"))
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": f"Call {number}."}]}
    fields["model"] = rng.choice(PAID)
    if kind == "cached":
        shared = {"role": "system", "content": "You are of few words. " * 40}
        fields["messages"].insert(0, shared)
    elif kind == "reasoning":
        fields |= {"reasoning_effort": "low", "include_reasoning": rng.random() < 0.5}
    elif kind == "limited":
        fields["max_tokens"] = rng.randint(1, 12)
    elif kind == "list":
        fields["models"] = rng.sample(PAID, 2)
    elif kind == "leave":
        fields["model"] = STEADY
    elif kind == "odd":
        fields["model"] = rng.choice((UNPRICED, FREE))
    if number % 200 == 7:
        fields |= {"model": TIERED, "messages": [{"role": "user", "content": LONG}]}
    elif number % 50 == 3:
        fields["model"] = "auto:cost"
    seen[kind] += 1
    try:
        if rng.random() < 0.5 and kind != "leave":
            await router.chat(**fields)
            return
        left = 0
        async for _ in router.stream(**fields):
            left += 1
            if kind == "leave" and left > rng.randint(0, 6):
                break
    except ApiError as error:
        seen[error.code] += 1


async def traffic(provider: SandboxProcess, path: Path, calls: int) -> Counter[str]:
    rng, seen = random.Random(6), Counter[str]()
    async with Router(tree(provider, path)) as router:
        await asyncio.sleep(0.3)  # the first look at the catalogue

        async def some(numbers: range) -> None:
            for number in numbers:
                if rng.random() < 0.2:
                    fault, model = rng.choice(FAULTS), rng.choice(PAID)
                    await asyncio.to_thread(provider.control.fault, model, fault, 1, 5.0)
                await call(router, rng, number, seen)

        await asyncio.gather(*(some(range(start, calls, AT_ONCE)) for start in range(AT_ONCE)))
        provider.control.clear()
        gateway = router._gateway
        gateway.recorder.flush()
        for _ in range(1000):
            if len(gateway._settling):
                await asyncio.sleep(0.1)
    return seen


@pytest.mark.parametrize("told", [True, False], ids=["cost reported", "cost worked out"])
def test_the_ledger_is_the_invoice(tmp_path: Path, told: bool) -> None:
    calls = int(os.environ.get("CALLS", "1500")) // 2
    path = tmp_path / "state.sqlite"
    with SandboxProcess(speed=0) as provider:
        provider.control.settings(report_cost=told)
        seen = asyncio.run(traffic(provider, path, calls))
        invoice = provider.control.invoice()
    ours: dict[str, Line] = {}
    for key, line in read(path):
        ours.setdefault(key.model, Line()).add(line)
    charged = {model: Decimal(usd) for model, usd in invoice["by_model"].items()}
    booked = {model: line.usd for model, line in ours.items() if line.usd}
    unpriced = sum(line.unpriced for line in ours.values())
    print(f"\n{calls} calls, {sum(line.attempts for line in ours.values())} sends: ", end="")
    print(f"{sum(booked.values())} USD; {unpriced} without a price; {dict(seen)}")
    assert booked == {model: usd for model, usd in charged.items() if usd}
    assert sum(booked.values()) > 0
    assert invoice["open"] == 0
