"""Figures of upstreams that cannot be true: every request ends all the same, and is counted."""

import base64
import json
from decimal import Decimal
from typing import Any

import pytest

from llmr.core import price
from llmr.sandbox.control import Control
from tests.harness import Server, eventually

MODEL = "openai/gpt-5.4"
HUGE = 10**320
CHAT, ROUTE = "/v1/chat/completions", "/route"


def answer(usage: dict[str, Any]) -> str:
    message = {"role": "assistant", "content": "Hello."}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"id": "x", "object": "chat.completion", "choices": choices, "usage": usage})


def stream(usage: dict[str, Any]) -> list[dict[str, Any]]:
    choice = {"index": 0, "delta": {"content": "Hello."}, "finish_reason": "stop"}
    events = [json.dumps({"id": "x", "choices": [choice]})]
    events += [json.dumps({"id": "x", "choices": [], "usage": usage}), "[DONE]"]
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    return [{"data": base64.b64encode(body).decode()}]


@pytest.mark.parametrize("path", [CHAT, ROUTE])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "told",
    [
        {"prompt_tokens": HUGE},
        {"completion_tokens": HUGE},
        {"total_tokens": HUGE},
        {"completion_tokens": -1},
        {"cost": "1e-3000000"},
        {"cost": "0." + "1" * 100_000},
        {"cost": 1e300},
    ],
    ids=lambda told: next(iter(told)),
)
def test_a_usage_that_cannot_be_true_ends_the_request_all_the_same(
    server: Server, sandbox: Control, path: str, streamed: bool, told: dict[str, Any]
) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2} | told
    fault = {"kind": "raw", "pieces": stream(usage)}
    sandbox.fault(MODEL, fault if streamed else {"kind": "json_body", "body": answer(usage)})
    window = server.gateway.window
    before = window.figures(0.0)["total_requests"]
    reply = server.chat(path, model=MODEL, stream=streamed)
    assert (reply.status, reply.text()) == (200, "Hello.")
    assert not streamed or reply.events()[-1] == "[DONE]"
    assert all(len(value) < 200 for value in reply.headers.values())
    eventually(lambda: server.gateway.in_flight == 0, "over")
    eventually(lambda: window.figures(0.0)["total_requests"] == before + 1, "counted")


def test_a_price_has_as_many_digits_as_a_price_can_have() -> None:
    assert price.amount("1e-3000000") == 0
    assert price.amount("1" * 1000) is None
    assert price.amount("0.0000000375") == Decimal("3.75e-8")
