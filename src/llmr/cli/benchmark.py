"""`llmr benchmark`: how long a decision takes on this machine, over requests of many shapes."""

import random
import time
from typing import Any

import msgspec

from llmr import config as configuration
from llmr.cli.output import print_json, say
from llmr.core.body import Body
from llmr.gateway import Gateway

WARM_UP = 200
BARS = 40
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def run(config: str | None, iterations: int, priority: str | None, as_json: bool) -> None:
    """Time `iterations` decisions and print their spread."""
    gateway = Gateway(configuration.load(config), assume_keys=True)
    if not gateway.snapshot.routable:
        say("no routable model is known: nothing to decide")
        return
    took = measure(gateway, iterations, priority)
    figures = summary(took)
    if as_json:
        print_json(figures)
        return
    print(
        f"{iterations} decisions over {len(gateway.snapshot.routable)} models, "
        f"priority {priority or 'mixed'}\n"
    )
    for line in histogram(took):
        print(line)
    print(
        f"\nmean {figures['mean_ms'] * 1000:.1f} µs   p50 {figures['p50_ms'] * 1000:.1f} µs   "
        f"p95 {figures['p95_ms'] * 1000:.1f} µs   p99 {figures['p99_ms'] * 1000:.1f} µs"
    )


def bodies(count: int, priority: str | None, seed: int = 0) -> list[bytes]:
    """Requests as they come: sizes over three decades, a quarter with tools, half streamed."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        fields: dict[str, Any] = {
            "model": "auto",
            "priority": priority or rng.choice(("speed", "cost", "quality", "balanced")),
            "messages": [{"role": "user", "content": "word " * int(10 ** rng.uniform(1, 4))}],
            "stream": rng.random() < 0.5,
        }
        if rng.random() < 0.25:
            fields["tools"] = [TOOL]
        if rng.random() < 0.25:
            fields["max_tokens"] = rng.choice((100, 500, 1000, 4000))
        out.append(msgspec.json.encode(fields))
    return out


def measure(gateway: Gateway, iterations: int, priority: str | None) -> list[float]:
    """Seconds each decision took, parsing left out, over requests that vary."""
    requests = [
        gateway.request(Body(body), {}, "route") for body in bodies(min(iterations, 2000), priority)
    ]
    for request in requests[:WARM_UP]:
        gateway.decide(request)
    took = []
    for number in range(iterations):
        request = requests[number % len(requests)]
        begun = time.perf_counter()
        gateway.decide(request)
        took.append(time.perf_counter() - begun)
    return took


def summary(took: list[float]) -> dict[str, float]:
    """Mean and percentiles in milliseconds."""
    ordered = sorted(took)
    count = len(ordered)

    def at(share: float) -> float:
        return round(ordered[min(count - 1, int(share * count))] * 1000, 6)

    return {
        "iterations": count,
        "mean_ms": round(sum(ordered) / count * 1000, 6),
        "p50_ms": at(0.50),
        "p95_ms": at(0.95),
        "p99_ms": at(0.99),
    }


def histogram(took: list[float]) -> list[str]:
    """Bars over steps that double, in microseconds."""
    counts: dict[int, int] = {}
    for seconds in took:
        step = max(0, int(seconds * 1e6)).bit_length()
        counts[step] = counts.get(step, 0) + 1
    most = max(counts.values())
    lines = []
    for step in range(min(counts), max(counts) + 1):
        n = counts.get(step, 0)
        low, high = (1 << step) >> 1, 1 << step
        bar = "█" * max(1 if n else 0, round(n / most * BARS))
        lines.append(f"{low:>7}–{high:<6} µs {n:>7}  {bar}".rstrip())
    return lines
