"""What deciding costs on one core, without a network, over the rows of the bundled catalogue.

`python -m bench.decision` prints its figures as JSON; `python -m bench` keeps it to one core.
"""

import argparse
import gzip
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from bench import payload
from bench.settings import FULL, LARGE, QUICK, SMALL, Settings
from bench.spread import Spread, spread
from llmr import config as configuration
from llmr.cli.benchmark import bodies
from llmr.core.body import Body
from llmr.core.catalogue import Model, Snapshot
from llmr.core.decide import Decision, Now, decide
from llmr.core.explain import explain
from llmr.core.request import Request
from llmr.gateway import Gateway

QUESTIONS = Path(__file__).parent.parent / "training" / "data" / "routellm_mmlu.jsonl.gz"
MOVED = 8  # models that answered between two vectors
LARGE_SHARE = 10  # the large catalogue gets a tenth of the repetitions


class Catalogue(Struct, frozen=True):
    """Decisions over one catalogue.

    `alone`: each the first of its kind. `cold`: the mix once after new telemetry. `warm`: the mix
    again, all shapes known. `publish`: what new telemetry itself costs, at most once a second while
    answers come in.
    """

    models: int
    routable: int
    shapes: int
    alone: Spread
    cold: Spread
    warm: Spread
    repeated: Spread
    explain: Spread
    publish: Spread


class DecisionFigures(Struct, frozen=True):
    """Everything this part measures. `read`: from bytes to decision with the prompt read."""

    usual: Catalogue
    large: Catalogue
    parse_small: Spread
    parse_large: Spread
    read: Spread


def run(settings: Settings) -> DecisionFigures:
    """Measure all of it in this process."""
    static = configuration.build({"routing": {"quality": "static"}}, {})
    gateway = Gateway(static, assume_keys=True)
    mix = [gateway.request(Body(body), {}, "route") for body in bodies(settings.shapes, None)]
    rows, (usual, large) = gateway.snapshot, settings.catalogues
    gateway.snapshot = grown(rows, usual)
    first = over_catalogue(gateway, mix, settings)
    parses = [
        spread(timed(partial(parsed, gateway, payload.request(size)), settings.parses))
        for size in (SMALL, LARGE)
    ]
    gateway.snapshot = grown(rows, large)
    fewer = replace(
        settings,
        passes=max(1, settings.passes // LARGE_SHARE),
        repeats=settings.repeats // LARGE_SHARE,
        samples=max(1, settings.samples // LARGE_SHARE),
    )
    second = over_catalogue(gateway, mix, fewer)
    return DecisionFigures(first, second, parses[0], parses[1], with_prompts_read(settings))


def with_prompts_read(settings: Settings) -> Spread:
    """From the bytes of requests with real questions to their decisions, after new telemetry."""
    gateway = Gateway(configuration.build({}, {}), assume_keys=True)
    gateway.snapshot = grown(gateway.snapshot, settings.catalogues[0])
    sent = [ask(prompt, number) for number, prompt in enumerate(questions(settings.shapes))]
    found: list[float] = []
    for number in range(settings.passes + 1):
        renew(gateway)
        took = timed_each(lambda data: gateway.decide(parsed(gateway, data)), sent)
        found += took if number else []
    return spread(found)


def questions(count: int) -> list[str]:
    """Questions of MMLU, as they are in `training/data`."""
    with gzip.open(QUESTIONS, "rb") as lines:
        return [msgspec.json.decode(line)["prompt"] for line in islice(lines, count)]


def ask(prompt: str, number: int) -> bytes:
    """A request with this prompt, of each priority in turn."""
    priority = ("speed", "cost", "quality", "balanced")[number % 4]
    message = {"role": "user", "content": prompt}
    return msgspec.json.encode({"model": "auto", "priority": priority, "messages": [message]})


def over_catalogue(gateway: Gateway, mix: list[Request], settings: Settings) -> Catalogue:
    """The figures over the snapshot that the gateway has now."""
    cold: list[float] = []
    warm: list[float] = []
    alone: list[float] = []
    publish: list[float] = []
    for number in range(settings.passes + 1):
        publish += timed(partial(renew, gateway), 1)
        first = timed_each(gateway.decide, mix)
        if number:  # the first pass also works out what a catalogue needs once
            cold += first
            warm += timed_each(gateway.decide, mix)
    for request in mix[: settings.samples]:
        publish += timed(partial(renew, gateway), 1)
        alone += timed_each(partial(from_nothing, gateway), [request])
    one = mix[0]
    repeated = timed(lambda: gateway.decide(one), settings.repeats)
    decisions = [gateway.decide(request) for request in mix[: settings.samples]]
    return Catalogue(
        models=len(gateway.snapshot.models),
        routable=len(gateway.snapshot.routable),
        shapes=len(set(mix)),
        alone=spread(alone),
        cold=spread(cold),
        warm=spread(warm),
        repeated=spread(repeated),
        explain=spread(timed_each(explain, decisions)),
        publish=spread(publish),
    )


def from_nothing(gateway: Gateway, request: Request) -> Decision:
    """The decision for a request of a kind not seen before."""
    now = Now(time.monotonic(), time.time())
    return decide(request, gateway.snapshot, gateway.telemetry, gateway.policy, now)


def renew(gateway: Gateway) -> None:
    """New telemetry, after answers of some models: rankings have to be worked out again."""
    rng = random.Random(gateway.telemetry.version)
    for index in rng.sample(gateway.snapshot.routable, MOVED):
        model = gateway.snapshot.models[index]
        first, rate = rng.uniform(0.2, 3.0), rng.uniform(0.005, 0.05)
        gateway.learner.observe(model, first, rate, time.monotonic())
    gateway.telemetry = gateway.learner.publish(gateway.snapshot, time.monotonic())


def parsed(gateway: Gateway, data: bytes) -> Request:
    """A request from its bytes, as the server does it."""
    return gateway.request(Body(data), {}, "v1")


def grown(snapshot: Snapshot, count: int) -> Snapshot:
    """The rows again and again under new names, until there are `count` that may be picked.

    Each time a little slower, since no two models are equally good in everything.
    """
    rows = [snapshot.models[i] for i in snapshot.routable]
    models = tuple(again(rows[n % len(rows)], n // len(rows)) for n in range(count))
    return Snapshot(models, f"{snapshot.version}-grown-{count}", snapshot.captured)


def again(row: Model, time: int) -> Model:
    """The row as another model."""
    slower = replace(row.ttft_s, value=row.ttft_s.value * (1.0 + 0.037 * time))
    return replace(row, id=f"{row.id}-{time}", ttft_s=slower)


def timed(act: Callable[[], Any], count: int) -> list[float]:
    """Seconds each of `count` calls took."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        act()
        took.append(time.perf_counter() - begun)
    return took


def timed_each(act: Callable[[Any], Any], arguments: Iterable[Any]) -> list[float]:
    """Seconds the call took for each argument."""
    took = []
    for argument in arguments:
        begun = time.perf_counter()
        act(argument)
        took.append(time.perf_counter() - begun)
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.decision", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run that proves nothing")
    settings = QUICK if parser.parse_args().quick else FULL
    print(msgspec.json.encode(run(settings)).decode())


if __name__ == "__main__":
    main()
