"""The process under signals, load and want: rows P of the fault list."""

import ast
import asyncio
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmr import gateway
from llmr.gateway import Gateway
from llmr.observe import log
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.text import CANONICAL_ANSWER
from tests.harness import Reply, Server, eventually, upstream
from tests.test_clients import (
    CHAT,
    MODEL,
    Hardened,
    answer,
    ask,
    clean,
    dial,
    lag,
    read_all,
    request_bytes,
    settled,
    unharmed,
)

SOURCE = Path(gateway.__file__).parent


class Child:
    """`llmr serve` as a process of its own, with a configuration file that can be changed.

    `before` is Python that runs first, in the process (not in its workers).
    """

    def __init__(
        self,
        folder: Path,
        tree: Mapping[str, Any] | str,
        *arguments: str,
        before: str = "",
        stderr: Any = None,
        descriptors: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.file = folder / "llmr.yaml"
        self.write(tree)
        self.log = folder / "log.txt"
        code = f"import sys\n{before}\nfrom llmr.cli.app import main\nmain()"
        if descriptors is not None:
            limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))"
            code = f"import resource\n{limit}\n{code}"
        options = ("serve", "--port", "0", "-c", str(self.file), *arguments)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log if stderr is None else stderr,
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": str(folder), **(env or {})},
            )
        self.port = 0
        self._sockets: list[socket.socket] = []

    def write(self, tree: Mapping[str, Any] | str) -> None:
        self.file.write_text(tree if isinstance(tree, str) else json.dumps(tree))

    def __enter__(self) -> "Child":
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, (line, self.log.read_text())
        self.port = int(found[1])
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.close()

    def close(self) -> None:
        """Close every connection to the child."""
        while self._sockets:
            self._sockets.pop().close()

    def signal(self, number: int) -> float:
        """Send a signal; the time when."""
        self.process.send_signal(number)
        return time.monotonic()

    def ends(self, limit_s: float = 10) -> int:
        return self.process.wait(limit_s)

    def dial(self) -> socket.socket:
        """A connection that is closed with the child."""
        connection = dial(self.port)
        self._sockets.append(connection)
        return connection

    def open(self, path: str = CHAT, body: bytes | None = None, **fields: str) -> socket.socket:
        """A request under way on a connection of its own."""
        connection = self.dial()
        connection.sendall(request_bytes(path, ask() if body is None else body, **fields))
        return connection

    def ask(self, path: str = CHAT, body: bytes | None = None, method: str = "POST") -> Reply:
        with dial(self.port) as connection:
            data = (ask() if body is None else body) if method == "POST" else b""
            connection.sendall(request_bytes(path, data, method, connection="close"))
            return answer(read_all(connection))

    def get(self, path: str) -> Reply:
        return self.ask(path, method="GET")

    def lines(self) -> str:
        return self.log.read_text()

    def workers(self) -> list[int]:
        """The worker processes that serve, on Linux."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in pids.split() if b"llmr.cli.workers" in command_of(pid)]


def command_of(pid: str) -> bytes:
    """The command line of a process, empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, on Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[0], 16)
    return bool(caught >> (number - 1) & 1)


def begun(connection: socket.socket) -> bytes:
    """Read until the first token of a stream has come."""
    data = b""
    while b'"content":"' not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


@pytest.fixture
def tree(sandbox_process: SandboxProcess) -> dict[str, Any]:
    return upstream(sandbox_process.base_url)


# --- the end ---


@pytest.mark.parametrize("workers", [1, 2])
def test_p01_sigterm_turns_new_work_away_and_lets_streams_finish(
    tmp_path: Path, tree: dict[str, Any], sandbox: Control, workers: int
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "tokens_per_s": 50})
    with Child(tmp_path, tree, "--workers", str(workers)) as child:
        eventually(lambda: child.get("/readyz").status == 200, "ready")
        stream = child.open(CHAT, ask(stream=True), connection="close")
        whole = child.open(CHAT, ask(), connection="close")
        data = begun(stream)
        eventually(lambda: len(sandbox.attempts()) == 2, "both are sent")
        sent = child.signal(signal.SIGTERM)
        if workers == 1:  # the other worker may have gone already, and what it had taken with it
            eventually(lambda: child.get("/readyz").status == 503, "it shows that it ends")
            assert child.get("/readyz").json == {"status": "draining"}
            assert child.get("/livez").status == 200
            refused = child.ask()
            clean(refused, 503, "draining")
            assert refused.headers["connection"] == "close"
            assert (refused.headers["x-should-retry"], refused.headers["retry-after"]) == (
                "true",
                "1",
            )
            assert time.monotonic() - sent < 0.5
        reply = answer(data + read_all(stream))
        assert CANONICAL_ANSWER in reply.text()
        assert reply.events()[-1] == "[DONE]"
        assert CANONICAL_ANSWER in answer(read_all(whole)).text()
        assert child.ends() == 0
        assert child.lines().count("200 v1") == 2
    assert sandbox.stats()["busy"] == 0


