"""Those who wait for one call: who is told what, and when the call goes on."""

import gc
from collections import Counter
from typing import Any

import pytest

from llmr.answering import Answering
from llmr.cache.flight import Flight
from llmr.execution.attempt import Trial
from llmr.execution.executor import Run
from llmr.execution.types import Outcome
from llmr.sandbox.control import Control
from llmr.upstreams.exchange import Exchange
from tests.harness import Server, eventually

MODEL = "openai/gpt-5.4"


class Call:
    """The call of a flight, as far as a flight knows it."""

    def __init__(self) -> None:
        self.paused = self.cancelled = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        self.cancelled = True


class Waiting:
    """A listener with room for so many pieces."""

    def __init__(self, flight: Flight, room: int, *, live: bool = True) -> None:
        self.got = b""
        self.room = room
        self.ended: list[bool] = []
        self.reader = flight.join(self, live)
        self.reader.begin()

    def begin(self, outcome: Outcome) -> None:
        self.got += b">"

    def write(self, data: bytes) -> None:
        self.got += data
        self.room -= 1
        if not self.room:
            self.reader.pause()

    def landed(self, outcome: Outcome, led: bool) -> None:
        self.ended.append(led)


def flight() -> tuple[Flight, Any]:
    call: Any = Call()
    found = Flight(True, False, lambda: None)
    found.run = call
    return found, call


def test_the_call_goes_as_fast_as_the_quickest_takes_it() -> None:
    found, call = flight()
    slow = Waiting(found, 1)
    found.begin(found.outcome)
    found.write(b"a")
    assert call.paused
    quick = Waiting(found, 9)
    assert not call.paused
    found.write(b"b")
    assert (slow.got, quick.got) == (b">a", b">ab")
    quick.reader.leave()
    assert call.paused
    slow.reader.resume()
    assert slow.got == b">ab"
    assert not call.paused


def test_who_waits_for_the_whole_is_always_ready() -> None:
    found, call = flight()
    Waiting(found, 1)
    found.begin(found.outcome)
    found.write(b"a")
    whole = Waiting(found, 1, live=False)
    assert not call.paused
    found.land(found.outcome)
    assert (whole.got, whole.ended) == (b"", [False])


def test_a_late_joiner_is_given_no_more_than_it_has_room_for_and_hears_the_end_last() -> None:
    found, _ = flight()
    Waiting(found, 99)
    found.begin(found.outcome)
    for piece in (b"a", b"b", b"c"):
        found.write(piece)
    late = Waiting(found, 2)
    assert late.got == b">ab"
    found.land(found.outcome)
    assert late.ended == []
    late.reader.resume()
    assert (late.got, late.ended) == (b">abc", [False])


def test_the_last_to_leave_ends_the_call() -> None:
    found, call = flight()
    one, two = Waiting(found, 9), Waiting(found, 9)
    one.reader.leave()
    assert not call.cancelled
    two.reader.leave()
    assert call.cancelled
    assert (one.ended, two.ended) == ([], [])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/route"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "ok"},
        {"kind": "json_body", "body": "{}"},
        {"kind": "cut", "after_tokens": 3},
        {"kind": "status", "status": 503},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_request_leaves_nothing_for_the_collector(
    server: Server, sandbox: Control, path: str, stream: bool, fault: dict[str, Any]
) -> None:
    """Else memory would wait for a collection, and each collection hold up the loop."""
    kinds = (Answering, Flight, Run, Trial, Exchange)
    server.chat(path, model=MODEL, stream=stream)
    gc.collect()
    gc.disable()
    try:
        sandbox.fault(MODEL, fault)
        for number in range(5):
            server.chat(path, model=MODEL, stream=stream, user=f"{number}")
        eventually(lambda: server.gateway.in_flight == 0, "over")

        def left() -> Counter[str]:
            return Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, kinds))

        eventually(lambda: not left(), f"gone: {left()}")
    finally:
        gc.enable()
