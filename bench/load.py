"""The load generator, a process of its own: a job as JSON on stdin, what it measured on stdout.

Targets take turns, round after round, so that whatever else the machine does falls on all alike.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

import msgspec
import uvloop
from msgspec import Struct

from bench import payload
from bench.callers import Caller, Round, Tally
from bench.listeners import Listener, StreamTally
from bench.spread import Spread, spread

CONNECTING = 32  # connections opened at a time
SETTLE_S = 0.05

P = TypeVar("P", bound=asyncio.Protocol)


class Job(Struct, frozen=True):
    """What to measure. `ports` maps the names of the targets, all on the loopback."""

    kind: Literal["whole", "streams"]
    ports: dict[str, int]
    body_bytes: int
    connections: int
    rounds: int
    requests: int = 0  # of a round, all connections together
    warm_up: int = 0
    events: int = 0  # of a stream
    ramp_s: float = 0.0
    round_limit_s: float = 60.0


class Measured(Struct, frozen=True):
    """What one target gave.

    `took` is the time to the whole answer, or to the first content of a stream; `late` is how long
    after it was sent an event of a stream came. Answers with an error are counted, not timed.
    """

    answered: int
    per_s: float  # whole answers, or events
    took: Spread
    late: Spread
    errors: dict[str, int]


async def whole(job: Job) -> dict[str, Measured]:
    """Whole answers, in a closed loop on connections that stay open."""
    tallies = {name: Tally() for name in job.ports}
    spent = dict.fromkeys(job.ports, 0.0)
    callers = {name: await connected(Caller, port, job) for name, port in job.ports.items()}
    for name in job.ports:
        await _whole_round(job, name, callers[name], job.warm_up, Tally())
    for _ in range(job.rounds):
        for name, tally in tallies.items():
            spent[name] += await _whole_round(job, name, callers[name], job.requests, tally)
    for group in callers.values():
        for caller in group:
            caller.transport.close()
    return {
        name: Measured(
            len(tally.took),
            round(len(tally.took) / spent[name], 1),
            spread(tally.took),
            spread(()),
            dict(tally.errors),
        )
        for name, tally in tallies.items()
    }


async def _whole_round(
    job: Job, name: str, callers: list[Caller], requests: int, tally: Tally
) -> float:
    """Seconds that a round took."""
    request = payload.http_post(job.ports[name], payload.request(job.body_bytes))
    shared = Round(request, requests, len(callers), tally)
    begun = time.perf_counter()
    for caller in callers:
        caller.begin(shared)
    try:
        async with asyncio.timeout(job.round_limit_s):
            await shared.over
    except TimeoutError:
        tally.errors["no answer in time"] += shared.running
        shared.left = 0
        for caller in callers:
            caller.part = None
            caller.transport.abort()
    return time.perf_counter() - begun


async def streams(job: Job) -> dict[str, Measured]:
    """Many streams at once. A first round, in which connections are opened, does not count."""
    tallies = {name: StreamTally() for name in job.ports}
    spent = dict.fromkeys(job.ports, 0.0)
    for number in range(job.rounds + 1):
        for name, port in job.ports.items():
            tally = tallies[name] if number else StreamTally()
            took = await _stream_round(job, port, tally)
            spent[name] += took if number else 0.0
    return {
        name: Measured(
            len(tally.first),
            round(len(tally.late) / spent[name], 1),
            spread(tally.first),
            spread(tally.late),
            dict(tally.errors),
        )
        for name, tally in tallies.items()
    }


async def _stream_round(job: Job, port: int, tally: StreamTally) -> float:
    """Seconds that a round took. The streams begin evenly over the ramp."""
    request = payload.http_post(port, payload.request(job.body_bytes, stream=True))
    listeners = await connected(partial(Listener, request, job.events, tally), port, job)
    begun = time.perf_counter()
    for number, listener in enumerate(listeners):
        wait = begun + number * job.ramp_s / len(listeners) - time.perf_counter()
        await asyncio.sleep(max(0.0, wait))
        listener.begin()
    _, waiting = await asyncio.wait([x.over for x in listeners], timeout=job.round_limit_s)
    if waiting:
        tally.errors["no end in time"] += len(waiting)
    for listener in listeners:
        listener.transport.abort()
    return time.perf_counter() - begun


async def connected(make: Callable[[], P], port: int, job: Job) -> list[P]:
    """The connections of a job to one target, all open."""
    loop = asyncio.get_running_loop()
    made: list[P] = []
    while len(made) < job.connections:
        count = min(CONNECTING, job.connections - len(made))
        opening = [loop.create_connection(make, "127.0.0.1", port) for _ in range(count)]
        made += [protocol for _, protocol in await asyncio.gather(*opening)]
    await asyncio.sleep(SETTLE_S)
    return made


def main() -> None:
    """Carry out the job on standard input."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    uvloop.install()
    measured = asyncio.run(whole(job) if job.kind == "whole" else streams(job))
    print(msgspec.json.encode(measured).decode())


if __name__ == "__main__":
    main()