def test_p01_an_idle_process_shows_that_it_ends_before_it_does(
    tmp_path: Path, tree: dict[str, Any], sandbox: Control
) -> None:
    with Child(tmp_path, tree) as child:
        assert child.get("/readyz").status == 200
        sent = child.signal(signal.SIGTERM)
        eventually(lambda: child.get("/readyz").status == 503, "it shows that it ends")
        assert child.ends() == 0
        assert 0.2 < time.monotonic() - sent < 2


def test_p01_p02_at_the_drain_limit_streams_end_in_band_and_the_rest_with_an_error(
    tmp_path: Path, tree: dict[str, Any], sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "stall", "after_tokens": 5, "seconds": 30})
    before = "import llmr.server.process as p; p.DRAIN_S = 0.3"
    with Child(tmp_path, tree, before=before) as child:
        stream = child.open(CHAT, ask(stream=True))
        data = begun(stream)
        route = child.open("/route", ask(stream=True))
        begun(route)
        sandbox.fault("openai/gpt-4o", {"kind": "silent", "seconds": 30})
        whole = child.open(CHAT, ask(model="openai/gpt-4o"))
        eventually(lambda: len(sandbox.attempts()) == 3, "all are sent")
        sent = child.signal(signal.SIGTERM)
        reply = answer(data + read_all(stream))
        *before_it, last = reply.events()
        assert last["error"]["code"] == "draining"
        assert all(event["choices"][0]["finish_reason"] is None for event in before_it)
        assert b"[DONE]" not in reply.body
        assert b'"draining"' in read_all(route)
        clean(answer(read_all(whole)), 503, "draining")
        assert child.ends() == 0
        assert 0.3 < time.monotonic() - sent < 2.5
        told = child.lines()
        assert told.count("error=draining") == 3
        assert " 499 " not in told
    eventually(lambda: sandbox.stats()["busy"] == 0, "the upstream is let go")


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(signal.SIGTERM, signal.SIGTERM, 143), (signal.SIGINT, signal.SIGINT, 130)],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_p02_a_second_signal_ends_it_promptly_with_its_own_code(
    tmp_path: Path,
    tree: dict[str, Any],
    sandbox: Control,
    first: signal.Signals,
    second: signal.Signals,
    code: int,
    workers: int,
) -> None:
    sandbox.fault(MODEL, {"kind": "stall", "after_tokens": 5, "seconds": 30})
    with Child(tmp_path, tree, "--workers", str(workers)) as child:
        stream = child.open(CHAT, ask(stream=True))
        data = begun(stream)
        child.signal(first)
        time.sleep(0.3)  # longer than an idle process stays
        assert child.process.poll() is None
        sent = child.signal(second)
        last = answer(data + read_all(stream)).events()[-1]
        assert last["error"]["code"] == "draining"
        assert child.ends() == code
        assert time.monotonic() - sent < 3
        assert "error=draining" in child.lines()  # the account of it was written


def test_p03_a_killed_worker_breaks_its_streams_and_is_replaced(
    tmp_path: Path, tree: dict[str, Any], sandbox: Control
) -> None:
    if not Path("/proc/self/task").exists():
        pytest.skip("needs /proc to tell the workers apart")
    sandbox.fault(MODEL, {"kind": "ok", "tokens_per_s": 40})
    with Child(tmp_path, tree, "--workers", "2") as child:
        eventually(lambda: child.get("/readyz").status == 200, "ready")
        streams = [child.open(CHAT, ask(stream=True), connection="close") for _ in range(12)]
        data = [begun(stream) for stream in streams]
        old = child.workers()
        os.kill(old[0], signal.SIGKILL)
        read = [a + read_all(b) for a, b in zip(data, streams, strict=True)]
        for got in read:
            neat = got.endswith(b"0\r\n\r\n")
            assert neat == (b"[DONE]" in got)
        for _ in range(20):
            assert child.get("/livez").status == 200
            assert child.ask(body=ask(model="openai/gpt-4o-mini")).status == 200
        eventually(lambda: len(child.workers()) == 2, "replaced")
        assert old[1] in child.workers()
        child.signal(signal.SIGTERM)
        assert child.ends() == 0


