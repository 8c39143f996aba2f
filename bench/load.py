"""The load generator, a process of its own: reads one job as JSON, puts it out, prints the results.

Targets take turns, round after round, so that what else the machine does falls on all of them alike.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import uvloop
from msgspec import Struct

from bench import payload
from bench.callers import Caller, Round, Tally
from bench.listeners import Listener, StreamTally, listen
from bench.spread import Spread, spread

CONNECTS_AT_ONCE = 32


class Job(Struct, frozen=True):
    """What to measure. `ports` maps the names of the targets, all on the loopback."""

    kind: Literal["whole", "streams"]
    ports: dict[str, int]
    body_bytes: int
    connections: int
    rounds: int
    requests: int = 0  # of a round
    warm_up: int = 0
    events: int = 0  # of a stream
    ramp_s: float = 0.0
    limit_s: float = 120.0


class Measured(Struct, frozen=True):
    """What one target gave. `late` is how long after its sending an event of a stream came."""

    answered: int
    per_s: float
    took: Spread  # to the whole answer, or to the first content of a stream
    late: Spread
    errors: dict[str, int]


async def whole(job: Job) -> dict[str, Measured]:
    """Whole answers, in a closed loop."""
    tallies = {name: Tally() for name in job.ports}
    callers = {name: await _connected(Caller, port, job) for name, port in job.ports.items()}
    spent = dict.fromkeys(job.ports, 0.0)

    async def round(name: str, count: int, tally: Tally) -> float:
        request = payload.http_post(job.ports[name], payload.request(job.body_bytes))
        shared = Round(request, count, len(callers[name]), tally)
        begun = time.perf_counter()
        for caller in callers[name]:
            caller.begin(shared)
        await shared.over
        return time.perf_counter() - begun

    for name in job.ports:
        await round(name, job.warm_up, Tally())
    for _ in range(job.rounds):
        for name, tally in tallies.items():
            spent[name] += await round(name, job.requests, tally)
    for caller in (caller for group in callers.values() for caller in group):
        caller.transport.close()
    return {
        name: Measured(
            len(tally.took),
            round_to(len(tally.took) / spent[name]),
            spread(tally.took),
            spread(()),
            dict(tally.errors),
        )
        for name, tally in tallies.items()
    }


async def streams(job: Job) -> dict[str, Measured]:
    """Many streams at once; a first round, which opens the connections, does not count."""
    tallies = {name: StreamTally() for name in job.ports}
    begun = dict.fromkeys(job.ports, 0.0)
    for number in range(job.rounds + 1):
        for name, port in job.ports.items():
            tally = tallies[name] if number else StreamTally()
            request = payload.http_post(port, payload.request(job.body_bytes, stream=True))
            listeners = await _connected(
                lambda request=request, tally=tally: Listener(request, job.events, tally), port, job
            )
            start = time.perf_counter()
            await listen(listeners, job.ramp_s)
            begun[name] += time.perf_counter() - start if number else 0.0
    return {
        name: Measured(
            len(tally.first),
            round_to(len(tally.late) / begun[name]),
            spread(tally.first),
            spread(tally.late),
            dict(tally.errors),
        )
        for name, tally in tallies.items()
    }


async def _connected[P: asyncio.Protocol](make: Callable[[], P], port: int, job: Job) -> list[P]:
    ...


if __name__ == "__main__":
    pass
