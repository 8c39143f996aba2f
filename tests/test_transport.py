"""Faults of the transport as a caller of the router meets them, one test for each row of them.

After each: sockets, files and tasks are back, a healthy request works, one record was written, and
only the target that failed was blamed. What only the client can see is in `test_transport_*`.
"""

import asyncio
import base64
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.text import CANONICAL_ANSWER
from llmr.upstreams.http import Origin
from llmr.upstreams.resolve import Address, Resolver
from tests.fault_proxy import FaultProxy, FullQueue
from tests.harness import Reply, Server, eventually, upstream
from tests.raw_upstream import hold, open_files, request_of, serving_beside
from tests.tls import Authority

MODEL, OTHER, LAB = "openai/gpt-5.4-mini", "openai/gpt-5.4", "lab-large"
CLOSED = "http://127.0.0.1:9"
LIMITS = {"connect_s": 0.3, "first_event_s": 0.3}


class Rig:
    """A router before the sandbox and a `lab`, watched while a fault is on."""

    def __init__(self, server: Server, sandbox: Control) -> None:
        self.server = server
        self.gateway = server.gateway
        self.sandbox = sandbox
        self.records: list[Any] = []
        self.calls = 0
        self.gateway.recorder.observers.append(self.records.append)
        eventually(lambda: all(s.checked for s in self.gateway.sources.values()), "looked at")
        for _ in range(2):  # what is loaded late is loaded now
            assert server.request("GET", "/livez").status == 200
            assert server.chat(model=OTHER).status == 200
            self.calls += 1
        eventually(lambda: self.gateway.in_flight == 0, "warm")
        (self._loop,) = {task.get_loop() for task in self.gateway._tasks}
        sandbox.reset()
        self.watch()

    def watch(self) -> None:
        """From here on no file and no task may come to stay."""
        self.files, self.tasks = self._files(), self._tasks()

    def put(self, name: str, url: str, **more: Any) -> None:
        """In the place of the client of that upstream, one made otherwise."""
        before = self.gateway._origins[name]
        asyncio.run_coroutine_threadsafe(before.close(), self._loop).result(5)
        self.gateway._origins[name] = Origin(name, url, environ={}, **more)

    def chat(self, **body: Any) -> Reply:
        """A call, during which the process goes on answering others (I9)."""
        self.calls += 1
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.server.chat, **body)
            begun = time.monotonic()
            waits = list(self._probes(call.done))
            reply = call.result()
        # A busy machine may delay one; a blocked loop would answer none before the call ends.
        assert time.monotonic() - begun < 0.25 or min(waits, default=9.9) < 0.1
        assert b"sk-test-key" not in reply.body
        return reply

    def _probes(self, over: Callable[[], bool]) -> Iterator[float]:
        """Seconds that `/livez` took, each time it answered before it was over."""
        while not over():
            begun = time.monotonic()
            assert self.server.request("GET", "/livez").status == 200
            if not over():
                yield time.monotonic() - begun
            time.sleep(0.02)

    def falls_over(self, first: str = LAB, within_s: float = 3.0, **more: Any) -> Reply:
        """A list of two: the second one answers, whole, and the caller sees nothing else."""
        begun = time.monotonic()
        reply = self.chat(models=[first, OTHER], **more)
        assert time.monotonic() - begun < within_s
        assert reply.status == 200
        assert reply.headers["x-llmr-model"] == OTHER
        assert reply.text().startswith(CANONICAL_ANSWER)
        return reply

    def attempts(self, reply: Reply) -> list[dict[str, Any]]:
        path = f"/v1/decisions/{reply.headers['x-llmr-decision-id']}"
        found: list[dict[str, Any]] = self.server.request("GET", path).json["outcome"]["attempts"]
        return found

    def blamed(self) -> set[str]:
        cooling = self.server.request("GET", "/health").json["cooling"]
        return {name for model in (MODEL, OTHER, LAB) for name in cooling if model in name}

    def settled(self, *blamed: str) -> None:
        """What holds after every fault (I3, I4, I9, I10)."""
        eventually(lambda: self.gateway.in_flight == 0, "no call left")
        eventually(self._quiet, "no connection in use")
        eventually(lambda: self._files() <= self.files, "files are back")
        eventually(lambda: self._tasks() <= self.tasks, "tasks are back")
        eventually(lambda: len(self.records) == self.calls, "a record of each")
        found = self.blamed()
        assert all(any(name.endswith(one) for one in blamed) for name in found)
        assert len(found) == len(blamed)
        self.sandbox.clear()
        begun = time.monotonic()
        assert self.chat(model=OTHER).text().startswith(CANONICAL_ANSWER)
        assert time.monotonic() - begun < 1.0

    def _quiet(self) -> bool:
        found = [origin.statistics() for origin in self.gateway._origins.values()]
        return all(one.open == one.idle and one.waiting == 0 for one in found)

    def _files(self) -> int:
        """Open files but the idle connections, which are kept on purpose."""
        kept = sum(o.statistics().idle for o in self.gateway._origins.values())
        return open_files() - kept

    def _tasks(self) -> int:
        return len(asyncio.all_tasks(self._loop))