def test_p03_a_supervisor_wakes_for_its_workers_and_for_nothing_else(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    if not Path("/proc/self/task").exists():
        pytest.skip("needs /proc to count how often it woke")

    def woke() -> int:
        pid = child.process.pid
        told = Path(f"/proc/{pid}/task/{pid}/status").read_text()
        return int(told.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])

    with Child(tmp_path, tree, "--workers", "2") as child:
        eventually(lambda: child.get("/readyz").status == 200, "ready")
        before = woke()
        time.sleep(0.5)
        assert woke() == before
        old = set(child.workers())
        for worker in old:  # the second while the first is being replaced
            os.kill(worker, signal.SIGKILL)
        eventually(lambda: len(set(child.workers()) - old) == 2, "replaced")
        child.signal(signal.SIGTERM)
        assert child.ends() == 0


# --- the loop ---


def big(kind: str) -> bytes:
    properties = {f"p{n}": {"type": "string", "description": "x" * 60} for n in range(15_000)}
    schema = {"type": "object", "properties": properties}
    prompts = {
        "prose": "word " * 400_000,
        "code": "def f(x):\n    return [x]\n" * 80_000,
        "blank": " \n" * 1_000_000,
        "one pattern": "`" * 2_000_000,
        "digits": "1+" * 1_000_000,
    }
    fields: dict[str, Any] = {"model": "auto", "max_tokens": 5}
    if kind in prompts:
        fields["messages"] = [{"role": "user", "content": prompts[kind]}]
    elif kind == "schema":
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        fields["response_format"] = form
    else:
        tool = {"type": "function", "function": {"name": "a", "parameters": schema}}
        fields["tools"] = [tool]
    return ask(**fields)


@pytest.fixture(scope="module")
def calm(sandbox_process: SandboxProcess) -> Iterator[Hardened]:
    with Hardened(upstream(sandbox_process.base_url), sandbox=True) as server:
        yield server


@pytest.mark.parametrize(
    "kind", ["prose", "code", "blank", "one pattern", "digits", "schema", "tools"]
)
def test_p04_a_large_request_does_not_hold_up_the_others(
    calm: Hardened, sandbox: Control, kind: str
) -> None:
    body = big(kind)
    assert len(body) > 1_000_000
    head = {"content-type": "application/json"}
    assert lag(calm, lambda: calm.request("POST", CHAT, body, head)) < 0.05


# --- descriptors ---


def test_p05_running_out_of_descriptors_refuses_new_calls_and_recovers(
    tmp_path: Path, tree: dict[str, Any], sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "tokens_per_s": 30})
    other = ask(model="openai/gpt-4o-mini")
    with Child(tmp_path, tree, descriptors=64) as child:
        stream = child.open(CHAT, ask(stream=True), connection="close")
        data = begun(stream)
        waiting = {"kind": "silent", "seconds": 30}
        sandbox.fault(MODEL, waiting)
        busy = [child.open() for _ in range(40)]
        used, since = cpu_s(child.process.pid), time.monotonic()
        refused = [reply for connection in busy if (reply := arrived(connection))]
        assert 20 <= len(refused) < 40
        for reply in refused:
            clean(reply, 503, "overloaded")
            assert (reply.headers["retry-after"], reply.headers["connection"]) == ("1", "close")
        for _ in range(3):
            at = time.monotonic()
            assert child.get("/livez").status == 200
            clean(child.ask(body=other), 503, "overloaded")
            assert time.monotonic() - at < 0.2
        assert cpu_s(child.process.pid) - used < 0.5 * (time.monotonic() - since)
        data += read_all(stream)
        assert answer(data).events()[-1] == "[DONE]"
        assert CANONICAL_ANSWER in answer(data).text()
        child.close()
        eventually(lambda: child.ask(body=other).status == 200, "serving again")
        health = child.get("/health").json
        assert health["cooling"] == {}
        assert health["refused"]["overloaded"] >= len(refused) + 3


def test_p05_idle_connections_make_room(
    tmp_path: Path, tree: dict[str, Any], sandbox: Control
) -> None:
    with Child(tmp_path, tree, descriptors=64) as child:
        idle = [child.dial() for _ in range(100)]
        for _ in range(3):
            assert child.ask().status == 200
        assert read_all(idle[0]) == b""
        part = request_bytes()[:20]
        for _ in range(100):  # those are not idle, and more than there are descriptors
            child.dial().sendall(part)
        used = cpu_s(child.process.pid)
        time.sleep(0.5)
        assert cpu_s(child.process.pid) - used < 0.25
        child.close()
        eventually(lambda: works(child), "serving again")


