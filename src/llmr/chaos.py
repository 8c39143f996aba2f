"""The 16 scenarios of the public Failover Bench method, run against a configuration of one's own.

Each scenario has a router of its own in front of the simulated provider, so that the health of one
does not decide another; all run at the same time. What is asserted is what the method scores.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmr.config import Config, ModelRow, UpstreamConfig
from llmr.errors import ApiError
from llmr.router import Router
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.text import CANONICAL_ANSWER

OK, OK_NO_PREFILL = "fb-ok", "fb-ok-noprefill"
FLAP_EVERY_S, FLAP_AFTER_S = 4.0, 36.0
HI = [{"role": "user", "content": "Say what you are."}]


class Seen(Struct):
    """What came of one request, and what the provider saw of it. Times are seconds."""

    whole: bool
    error: str | None
    model: str | None
    usage: bool
    seconds: float
    primary: list[float]
    fallback: list[float]

    @property
    def gap(self) -> float:
        """Between the first two sends to the primary."""
        return self.primary[1] - self.primary[0] if len(self.primary) > 1 else 0.0


class Scenario(Struct, frozen=True):
    """A fault, and what the caller and the provider must see. `check` gives what is wrong."""

    id: str
    title: str
    primary: str
    check: Callable[[Seen], str | None]
    fallback: str = OK


class Result(Struct):
    """One row of the table."""

    id: str
    title: str
    passed: bool
    outcome: str
    attempts: str
    seconds: float


def _whole(seen: Seen) -> str | None:
    return None if seen.whole else f"not whole: {seen.error or 'cut short'}"


def _all(*checks: Callable[[Seen], str | None]) -> Callable[[Seen], str | None]:
    return lambda seen: next((why for check in checks if (why := check(seen))), None)


def _sends(least: int, most: int) -> Callable[[Seen], str | None]:
    def check(seen: Seen) -> str | None:
        sent = len(seen.primary)
        return None if least <= sent <= most else f"{sent} sends to the primary"

    return check


def _within(seconds: float) -> Callable[[Seen], str | None]:
    return lambda seen: None if seen.seconds <= seconds else f"took {seen.seconds:.1f} s"


def _gap(seen: Seen) -> str | None:
    return None if seen.gap >= 1.8 else f"retried after {seen.gap:.2f} s"


def _usage(seen: Seen) -> str | None:
    return None if seen.usage else "no usage"


def _refused(seen: Seen) -> str | None:
    if seen.whole or seen.fallback:
        return "routed round the refusal"
    return None if seen.error else "no error"


def _names_fallback(seen: Seen) -> str | None:
    return None if seen.model == OK else f"named {seen.model}"


SCENARIOS: Sequence[Scenario] = (
    Scenario("S01", "429 with Retry-After", "fb-s01-429-retry-after", _all(_whole, _gap)),
    Scenario(
        "S02", "429 without a hint, for ever", "fb-s02-429-persistent", _all(_whole, _sends(1, 3))
    ),
    Scenario("S03", "500 once, then healthy", "fb-s03-500-then-200", _all(_whole, _sends(2, 2))),
    Scenario("S04", "503 for ever", "fb-s04-503-persistent", _all(_whole, _sends(1, 3))),
    Scenario("S05", "reset before headers", "fb-s05-reset", _whole),
    Scenario("S06", "no response at all", "fb-s06-no-response", _all(_whole, _sends(1, 1))),
    Scenario("S07", "first token late", "fb-s07-slow-ttft", _all(_whole, _within(15))),
    Scenario("S08", "stream cut mid-answer", "fb-s08-stream-cut", _all(_whole, _within(60))),
    Scenario("S09", "stream stalls", "fb-s09-stream-stall", _all(_whole, _within(60))),
    Scenario("S10", "one malformed event", "fb-s10-malformed-chunk", _whole),
    Scenario("S11", "no [DONE]", "fb-s11-no-done", _all(_whole, _usage, _within(5))),
    Scenario("S12", "context too long", "fb-s12-context-length", _all(_whole, _sends(1, 1))),
    Scenario("S13", "content refused", "fb-s13-content-filter", _all(_refused, _sends(1, 1))),
    Scenario("S14", "fallback refuses prefill", "fb-s14-stream-cut", _whole, OK_NO_PREFILL),
    Scenario(
        "S16",
        "accounting of a fallback",
        "fb-s16-503-persistent",
        _all(_whole, _names_fallback, _usage),
    ),
)
FLAP = Scenario("S15", "down a minute, then healthy", "fb-s15-flap", _whole)


def simulated(config: Config, base_url: str) -> Config:
    """The configuration with the scenarios' models in the place of its upstreams."""
    names = [s.primary for s in (*SCENARIOS, FLAP)] + [OK, OK_NO_PREFILL]
    rows = tuple(ModelRow(name) for name in dict.fromkeys(names))
    return replace(
        config,
        upstreams={"openrouter": UpstreamConfig(base_url, "sandbox", rows)},
        redis=replace(config.redis, url=None, host=None),
        cache=replace(config.cache, enabled=False),
    )


