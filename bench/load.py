"""What the load generator is told, and what it tells."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from bench import payload
from bench.children import BenchError, Child
from bench.payload import Target
from bench.spread import Spread

LOOK_S = 0.02
SLACK_S = 30.0

Request = tuple[bytes, bool]  # the body, and whether a stream is asked for


class Job(Struct, frozen=True):
    """What to send, alike to every target.

    Without `per_s` the loop is closed: each connection sends its next request when its answer is
    whole. With it requests are due at a fixed beat, and are timed from when they were due.
    """

    connections: int
    requests: int  # of a round, all connections together
    rounds: int = 1
    warm_up: int = 0
    per_s: float = 0.0
    events: int = 0  # of a stream
    round_s: float = 60.0
    patience_s: float = 30.0


class Measured(Struct, frozen=True):
    """What one target gave.

    `took` is the time to the whole answer, or to the first content of a stream; `late` is how long
    after it was sent an event of a stream came. Answers with an error are counted, not timed.
    `sent` has those that do not count as well. `untold` is how far the time a whole answer took
    lies from what its `Server-Timing` says.
    """

    sent: int
    answered: int
    reconnected: int
    per_s: float
    per_round: list[float]
    took: Spread
    late: Spread
    untold: Spread
    errors: dict[str, int]


Compared = dict[str, Measured]  # by target


def run(
    program: Path,
    job: Job,
    requests: Callable[[Target], Sequence[Request]],
    targets: Mapping[str, Target],
    folder: Path,
    on: Sequence[int],
    meanwhile: Callable[[], None] | None = None,
) -> Compared:
    """Have a job carried out; `meanwhile` is called now and then."""
    text = folder / "text"
    text.write_text(payload.TEXT)
    command = [str(program), "--text", str(text)]
    for flag, value in (
        ("connections", job.connections),
        ("requests", job.requests),
        ("rounds", job.rounds),
        ("warm-up", job.warm_up),
        ("rate", job.per_s),
        ("events", job.events),
        ("seconds", job.round_s),
        ("patience", job.patience_s),
    ):
        command += [f"--{flag}", f"{value:g}" if isinstance(value, float) else str(value)]
    for name, target in targets.items():
        file = folder / f"requests-{name}"
        posts = [(payload.http_post(target, body), stream) for body, stream in requests(target)]
        payload.write_requests(file, posts)
        command += ["--target", f"{name}:{target.port}:{file}"]
    limit_s = SLACK_S + (job.round_s + job.patience_s) * (job.rounds + 1) * len(targets)
    with Child(command, on, log=folder / "load.log") as child:
        until = time.monotonic() + limit_s
        while meanwhile is not None and time.monotonic() < until and not child.ended(LOOK_S):
            meanwhile()
        answer = child.ask(b"", max(1.0, until - time.monotonic()))
    try:
        return msgspec.json.decode(answer, type=Compared)
    except msgspec.DecodeError as error:
        raise BenchError(f"the load generator said nothing that can be read: {error}") from None
