"""What a healthy request costs, in calls: they do not depend on how fast the clock runs.

A profile function sees every call made in the server's thread, of Python functions and of those
written in C. The least of several batches is taken, since background work only ever adds.
"""

import http.client
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from llmr.sandbox.process import SandboxProcess
from tests.harness import Server, upstream

# Calls per request, as counted last: to be lowered when a request became cheaper.
CALLS = {"whole": 342, "stream": 2705, "cached": 214, "read": 460}
MARGIN = 1.5  # interpreters count differently; twice the cost is beyond it

WARM_UP, BATCHES, BATCH = 40, 12, 10


class Calls:
    """Counts the calls of one thread."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1


@pytest.fixture
def counted(
    sandbox_process: SandboxProcess, request: pytest.FixtureRequest
) -> Iterator[tuple[Server, Calls]]:
    """A server whose thread counts its calls; it reads prompts where it is asked to."""
    calls = Calls()
    with ExitStack() as stack:
        threading.setprofile(calls)
        try:
            tree = upstream(sandbox_process.base_url, routing={"quality": request.param})
            server = stack.enter_context(Server(tree, sandbox=True))
        finally:
            threading.setprofile(None)  # threads that begin later are not counted
        yield server, calls


def least(server: Server, calls: Calls, **body: Any) -> float:
    """The least calls of a request over some batches, on one connection."""
    fields = {"messages": [{"role": "user", "content": "word " * 400}], "model": "auto", **body}
    data = json.dumps(fields).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    found = []
    try:
        for number in range(WARM_UP + BATCHES * BATCH):
            if number >= WARM_UP and (number - WARM_UP) % BATCH == 0:
                found.append(calls.count)
            connection.request("POST", "/v1/chat/completions", data)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
    finally:
        connection.close()
    return min(after - before for before, after in pairwise(found)) / BATCH


@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or coverage has the hooks")
@pytest.mark.parametrize(
    ("counted", "kind", "body"),
    [
        ("static", "whole", {}),
        ("static", "stream", {"stream": True}),
        ("static", "cached", {"temperature": 0}),
        ("prompt", "read", {}),
    ],
    indirect=["counted"],
)
def test_a_healthy_request_costs_no_more_calls_than_it_did(
    counted: tuple[Server, Calls], kind: str, body: dict[str, Any]
) -> None:
    calls = least(*counted, **body)
    assert 0 < calls <= CALLS[kind] * MARGIN, f"{kind}: {calls:.0f} calls, once {CALLS[kind]}"