@contextmanager
def rig_of(sandbox_process: SandboxProcess, **more: Any) -> Iterator[Rig]:
    more.setdefault("limits", LIMITS)
    tree = upstream(sandbox_process.base_url, **more)
    tree["upstreams"]["lab"] = {"base_url": CLOSED, "models": [{"id": LAB}]}
    with Server(tree) as server:
        yield Rig(server, sandbox_process.control)


@pytest.fixture
def rig(sandbox_process: SandboxProcess, sandbox: Control) -> Iterator[Rig]:
    with rig_of(sandbox_process) as made:
        yield made


def raw(*pieces: bytes, **more: Any) -> dict[str, Any]:
    """The sandbox writes exactly these bytes, or this body under a `status`."""
    told = [{"data": base64.b64encode(piece).decode(), "delay": 0.0} for piece in pieces]
    return {"kind": "raw", "pieces": told, **more}


def completion(text: str = CANONICAL_ANSWER) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    return json.dumps({"id": "gen-1", "choices": [choice], "usage": usage}).encode()


def stream(text: str = CANONICAL_ANSWER) -> bytes:
    def event(delta: dict[str, Any], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + json.dumps({"id": "gen-1", "choices": [choice]}).encode() + b"\n\n"

    middle = len(text) // 2
    halves = [event({"content": part}, None) for part in (text[:middle], text[middle:])]
    return b"".join([*halves, event({}, "stop"), b"data: [DONE]\n\n"])


# --- T01 to T04: no connection ---


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_t01_a_name_that_does_not_resolve_falls_over(
    rig: Rig, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    over = threading.Event()

    def lookup(host: str, port: int) -> Sequence[Address]:
        if how == "hangs":
            over.wait(5)
        raise OSError("no such name")

    rig.put("lab", "http://nowhere.test", resolver=Resolver(lookup))
    rig.falls_over()
    assert "upstream lab: no connection: name: nowhere.test" in caplog.text
    over.set()
    rig.settled(LAB)


def test_t02_a_refused_connection_falls_over_at_once(rig: Rig) -> None:
    first, second = rig.attempts(rig.falls_over())
    assert (first["outcome"], second["outcome"]) == ("transport", "ok")
    assert first["duration_ms"] < 250  # and not the connect limit
    rig.settled(LAB)


@pytest.fixture
def queue() -> Iterator[FullQueue]:
    full = FullQueue()
    yield full
    full.close()


def test_t03_a_connection_that_never_comes_falls_over_at_the_limit(
    queue: FullQueue, rig: Rig
) -> None:
    rig.put("lab", f"http://127.0.0.1:{queue.port}")
    assert 300 <= rig.attempts(rig.falls_over(stream=True))[0]["duration_ms"] < 2000
    rig.settled(LAB)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("expired", "has expired"),
        ("wrong host", "mismatch"),
        ("unknown issuer", "certificate refused"),
        ("stall", "handshake"),
    ],
)
def test_t04_a_bad_handshake_falls_over_and_is_told(
    rig: Rig, authority: Authority, caplog: pytest.LogCaptureFixture, fault: str, reason: str
) -> None:
    name = "other.test" if fault == "wrong host" else "up.test"
    tls = authority.server(name, days=-1 if fault == "expired" else 2)
    trust = None if fault == "unknown issuer" else authority.client()
    with serving_beside(hold, None if fault == "stall" else tls) as served:
        rig.watch()
        here: Address = (socket.AF_INET, ("127.0.0.1", served.port))
        rig.put("lab", "https://up.test/v1", tls=trust, resolver=Resolver(lambda *_: [here]))
        attempts = rig.attempts(rig.falls_over())
        assert reason in caplog.text
        assert served.accepted <= 1
        assert [attempt["model"] for attempt in attempts] == [LAB, OTHER]
        rig.settled(LAB)


# --- T05 to T09: silence and resets ---


def test_t05_a_reset_before_any_byte_is_unseen(rig: Rig) -> None:
    rig.sandbox.fault(MODEL, {"kind": "reset"})
    rig.falls_over(MODEL)
    assert 1 <= len(rig.sandbox.attempts(MODEL)) <= 2
    rig.settled(MODEL)


