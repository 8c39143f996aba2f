"""The public Failover Bench method: 16 scenarios chosen by model name."""

import re
from collections.abc import Callable

import msgspec

from llmr.sandbox.faults import (
    Cut,
    Fault,
    Malformed,
    NoDone,
    Reset,
    Silent,
    SlowFirstToken,
    Stall,
    Status,
)
from llmr.sandbox.settings import Settings

OK = "fb-ok"
OK_NO_PREFILL = "fb-ok-noprefill"
_NAME = re.compile(r"(fb-ok-noprefill|fb-ok|fb-s(?:0[1-9]|1[0-6]))(?:[-:].*)?")


class Visit(msgspec.Struct):
    """One request for a scenario: which since the reset (from 1), and seconds since the first."""

    number: int
    elapsed_s: float
    settings: Settings


def scenario_of(model: str) -> str | None:
    """`fb-ok`, `fb-ok-noprefill` or `fb-sNN` for a model name of the method, else None."""
    match = _NAME.fullmatch(model.rpartition("/")[2])
    return match[1] if match else None


def scenario_fault(scenario: str, visit: Visit) -> Fault | None:
    """What this request meets; None for a healthy answer."""
    fault = _FAULTS.get(scenario)
    return fault(visit) if fault else None


def _refusal(status: int, code: str | int, message: str) -> Status:
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": "messages",
        "code": code,
        "metadata": {"error_type": code},
    }
    return Status(status=status, body=msgspec.json.encode({"error": error}).decode())


def _retry_later(visit: Visit) -> Status:
    return Status(status=429, headers={"retry-after": f"{visit.settings.retry_after_s:g}"})


def _once(fault: Callable[[Visit], Fault]) -> Callable[[Visit], Fault | None]:
    return lambda visit: fault(visit) if visit.number == 1 else None


def _cut(visit: Visit) -> Cut:
    return Cut(after_tokens=visit.settings.cut_after_tokens)


def _stall(visit: Visit) -> Stall:
    settings = visit.settings
    return Stall(after_tokens=settings.stall_after_tokens, seconds=settings.stall_s)


def _flap(visit: Visit) -> Status | None:
    return Status(status=503) if visit.elapsed_s < visit.settings.flap_s else None


_CONTEXT = _refusal(
    400, "context_length_exceeded", "This endpoint's maximum context length is 128000 tokens."
)
_POLICY = _refusal(400, "content_policy_violation", "The prompt was refused by a content filter.")

_FAULTS: dict[str, Callable[[Visit], Fault | None]] = {
    "fb-s01": _once(_retry_later),
    "fb-s02": lambda _: Status(status=429),
    "fb-s03": _once(lambda _: Status(status=500)),
    "fb-s04": lambda _: Status(status=503),
    "fb-s05": _once(lambda _: Reset()),
    "fb-s06": lambda visit: Silent(seconds=visit.settings.silent_s),
    "fb-s07": lambda visit: SlowFirstToken(seconds=visit.settings.slow_first_token_s),
    "fb-s08": _cut,
    "fb-s09": _stall,
    "fb-s10": lambda visit: Malformed(at_token=visit.settings.malformed_at_token),
    "fb-s11": lambda _: NoDone(),
    "fb-s12": lambda _: _CONTEXT,
    "fb-s13": lambda _: _POLICY,
    "fb-s14": _cut,
    "fb-s15": _flap,
    "fb-s16": lambda _: Status(status=503),
}

MODEL_NAMES = (
    OK,
    OK_NO_PREFILL,
    "fb-s01-429-retry-after",
    "fb-s02-429-persistent",
    "fb-s03-500-then-200",
    "fb-s04-503-persistent",
    "fb-s05-reset",
    "fb-s06-no-response",
    "fb-s07-slow-ttft",
    "fb-s08-stream-cut",
    "fb-s09-stream-stall",
    "fb-s10-malformed-chunk",
    "fb-s11-no-done",
    "fb-s12-context-length",
    "fb-s13-content-filter",
    "fb-s14-stream-cut",
    "fb-s15-flap",
    "fb-s16-503-persistent",
)
