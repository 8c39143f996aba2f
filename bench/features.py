"""What was on while it was measured, and the proof that it did its work."""

import re
import time

import msgspec
from msgspec import Struct

from bench.children import BenchError
from bench.payload import Target
from bench.servers import ask, first_answer

ON = (
    "a log line and a record per request",
    "Prometheus and rolling metrics",
    "the last decisions kept",
    "response cache in memory",
    "health, cooldown and retry budget",
    "whole catalogue",
)
PATIENCE_S = 10.0  # the record of an answer may come just after it
_COUNTED = re.compile(rb"^llmr_requests_total\{[^}]*\} (\S+)$", re.MULTILINE)
_LINE = re.compile(r"^\S+ \S+ \w+ +\d{3} .* cache=", re.MULTILINE)
_LOST = re.compile(r"^(\d+) log lines were lost$", re.MULTILINE)
_NO_CATALOGUE = "GET /models answered 404"


class Features(Struct, frozen=True):
    """What was on, and what it did for `sent` requests."""

    on: tuple[str, ...]
    sent: int
    counted: int  # by /metrics
    decisions: int  # the number of the last one kept
    looked_up: int  # in the cache
    hits: int
    logged: int = 0
    lines_lost: int = 0  # that the log could not write down in time, by its own account
    complaints: list[str] = []  # lines of the log that are no plain request line


def asked(target: Target, sent: int, hits: int | None) -> Features:
    """What the running router says it did; a `BenchError` where that is not what it was sent.

    `hits`: how many answers have to have come from the cache, where that is known.
    """
    decision = first_answer(target)
    sent += 1
    until = time.monotonic() + PATIENCE_S
    while (counted := _counted(target)) != sent and time.monotonic() < until:
        time.sleep(0.05)
    must(counted == sent, f"{sent:,} requests were sent, and /metrics counts {counted:,}")
    must(bool(decision), "an answer carries no id of its decision")
    status, _, body = ask(target, "GET", f"/v1/decisions/{decision}")
    must(status == 200, f"the last decision is not kept: GET /v1/decisions answers {status}")
    must(b'"outcome":null' not in body, "the last decision has no outcome")
    number = int(str(decision).rpartition("-")[2], 16)
    must(number == sent, f"{sent:,} requests were sent, and {number:,} decisions kept")
    stats = msgspec.json.decode(ask(target, "GET", "/cache/stats")[2], type=dict[str, object])
    found, missed = int(str(stats["hits"])), int(str(stats["misses"]))
    must(hits is None or found == hits, f"{hits} hits were due, and the cache counts {found}")
    return Features(ON, sent, counted, number, found + missed, found)


def read(features: Features, log: str) -> Features:
    """With what the log of the router holds once it has ended."""
    logged, lost = lines(log, features.sent)
    plain = [" INFO ", _NO_CATALOGUE, "log lines were lost"]
    others = [line for line in log.splitlines() if not any(word in line for word in plain)]
    bare = dict.fromkeys(re.sub(r"^[\d-]+ [\d:,]+ ", "", line) for line in others)
    return msgspec.structs.replace(
        features, logged=logged, lines_lost=lost, complaints=list(bare)[:20]
    )


def lines(log: str, sent: int) -> tuple[int, int]:
    """How many requests a log tells of, and how many it says it lost: all that were sent."""
    logged, lost = len(_LINE.findall(log)), sum(int(n) for n in _LOST.findall(log))
    must(
        logged + lost == sent,
        f"{sent:,} requests were sent, and the log has {logged:,} lines and lost {lost:,}",
    )
    return logged, lost


def must(holds: bool, otherwise: str) -> None:
    """Refuse figures of a router that left its work undone."""
    if not holds:
        raise BenchError(f"The figures do not count: {otherwise}.")


def _counted(target: Target) -> int:
    status, _, text = ask(target, "GET", "/metrics?format=prometheus")
    must(status == 200, f"GET /metrics answers {status}")
    return int(sum(float(value) for value in _COUNTED.findall(text)))