def arrived(connection: socket.socket) -> Reply | None:
    """The answer, if one comes within a little while."""
    connection.settimeout(0.05)
    try:
        first = connection.recv(65536)
    except TimeoutError:
        return None
    return answer(first)


def works(child: Child) -> bool:
    try:
        return child.ask().status == 200
    except (OSError, ValueError):
        return False


def cpu_s(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- what is written ---


def test_p08_nothing_waits_for_a_log_nobody_reads(
    tmp_path: Path, tree: dict[str, Any], sandbox: Control
) -> None:
    """The pipe takes 64 KiB; then the lines are lost, and told when it is read again."""
    reader, writer = os.pipe()
    before = "import llmr.observe.log as log; log.PENDING = 50"
    with Child(tmp_path, tree, "--log-level", "debug", before=before, stderr=writer) as child:
        os.close(writer)
        slowest = 0.0
        for number in range(700):
            at = time.monotonic()
            if number % 7 == 0:  # what uvicorn would say of it goes the same way
                with child.dial() as broken:
                    broken.sendall(b"nonsense\r\n\r\n")
                    assert read_all(broken).startswith(b"HTTP/1.1 400")
            reply = child.ask(body=ask(note="x" * 100, model=MODEL if number % 2 else "no/such"))
            assert reply.status == (200 if number % 2 else 404)
            slowest = max(slowest, time.monotonic() - at)
        assert slowest < 0.5
        child.signal(signal.SIGTERM)
        assert child.ends(5) == 0
    told = b""
    while piece := os.read(reader, 65536):
        told += piece
    os.close(reader)
    assert told.count(b"200 v1") > 100


def test_p08_a_closed_log_stops_nothing(
    tmp_path: Path, tree: dict[str, Any], sandbox: Control
) -> None:
    reader, writer = os.pipe()
    with Child(tmp_path, tree, stderr=writer) as child:
        os.close(writer)
        os.close(reader)
        assert child.process.stdout is not None
        for _ in range(10):
            assert child.ask().status == 200
        child.signal(signal.SIGTERM)
        assert child.ends() == 0


def test_p08_lost_lines_are_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "PENDING", 5)
    reader, writer = os.pipe()
    handler = log.Writer((), writer)
    record = logging.LogRecord("llmr", logging.INFO, "", 0, "x" * 5000, None, None)
    for _ in range(100):
        handler.emit(record)
    assert handler.lost > 50
    told = b""
    while b"lines were lost" not in told:
        told += os.read(reader, 65536)
    handler.stop()
    os.close(reader)
    os.close(writer)


# --- time ---

WALL = {"time", "gmtime", "localtime", "ctime", "time_ns", "now", "utcnow", "today"}
MAY_TELL_THE_TIME = {
    # Where the date itself is meant: stamps that people read, the age of an entry, prices that
    # change by the hour, dates in `Retry-After`.
    *(
        "accounting.py",
        "answering.py",
        "observe/log.py",
        "gateway.py",
        "source.py",
        "router.py",
        "server/hot.py",
        "server/asgi.py",
    ),
    # Days of spending, and the name under which a damaged file is set aside.
    *("ledger/sheet.py", "ledger/book.py", "ledger/keeper.py", "cli/spend.py", "cli/catalogue.py"),
    *("server/reload.py", "execution/executor.py", "execution/attempt.py", "native.py"),
}


def test_p10_only_stamps_read_the_wall_clock() -> None:
    for path in SOURCE.rglob("*.py"):
        name = str(path.relative_to(SOURCE))
        if name.startswith("sandbox/") or name in MAY_TELL_THE_TIME:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in WALL:
                base = node.value.id if isinstance(node.value, ast.Name) else ""
                assert base not in ("time", "datetime", "date"), f"{name}:{node.lineno}"


