"""Whether memory grows: a great many mixed requests, and what the router holds on the way."""

import random
import sys
import time
from collections import Counter
from pathlib import Path

from bench import load, payload
from bench.children import cores
from bench.compiler import Programs
from bench.features import lines, must
from bench.load import Job, Request
from bench.payload import Target
from bench.rows import Soak
from bench.servers import start_router, start_upstream
from bench.stand import ROUTER

PIECE = 100_000
KINDS = 2_000
CONNECTIONS = 64
EVENTS = 5  # of a stream, without a pause
REQUEST_S = 0.002  # no router is so slow; what bounds a piece
SETTLE_S = 0.5


def run(count: int, programs: Programs, folder: Path) -> Soak:
    """Send `count` requests, or a little fewer: pieces are alike, at least two."""
    piece = min(PIECE, count // 2)
    job = Job(
        connections=CONNECTIONS, requests=piece, events=EVENTS, round_s=30.0 + piece * REQUEST_S
    )
    upstream, port = start_upstream(programs, folder, events=EVENTS, interval_ms=0.0, on=cores()[1])
    held: list[int] = []
    sent: list[int] = []
    errors: Counter[str] = Counter()
    with upstream:
        router, target = start_router(port, folder)
        with router:
            for _ in range(count // piece):
                targets, on = {ROUTER: target}, cores()[1]
                found = load.run(programs.load, job, mix, targets, folder, on)[ROUTER]
                must(found.sent == piece, f"only {found.sent:,} of {piece:,} were sent in time")
                errors.update(found.errors)
                time.sleep(SETTLE_S)
                held.append(router.rss())
                sent.append(piece * len(held))
                print(f"{sent[-1]:>12,}  {held[-1] / 1e6:7.1f} MB", file=sys.stderr)
        lines(router.log_text(), sent[-1])
    return Soak(sent, held, dict(errors))


def mix(target: Target) -> list[Request]:
    """Requests as they come: of many sizes, half streamed, a quarter that may be cached."""
    rng = random.Random(0)
    out: list[Request] = []
    for number in range(KINDS):
        size = int(10 ** rng.uniform(2.5, 4.5))
        stream = rng.random() < 0.5
        more: dict[str, object] = {"user": f"user-{number}"}
        if not stream and rng.random() < 0.5:
            more["temperature"] = 0
        if rng.random() < 0.25:
            more["priority"] = rng.choice(("speed", "cost", "quality"))
        out.append((payload.request(size, stream, target.model, **more), stream))
    return out