async def run(config: Config, only: Sequence[str], told: Callable[[Result], None]) -> list[Result]:
    """Run the scenarios at once; `told` hears of each as it ends. Results are in their order."""
    wanted = [s for s in (*SCENARIOS, FLAP) if not only or s.id in only]

    async def one(scenario: Scenario) -> Result:
        with SandboxProcess() as sandbox:
            own = simulated(config, sandbox.base_url)
            play = _flap if scenario is FLAP else _once
            result = await play(own, scenario, sandbox.control)
        told(result)
        return result

    results = await asyncio.gather(*(one(scenario) for scenario in wanted))
    return sorted(results, key=lambda result: result.id)


async def _once(config: Config, scenario: Scenario, control: Control) -> Result:
    async with Router(config) as router:
        seen = await _ask(router, scenario, control)
    why = scenario.check(seen)
    return _result(scenario, why, seen, f"{len(seen.primary)} + {len(seen.fallback)}")


def _result(scenario: Scenario, why: str | None, seen: Seen, attempts: str) -> Result:
    good = "refused" if scenario.id == "S13" else "whole"
    return Result(scenario.id, scenario.title, why is None, why or good, attempts, seen.seconds)


async def _ask(router: Router, scenario: Scenario, control: Control) -> Seen:
    """One streamed request with the fault's model first and its fallback second."""
    begun = time.monotonic()
    text, usage, error, model = "", False, None, None
    finished = False
    try:
        stream = router.stream(
            messages=HI,
            models=[scenario.primary, scenario.fallback],
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            text += chunk.text
            usage = usage or bool(chunk.get("usage"))
            model = chunk.get("model") or model
            choices: Any = chunk.get("choices") or ()
            finished = finished or any(choice.get("finish_reason") for choice in choices)
    except ApiError as caught:
        error = f"{caught.code}: {caught.message}"
    seconds = time.monotonic() - begun
    attempts = await asyncio.to_thread(control.attempts)
    return Seen(
        finished and error is None and text == CANONICAL_ANSWER,
        error,
        model,
        usage,
        seconds,
        _times(attempts, scenario.primary),
        _times(attempts, scenario.fallback),
    )


def _times(attempts: Sequence[Mapping[str, Any]], model: str) -> list[float]:
    return [attempt["t"] for attempt in attempts if attempt["model"] == model]


async def _flap(config: Config, scenario: Scenario, control: Control) -> Result:
    """One request every 4 s while the primary is down, and on until it is used again."""
    begun = time.monotonic()
    down_s = 60.0
    lost, back, wasted, count = 0, None, 0, 0
    seen = Seen(False, None, None, False, 0.0, [], [])
    async with Router(config) as router:
        while back is None and time.monotonic() - begun < down_s + FLAP_AFTER_S:
            started = time.monotonic()
            seen = await _ask(router, scenario, control)
            count += 1
            lost += not seen.whole
            if started - begun < down_s:
                wasted = len(seen.primary)
            elif seen.model == scenario.primary:
                back = started - begun - down_s
                break
            await asyncio.sleep(max(0.0, FLAP_EVERY_S - (time.monotonic() - started)))
    seen.seconds = time.monotonic() - begun
    why = None
    if lost:
        why = f"{lost} of {count} requests lost"
    elif wasted > 4:
        why = f"{wasted} sends to the primary while it was down"
    elif back is None or back > 30:
        why = "not back on the primary within 30 s"
    result = _result(scenario, why, seen, f"{wasted} wasted")
    if why is None and back is not None:
        result.outcome = f"{count} of {count} whole, back after {back:.0f} s"
    return result