@pytest.mark.parametrize("streamed", [True, False])
def test_t06_an_idle_connection_closed_by_the_peer_is_retried_unseen(
    rig: Rig, streamed: bool
) -> None:
    body = completion()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

    async def once_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Every connection answers once, and is closed as the second request reaches it."""
        await request_of(reader)
        writer.write(head % len(body) + body)
        await request_of(reader)

    with serving_beside(once_each) as served:
        rig.watch()
        rig.put("lab", served.url)
        for number in range(1, 5):
            reply = rig.chat(model=LAB, stream=streamed)
            assert reply.text() == CANONICAL_ANSWER
            assert reply.headers["x-llmr-attempts"] == "1"
            assert served.accepted == number
        assert rig.gateway._origins["lab"].statistics().retried == 3
        rig.files += 1  # the far end of the connection that is kept
        rig.settled()


@pytest.mark.parametrize("streamed", [True, False])
def test_t07_a_silent_target_falls_over_at_the_limit(
    sandbox_process: SandboxProcess, sandbox: Control, streamed: bool
) -> None:
    with rig_of(sandbox_process, limits={"first_event_s": 0.3}) as rig:
        sandbox.fault(MODEL, {"kind": "silent", "seconds": 30})
        reply = rig.chat(models=[MODEL, OTHER], stream=streamed, max_tokens=1)
        assert (reply.status, reply.headers["x-llmr-model"]) == (200, OTHER)
        assert 250 < rig.attempts(reply)[0]["duration_ms"] < 2000
        assert len(sandbox.attempts(MODEL)) == 1
        assert sandbox.attempts(MODEL)[0]["ended"] == "peer_gone"
        rig.settled(MODEL)


def test_t08_a_head_that_drips_does_not_extend_the_limit(rig: Rig) -> None:
    rig.sandbox.fault(MODEL, {"kind": "drip_headers", "interval_s": 0.05})
    reply = rig.falls_over(MODEL, stream=True)
    assert 250 < rig.attempts(reply)[0]["duration_ms"] < 2000
    rig.settled(MODEL)


def test_t09_a_body_that_drips_ends_by_total_time(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    with rig_of(sandbox_process, limits={"total_s": 0.3}) as rig:
        sandbox.fault(MODEL, {"kind": "drip_body", "interval_s": 0.02})
        begun = time.monotonic()
        reply = rig.chat(model=MODEL)
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        assert 0.25 < time.monotonic() - begun < 2.0
        rig.settled(MODEL)


def test_i10_a_deadline_of_the_callers_own_is_no_fault_of_the_target(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    with rig_of(sandbox_process, limits={}) as rig:
        sandbox.fault(MODEL, {"kind": "drip_body", "interval_s": 0.02})
        reply = rig.chat(model=MODEL, deadline_ms=300)
        assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
        rig.settled()


# --- T10, T11: framing ---


@pytest.mark.parametrize("by", [10, -10])
def test_t10_a_length_that_is_wrong_is_a_failure(rig: Rig, by: int) -> None:
    rig.sandbox.fault(MODEL, {"kind": "content_length", "by": by})
    rig.falls_over(MODEL)
    rig.settled()


def test_t10_s16_surplus_bytes_end_the_connection_and_not_the_answer(rig: Rig) -> None:
    body = completion()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    rig.sandbox.fault(MODEL, raw(head % len(body) + body + b"HTTP/1.1 200", status=None), times=1)
    for _ in range(2):
        assert rig.chat(model=MODEL).text().startswith(CANONICAL_ANSWER)
    first, second = rig.sandbox.attempts(MODEL)
    assert first["connection"] != second["connection"]
    rig.settled()


@pytest.mark.parametrize("how", ["size", "missing_end"])
def test_t11_a_body_without_its_end_is_a_failure(rig: Rig, how: str) -> None:
    rig.sandbox.fault(MODEL, {"kind": "bad_chunk", "how": how})
    rig.falls_over(MODEL)
    rig.settled()


def test_t11_a_broken_stream_never_ends_cleanly(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    with rig_of(sandbox_process, limits={"continue": "never"}) as rig:
        sandbox.fault(MODEL, {"kind": "bad_chunk", "how": "size"})
        reply = rig.chat(model=MODEL, stream=True)
        assert reply.status == 200
        assert "[DONE]" not in reply.body.decode()
        assert "error" in reply.events()[-1]
        rig.settled()


# --- T12, T13: encodings and sizes ---


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", deflated)],
    ids=["gzip", "deflate", "raw deflate"],
)
def test_t12_a_compressed_answer_is_decoded(
    rig: Rig, coding: str, pack: Callable[[bytes], bytes], streamed: bool
) -> None:
    kind = "text/event-stream" if streamed else "application/json"
    data = pack(stream() if streamed else completion())
    headers = {"content-type": kind, "content-encoding": coding}
    rig.sandbox.fault(MODEL, raw(data[:50], data[50:], status=200, headers=headers))
    for _ in range(2):
        reply = rig.chat(model=MODEL, stream=streamed)
        assert reply.text() == CANONICAL_ANSWER
        assert "content-encoding" not in reply.headers
        assert reply.headers["x-llmr-attempts"] == "1"
    rig.settled()


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"])
def test_t12_what_cannot_be_decoded_falls_over(rig: Rig, coding: str, streamed: bool) -> None:
    kind = "text/event-stream" if streamed else "application/json"
    headers = {"content-type": kind, "content-encoding": coding}
    rig.sandbox.fault(MODEL, raw(b"\x1f\x8b\xff garbage", status=200, headers=headers))
    rig.falls_over(MODEL, stream=streamed)
    rig.settled()


def bomb() -> dict[str, Any]:
    data = gzip.compress(completion("0" * 50_000_000))
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return raw(data, status=200, headers=headers)


GIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "bomb": bomb,
    "field": lambda: raw(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000, status=None, repeat=True),
    "fields": lambda: raw(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", status=None, repeat=True),
}


@pytest.mark.parametrize("name", GIANTS)
def test_t13_giant_answers_are_a_clean_error(rig: Rig, name: str) -> None:
    rig.sandbox.fault(MODEL, GIANTS[name]())
    reply = rig.chat(model=MODEL)
    assert (reply.status, reply.error["code"]) == (502, "invalid_upstream_answer")
    rig.settled()


# --- T14, T15 ---


def test_t14_more_callers_than_connections_are_served_in_turn_or_shed(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    with rig_of(sandbox_process) as rig:
        rig.put("openrouter", sandbox_process.base_url, max_connections=2, max_waiting=20)
        sandbox.fault(MODEL, {"kind": "delay", "seconds": 0.05})
        begun = time.monotonic()
        with ThreadPoolExecutor(50) as pool:
            calls = [pool.submit(rig.server.chat, model=MODEL) for _ in range(50)]
            replies = [call.result() for call in calls]
        rig.calls += 50
        assert time.monotonic() - begun < 8.0
        shed = [reply for reply in replies if reply.status != 200]
        assert 1 <= len(shed) <= 48  # two go, at most twenty wait, and for 0.3 s at most
        assert {(r.status, r.error["code"]) for r in shed} == {(503, "upstream_pool_busy")}
        assert {r.headers["retry-after"] for r in shed} == {"1"}
        assert len({a["connection"] for a in sandbox.attempts(MODEL)}) <= 2
        rig.settled()


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_t15_one_dead_address_of_several_is_unseen(
    sandbox_process: SandboxProcess, sandbox: Control, queue: FullQueue, how: str
) -> None:
    port = sandbox_process.port
    dead = ("127.0.0.2", port) if how == "refuses" else ("127.0.0.1", queue.port)
    table: list[Address] = [(socket.AF_INET, dead), (socket.AF_INET, ("127.0.0.1", port))]
    with rig_of(sandbox_process, limits={}) as rig:
        rig.put("openrouter", "http://up.test/api/v1", resolver=Resolver(lambda *_: table))
        reply = rig.chat(model=MODEL)
        assert (reply.status, reply.headers["x-llmr-attempts"]) == (200, "1")
        rig.settled()


def test_t15_new_connections_follow_a_change_of_address(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    with (
        FaultProxy(("127.0.0.1", sandbox_process.port)) as old,
        FaultProxy(("127.0.0.1", sandbox_process.port)) as new,
        rig_of(sandbox_process) as rig,
    ):
        table: list[Address] = [(socket.AF_INET, ("127.0.0.1", old.port))]
        clock = [0.0]
        resolver = Resolver(lambda host, _: list(table), lambda: clock[0])
        rig.put("openrouter", "http://up.test/api/v1", resolver=resolver)
        assert rig.chat(model=MODEL).status == 200
        table[:] = [(socket.AF_INET, ("127.0.0.1", new.port))]
        clock[0] += 2.0
        old.set("reset")
        old.set("refuse")
        reply = rig.chat(model=MODEL)
        assert (reply.status, reply.headers["x-llmr-attempts"]) == (200, "1")
        assert (old.accepted, new.accepted) == (1, 1)
        rig.watch()
        rig.settled()