@pytest.mark.parametrize("days", [1, -1])
def test_p10_k14_a_jump_of_the_wall_clock_changes_nothing(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
) -> None:
    real, jump = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    tree = upstream(sandbox_process.base_url, limits={"idle_s": 0.5, "first_event_s": 0.5})
    with Hardened(tree, sandbox=True) as server:
        assert server.chat("/route", model="auto").json["cached"] is False
        sandbox.fault(MODEL, {"kind": "status", "status": 503}, times=1)
        server.chat(models=[MODEL, "openai/gpt-4o"])
        cooling = server.request("GET", "/health").json["cooling"]
        stall = ask(stream=True, model="openai/gpt-4.1")
        sandbox.fault("openai/gpt-4.1", {"kind": "stall", "after_tokens": 3, "seconds": 30})
        with dial(server.port) as stream:
            stream.sendall(request_bytes(CHAT, stall, connection="close"))
            data = begun(stream)
            jump = days * 86_400.0
            at = time.monotonic()
            data += read_all(stream)
        assert b"upstream_timeout" in data
        assert 0.3 < time.monotonic() - at < 3
        later = server.request("GET", "/health").json
        assert cooling
        assert cooling.keys() <= later["cooling"].keys()
        assert all(0 < one["seconds_left"] <= 30 for one in later["cooling"].values())
        assert 0 < later["uptime_seconds"] < 60
        hit = server.chat("/route", model="auto")
        assert hit.json["cached"] is True
        assert 0 <= int(hit.headers["age"]) <= 86_400 + 5
        figures = server.request("GET", "/metrics").json
        assert figures["total_requests"] == 4
        assert figures["p99_latency_ms"] < 5000
        timing = dict(p.split(";dur=") for p in hit.headers["server-timing"].split(", "))
        assert 0 <= float(timing["total"]) < 1000


# --- background work ---


def test_p11_a_background_loop_that_fails_is_started_again_counted_and_shown(
    sandbox_process: SandboxProcess, sandbox: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "RESTART_S", (0.02, 0.05, 0.1))
    monkeypatch.setattr(gateway, "PUBLISH_S", 0.01)
    starts: list[float] = []
    original = Gateway._publish_loop

    async def failing(self: Gateway) -> None:
        starts.append(time.monotonic())
        if len(starts) <= 4:
            raise RuntimeError("a fault of a test")
        await original(self)

    monkeypatch.setattr(Gateway, "_publish_loop", failing)
    with Hardened(upstream(sandbox_process.base_url), sandbox=True) as server:
        eventually(lambda: len(starts) == 5, "started again and again")
        background = server.request("GET", "/health").json["background"]
        assert background["publish"] == {"restarts": 4}
        assert background["refresh"] == {"restarts": 0}
        waits = [b - a for a, b in itertools.pairwise(starts)]
        least = (0.02, 0.05, 0.1, 0.1)
        assert all(wait > 0.9 * bound for wait, bound in zip(waits, least, strict=True))
        version = server.gateway.telemetry.version
        assert server.chat(model=MODEL, stream=True).status == 200
        eventually(lambda: server.gateway.telemetry.version > version, "it does its work again")
    assert len(starts) == 5


# --- overload ---


def test_p13_beyond_its_bound_the_excess_is_refused_fast_and_the_rest_served(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    """Open loop: 20 slots of 0.1 s carry 200 a second; twice as many come."""
    sandbox.fault(MODEL, {"kind": "delay", "seconds": 0.1})
    with Hardened(upstream(sandbox_process.base_url), sandbox=True, most=20) as server:
        settled(server)
        with unharmed(server, sandbox):
            results = open_loop(server, rate=400, seconds=1.5)
            served = [took for status, took, _ in results if status == 200]
            refused = [(took, headers) for status, took, headers in results if status == 503]
            assert len(served) + len(refused) == len(results)
            assert len(served) > 0.6 * 200 * 1.5
            assert len(refused) > 100
            assert sorted(took for took, _ in refused)[len(refused) // 2] < 0.05
            assert sorted(served)[len(served) // 2] < 0.5
            assert all(headers["retry-after"] == "1" for _, headers in refused)
            health = server.request("GET", "/health").json
            assert health["refused"] == {"overloaded": len(refused)}
            assert health["cooling"] == {}
        sandbox.clear()


def open_loop(
    server: Server, rate: float, seconds: float
) -> list[tuple[int, float, dict[str, str]]]:
    """(status, seconds, headers) of requests sent at a rate, whatever becomes of them."""

    async def one(after: float) -> tuple[int, float, dict[str, str]]:
        await asyncio.sleep(after)
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_bytes(CHAT, ask(), connection="close"))
        reply = answer(await reader.read())
        took = time.monotonic() - begun
        writer.close()
        if reply.status == 503:
            assert reply.error["code"] == "overloaded"
        else:
            assert CANONICAL_ANSWER in reply.text()
        return reply.status, took, dict(reply.headers)

    async def run() -> list[tuple[int, float, dict[str, str]]]:
        return await asyncio.gather(*(one(n / rate) for n in range(int(rate * seconds))))

    return asyncio.run(run())
