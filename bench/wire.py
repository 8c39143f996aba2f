"""What a request through the router costs, beside nginx and straight to the upstream."""

import time

from msgspec import Struct

from bench.load import Compared, Job
from bench.payload import request
from bench.servers import first_answer
from bench.settings import LARGE, SMALL
from bench.stand import ROUTER, Stand, same

SETTLE_S = 0.3  # before memory is looked at
PINNED = "openai/gpt-4o-mini"  # what a second choice answers is not kept in the cache


class Latency(Struct, frozen=True):
    """One caller that waits for each answer. `hit`: the router answers from its cache.

    `beat`: many callers at a fixed beat, which keep a core of the router half busy.
    """

    small: Compared
    large: Compared
    hit: Compared
    beat: Compared


class Throughput(Struct, frozen=True):
    """Callers that keep each target busy. `cpu_us`: processor time per request, by server."""

    busy: Compared
    cpu_us: dict[str, float]


class Streams(Struct, frozen=True):
    """Streams side by side. `cpu_s`: processor seconds that `some` took, by server."""

    some: Compared
    many: Compared
    cpu_s: dict[str, float]


def latency(stand: Stand) -> Latency:
    """The three kinds of answers on one connection."""
    settings = stand.settings
    job = Job(
        connections=1,
        requests=settings.single,
        rounds=settings.rounds,
        warm_up=settings.warm_up,
        round_s=settings.round_s,
    )
    small = stand.measure(job, same(SMALL))
    large = stand.measure(job, same(LARGE), leave_out=stand.peers)
    cached = request(SMALL, model=PINNED, temperature=0)
    hit = stand.measure(job, lambda _: [(cached, False)], leave_out=stand.peers)
    stand.hits += hit[ROUTER].sent - 1
    beat = Job(
        connections=settings.connections,
        requests=settings.single,
        rounds=settings.rounds,
        warm_up=settings.warm_up,
        per_s=settings.beat_per_s,
    )
    alone = [name for name in stand.targets if name != ROUTER]
    return Latency(small, large, hit, stand.measure(beat, same(SMALL), leave_out=alone))


def throughput(stand: Stand) -> Throughput:
    """What each target carries."""
    settings = stand.settings
    job = Job(
        connections=settings.connections,
        requests=settings.busy,
        rounds=settings.rounds,
        warm_up=settings.warm_up,
        round_s=settings.round_s,
    )
    before = stand.cpu_s()
    busy = stand.measure(job, same(SMALL))
    after = stand.cpu_s()
    cpu_us = {k: round((after[k] - v) / busy[k].sent * 1e6, 1) for k, v in before.items()}
    return Throughput(busy, cpu_us)


def streams(stand: Stand) -> Streams:
    """When streams begin, how late their events are, and what they cost."""
    settings = stand.settings
    before = stand.cpu_s()
    some = stand.measure(_streams(stand, settings.streams), same(SMALL, stream=True))
    after = stand.cpu_s()
    many = stand.measure(
        _streams(stand, settings.many_streams),
        same(SMALL, stream=True),
        leave_out=stand.peers,
    )
    return Streams(some, many, {k: round(after[k] - v, 3) for k, v in before.items()})


def _streams(stand: Stand, count: int) -> Job:
    """Streams that begin evenly over the ramp. A first round does not count."""
    settings = stand.settings
    return Job(
        connections=count,
        requests=count,
        rounds=settings.stream_rounds,
        warm_up=count,
        per_s=count / settings.ramp_s,
        events=settings.events,
    )


def idle_bytes(stand: Stand) -> int:
    """What the router holds after its first answer."""
    first_answer(stand.targets[ROUTER])
    stand.sent += 1
    time.sleep(SETTLE_S)
    return stand.router.rss()
