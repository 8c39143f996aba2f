"""What the sandbox charges: whole answers, cut ones, cached prompts, and its invoice."""

import json
from decimal import Decimal

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import eventually
from tests.sandbox.wire import MODEL, ask, get, talk

LONG = [{"role": "user", "content": "word " * 200}]


def generation(sandbox: SandboxProcess, head: str) -> Decimal:
    name = head.partition("x-generation-id: ")[2].split("\r\n")[0]
    path = f"/api/v1/generation?id={name}"
    eventually(lambda: talk(sandbox, get(path)).data.startswith(b"HTTP/1.1 200"), "settled")
    return Decimal(str(json.loads(talk(sandbox, get(path)).body)["data"]["total_cost"]))


def test_a_whole_answer_costs_what_its_usage_says(sandbox: SandboxProcess) -> None:
    wire = ask(sandbox, stream=False)
    cost = Decimal(str(json.loads(wire.body)["usage"]["cost"]))
    assert cost > 0
    assert generation(sandbox, wire.head) == cost
    assert Decimal(sandbox.control.invoice()["total"]) == cost


@pytest.mark.parametrize(
    ("fault", "share"), [({"kind": "cut", "after_tokens": 5}, 1), ({"kind": "error_event"}, 0)]
)
def test_what_breaks_off_costs_what_had_left(
    sandbox: SandboxProcess, control: Control, fault: dict[str, object], share: int
) -> None:
    whole = generation(sandbox, ask(sandbox).head)
    control.reset()
    control.fault(MODEL, fault, times=1)
    cost = generation(sandbox, ask(sandbox).head)
    assert 0 <= cost < whole
    assert bool(cost) == bool(share)


def test_a_beginning_seen_before_is_cheaper(sandbox: SandboxProcess) -> None:
    first, second = (json.loads(ask(sandbox, stream=False, messages=LONG).body) for _ in range(2))
    cached = [one["usage"]["prompt_tokens_details"]["cached_tokens"] for one in (first, second)]
    assert cached == [0, 250]
    assert second["usage"]["cost"] < first["usage"]["cost"]


def test_cost_can_be_left_out(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(report_cost=False)
    assert "cost" not in json.loads(ask(sandbox, stream=False).body)["usage"]
    assert Decimal(control.invoice()["total"]) > 0
