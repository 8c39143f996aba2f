"""Callers who are slow, rude or broken: rows C of the fault list, and what must hold after each."""

import asyncio
import gzip
import itertools
import json
import os
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmr.cli.serve import uvicorn_config
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.text import CANONICAL_ANSWER
from llmr.server.asgi import Application
from llmr.server.inflate import SLICE, Inflater
from tests.harness import Reply, Server, at_rest, eventually, upstream

MODEL, OTHER = "openai/gpt-5.4-mini", "openai/gpt-5.4"
LIST = [MODEL, OTHER]
HI = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"
PATHS = (CHAT, "/route")
EVERY = (*PATHS, "/v1/decisions")
HEAD = {"host": "localhost", "content-type": "application/json"}


class Hardened(Server):
    """The server as `llmr serve` builds it. `wire` sets limits of its protocol."""

    def __init__(
        self, tree: Mapping[str, Any], *, sandbox: bool = False, most: int = 4096, **wire: Any
    ) -> None:
        super().__init__(tree, sandbox=sandbox)
        self.application = Application(self.gateway, most)
        for name, value in wire.items():
            setattr(self.application.wire, name, value)
        self._server.config = uvicorn_config(self.application)

    def __enter__(self) -> "Hardened":
        super().__enter__()
        return self

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._server.servers[0].get_loop()

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    @property
    def tasks(self) -> int:
        return len(asyncio.all_tasks(self.loop))


@pytest.fixture(scope="module")
def hard(sandbox_process: SandboxProcess) -> Iterator[Hardened]:
    """One server for the tests that change none of its settings."""
    with Hardened(upstream(sandbox_process.base_url), sandbox=True) as server:
        yield server


@contextmanager
def unharmed(server: Hardened, sandbox: Control) -> Iterator[None]:
    """I4 and I9: afterwards a healthy request is quick, and nothing is left open."""

    def count() -> tuple[int, int, int]:
        ours = open_files() - sandbox.stats()["connections"]
        return server.connections, server.tasks, ours

    def at_rest() -> bool:
        return server.gateway.in_flight == 0 and sandbox.stats()["busy"] == 0

    healthy(server)
    server.request("GET", "/health")  # what is imported late is imported now
    eventually(at_rest, "at rest before")
    eventually(lambda: server.connections == 0, "no caller is connected")
    before = count()
    yield
    healthy(server)
    eventually(at_rest, "at rest afterwards")
    eventually(
        lambda: all(a <= b for a, b in zip(count(), before, strict=True)), f"no more: {before}"
    )


def healthy(server: Server) -> None:
    begun = time.monotonic()
    reply = server.chat(model="openai/gpt-4o-mini")
    assert reply.status == 200, reply.body
    assert CANONICAL_ANSWER in reply.text()
    assert time.monotonic() - begun < 1.0


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder if folder.exists() else "/dev/fd"))


def clean(reply: Reply, status: int, code: str) -> None:
    """I5."""
    assert (reply.status, reply.error["code"]) == (status, code), reply.body
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"]
    assert reply.headers["x-should-retry"] in ("true", "false")


def request_bytes(
    path: str = CHAT, body: bytes = b"", method: str = "POST", **fields: str | None
) -> bytes:
    """A request; a field of None is left out, `_` in a name stands for a dash."""
    given: dict[str, str | None] = {**HEAD, "content-length": str(len(body))}
    given.update({name.replace("_", "-"): value for name, value in fields.items()})
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def ask(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": HI, **fields}).encode()


def dial(port: int, receive_buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", port))
    return connection


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def answer(data: bytes) -> Reply:
    """The one answer in the bytes of a connection."""
    if not data:
        raise ValueError("no answer")
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    if fields.get("transfer-encoding") == "chunked":
        whole, rest = b"", body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = whole
    return Reply(int(first.split(" ")[1]), fields, body)


def talk(port: int, data: bytes) -> Reply:
    """Send bytes, read until the router closes."""
    with dial(port) as connection:
        connection.sendall(data)
        return answer(read_all(connection))


def drip(connection: socket.socket, piece: bytes, every_s: float) -> threading.Event:
    """Send a piece again and again, until the event is set or the other end has enough."""
    over = threading.Event()

    def run() -> None:
        try:
            while not over.wait(every_s):
                connection.sendall(piece)
        except OSError:
            pass

    threading.Thread(target=run, daemon=True).start()
    return over


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def gone(sandbox: Control) -> bool:
    """Whether the first request that reached the upstream lost its caller."""
    return any(attempt["ended"] == "peer_gone" for attempt in sandbox.attempts()[:1])


def closed(server: Server) -> tuple[int, int]:
    """(requests whose caller left, requests that ended in an error) so far."""
    figures = server.request("GET", "/metrics").json
    return figures["client_closed_count"], figures["errors_count"]


# --- leaving ---


@pytest.mark.parametrize("go", [reset, socket.socket.close])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_c01_c03_leaving_before_the_answer_closes_the_upstream(
    hard: Hardened, sandbox: Control, path: str, stream: bool, go: Callable[[Any], None]
) -> None:
    with unharmed(hard, sandbox):
        sandbox.reset()
        sandbox.fault(MODEL, {"kind": "silent", "seconds": 30})
        connection = dial(hard.port)
        connection.sendall(request_bytes(path, ask(models=LIST, stream=stream)))
        eventually(lambda: len(sandbox.attempts()) == 1, "sent upstream")
        before = closed(hard)
        left = time.monotonic()
        go(connection)
        eventually(lambda: gone(sandbox), "upstream closed")
        attempts = sandbox.attempts()
        assert len(attempts) == 1
        assert attempts[0]["peer_gone_t"] - left < 0.1
        eventually(lambda: hard.gateway.in_flight == 0, "request over")
        assert closed(hard) == (before[0] + 1, before[1])
        assert hard.request("GET", "/health").json["cooling"] == {}


@pytest.mark.parametrize("path", PATHS)
def test_c02_k08_k12_leaving_mid_stream_closes_the_upstream_and_keeps_nothing(
    hard: Hardened, sandbox: Control, path: str
) -> None:
    with unharmed(hard, sandbox):
        sandbox.reset()
        sandbox.fault(MODEL, {"kind": "stall", "after_tokens": 5, "seconds": 30}, times=1)
        body = ask(stream=True, seed=PATHS.index(path))
        connection = dial(hard.port)
        connection.sendall(request_bytes(path, body))
        data = b""
        while b'"content"' not in data:
            data += connection.recv(4096)
        before = closed(hard)
        left = time.monotonic()
        connection.close()
        eventually(lambda: gone(sandbox), "upstream closed")
        assert sandbox.attempts()[0]["peer_gone_t"] - left < 0.1
        eventually(lambda: hard.gateway.in_flight == 0, "request over")
        assert closed(hard) == (before[0] + 1, before[1])
        again = hard.request("POST", path, body, {"content-type": "application/json"})
        assert again.headers["x-llmr-cache"] == "miss"
        assert again.events()[-1] == "[DONE]"


# --- reading slowly ---


@pytest.mark.parametrize("path", PATHS)
def test_c04_a_caller_who_stops_reading_is_cut_off(
    sandbox_process: SandboxProcess, sandbox: Control, path: str
) -> None:
    tree = upstream(sandbox_process.base_url, limits={"idle_s": 0.3})
    with Hardened(tree) as hard, unharmed(hard, sandbox):
        sandbox.reset()
        sandbox.fault(MODEL, {"kind": "endless"})
        with dial(hard.port, 4096) as connection:
            connection.sendall(request_bytes(path, ask(stream=True)))
            begun = time.monotonic()
            eventually(lambda: gone(sandbox), "upstream closed")
            assert time.monotonic() - begun < 3
            assert b"[DONE]" not in read_all(connection)
        eventually(lambda: hard.gateway.in_flight == 0, "request over")
        sandbox.clear()


def test_c04_a_slow_reader_slows_the_upstream_and_memory_stays(
    hard: Hardened, sandbox: Control
) -> None:
    with unharmed(hard, sandbox):
        sandbox.reset()
        sandbox.fault(MODEL, {"kind": "endless"})
        with dial(hard.port, 4096) as connection:
            connection.sendall(request_bytes(CHAT, ask(stream=True)))
            assert connection.recv(100)
            # Once every buffer on the way is full, nothing more is read from the upstream.
            assert at_rest(lambda: sandbox.attempts()[0]["bytes_sent"]) < 16 * 1024 * 1024
            assert connection.recv(100)
        eventually(lambda: gone(sandbox), "upstream closed")
        sandbox.clear()


def test_c04_a_slow_reader_gets_everything(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url, limits={"idle_s": 0.3})
    text = "x" * 1000
    piece = f'data: {{"id":"a","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}\n\n'
    end = 'data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    pieces = [{"data": piece.encode()}] * 3000 + [{"data": end.encode() + b"data: [DONE]\n\n"}]
    with Hardened(tree) as hard, unharmed(hard, sandbox):
        sandbox.fault(MODEL, {"kind": "raw", "pieces": pieces})
        with dial(hard.port, 65536) as connection:
            connection.sendall(request_bytes(CHAT, ask(stream=True), connection="close"))
            data, begun = b"", time.monotonic()
            while got := connection.recv(131072):
                data += got
                time.sleep(0.02)
        assert time.monotonic() - begun > 0.5
        reply = answer(data)
        assert len(reply.text()) == 3_000_000
        assert reply.events()[-1] == "[DONE]"
        sandbox.clear()


# --- sending slowly, or too much ---


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize("part", ["head", "body"])
def test_c05_a_slow_request_is_a_408_and_holds_no_slot(
    sandbox_process: SandboxProcess, sandbox: Control, part: str, path: str
) -> None:
    tree = upstream(sandbox_process.base_url)
    whole = request_bytes(path, ask() + b" " * 1000)
    cut = whole.index(b"\r\n\r\n") + (20 if part == "body" else -10)
    with Hardened(tree, most=1, head_s=0.3, body_s=0.3) as hard, unharmed(hard, sandbox):
        slow = [dial(hard.port) for _ in range(5)]
        for connection in slow:
            connection.sendall(whole[:cut])
        stop = drip(slow[0], b"a", 0.05)
        begun = time.monotonic()
        healthy(hard)
        for connection in slow:
            reply = answer(read_all(connection))
            clean(reply, 408, "request_timeout")
            assert reply.headers["connection"] == "close"
            connection.close()
        stop.set()
        assert 0.2 < time.monotonic() - begun < 2


def test_c05_a_request_in_many_pieces_is_no_slow_one(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    whole = request_bytes(CHAT, ask() + b" " * 300_000, connection="close")
    server = Hardened(upstream(sandbox_process.base_url), head_s=0.5, body_s=0.5)
    with server as hard, dial(hard.port) as connection:
        for at in range(0, 400, 7):
            connection.sendall(whole[at : at + 7])
        for at in range(399, len(whole), 10_000):  # longer than the limit, but at a fair rate
            connection.sendall(whole[at + 0 : at + 10_000])
            time.sleep(0.025)
        assert answer(read_all(connection)).status == 200


def test_c05_a_connection_that_never_asks_is_closed(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    with Hardened(upstream(sandbox_process.base_url)) as hard:
        hard._server.config.timeout_keep_alive = 1
        with dial(hard.port) as silent, dial(hard.port) as blank:
            blank.sendall(b"\r\n\r\n")
            assert read_all(silent) == read_all(blank) == b""


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize("framing", ["declared", "chunked", "expect"])
def test_c06_a_body_over_the_limit_is_a_413_early(
    sandbox_process: SandboxProcess, sandbox: Control, framing: str, path: str
) -> None:
    tree = upstream(sandbox_process.base_url, limits={"body_mb": 0.1})
    with Hardened(tree) as hard, unharmed(hard, sandbox), dial(hard.port) as connection:
        if framing == "chunked":
            head = request_bytes(path, transfer_encoding="chunked", content_length=None)
        else:
            expect = "100-continue" if framing == "expect" else None
            head = request_bytes(path, content_length=str(1 << 30), expect=expect)
        connection.sendall(head)
        sent, begun = 0, time.monotonic()
        if framing == "chunked":
            chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            while sent < 1 << 30 and not readable(connection):
                connection.sendall(chunk)
                sent += 0x10000
        reply = answer(read_all(connection))
        clean(reply, 413, "body_too_large")
        assert sent < 16 << 20
        assert time.monotonic() - begun < 1


def readable(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(10)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "DEFLATE": raw_deflate,
    "identity": bytes,
}


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize("coding", CODINGS)
def test_c07_a_compressed_body_is_read_as_the_plain_one(
    hard: Hardened, sandbox: Control, coding: str, path: str
) -> None:
    body = ask(note=f"{coding} {path} " + "x" * 200_000)
    packed = CODINGS[coding](body)
    reply = hard.request("POST", path, packed, {"content-encoding": coding, **HEAD})
    assert reply.status == 200
    if path != "/v1/decisions":
        sent = sandbox.attempts()[0]
        assert sent["body"] == json.loads(body)
        assert "content-encoding" not in sent["headers"]


BOMB = gzip.compress(b"[" * (300 << 20), 9)
BAD_CODINGS: dict[str, tuple[str, bytes, int, str]] = {
    "bomb": ("gzip", BOMB, 413, "body_too_large"),
    "zstd": ("zstd", b"(\xb5/\xfd", 415, "unsupported_encoding"),
    "br": ("br", b"x", 415, "unsupported_encoding"),
    "twice": ("gzip, gzip", b"x", 415, "unsupported_encoding"),
    "corrupt": ("gzip", b"not gzip at all", 400, "invalid_encoding"),
    "cut": ("gzip", gzip.compress(ask())[:-6], 400, "invalid_encoding"),
    "more": ("gzip", gzip.compress(ask()) + b"more", 400, "invalid_encoding"),
    "nothing": ("gzip", b"", 400, "invalid_encoding"),
}


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize("name", BAD_CODINGS)
def test_c07_a_bomb_and_what_cannot_be_decoded_are_refused(
    hard: Hardened, sandbox: Control, name: str, path: str
) -> None:
    coding, body, status, code = BAD_CODINGS[name]
    clean(hard.request("POST", path, body, {"content-encoding": coding, **HEAD}), status, code)
    assert sandbox.attempts() == []
    healthy(hard)


def test_c07_a_bomb_does_not_hold_up_the_others(hard: Hardened, sandbox: Control) -> None:
    assert max(map(len, itertools.islice(Inflater("gzip").feed(BOMB), 50))) <= SLICE
    fields = {"content-encoding": "gzip", **HEAD}
    assert lag(hard, lambda: hard.request("POST", CHAT, BOMB, fields)) < 0.05


def lag(server: Hardened, work: Callable[[], Any]) -> float:
    """How long `work` keeps the server's loop from others, at best: noise is not the point."""
    settled(server)
    worst = []
    for _ in range(3):
        with LagProbe(server) as probe:
            work()
        worst.append(probe.worst)
    return min(worst)


def settled(server: Server) -> None:
    """Wait until the first look at the catalogues is over."""

    def looked() -> bool:
        sources = server.request("GET", "/health").json["upstreams"].values()
        return all(source["catalogue"] == "live" for source in sources)

    eventually(looked, "the catalogue has come")


class LagProbe:
    """How long the server's loop at most kept a callback waiting that was due."""

    def __init__(self, server: Hardened) -> None:
        self._loop = server.loop
        self._on = True
        self.worst = 0.0

    def __enter__(self) -> "LagProbe":
        self._loop.call_soon_threadsafe(self._tick, self._loop.time())
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False

    def _tick(self, due: float) -> None:
        now = self._loop.time()
        self.worst = max(self.worst, now - due)
        if self._on:
            self._loop.call_at(now + 0.005, self._tick, now + 0.005)


# --- bodies that are not what they should be ---


def around(value: bytes, key: bytes = b"messages") -> bytes:
    return (
        b'{"model":"auto","messages":[{"role":"user","content":"x"}],"' + key + b'":' + value + b"}"
    )


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "cut": ask()[:-4],
    "nan": around(b"NaN", b"temperature"),
    "infinity": around(b"-Infinity", b"temperature"),
    "byte order mark": b"\xef\xbb\xbf" + ask(),
    "lone surrogate": around(b'"\\ud800"', b"user"),
    "bad utf-8": around(b'"\xff"', b"user"),
    "overlong utf-8": around(b'"\xc0\xaf"', b"user"),
    "array root": b"[1]",
    "text root": b'"hello"',
    "trailing comma": b'{"model":"auto",}',
    "comment": b'{"model":"auto" /* no */}',
    "single quotes": b"{'model': 'auto'}",
    "two roots": ask() + ask(),
    "control character": around(b'"a\nb"', b"user"),
    "nul at the end": ask() + b"\0",
    "utf-16": ask().decode().encode("utf-16"),
}


def test_c08_what_is_not_json_is_a_400_with_its_position_everywhere(
    hard: Hardened, sandbox: Control
) -> None:
    with unharmed(hard, sandbox):
        sandbox.reset()
        for name, body in MALFORMED.items():
            replies = [hard.request("POST", path, body, HEAD) for path in EVERY]
            for reply in replies:
                clean(reply, 400, "invalid_json")
            assert len({reply.error["message"] for reply in replies}) == 1, name
            text = replies[0].error["message"]
            if name not in ("array root", "text root", "empty", "cut", "lone surrogate"):
                assert re.search(r"byte \d+", text), (name, text)
        assert sandbox.attempts() == []


@pytest.mark.parametrize("levels", [200, 1000, 100_000, 1_000_000])
def test_c09_deep_nesting_is_answered_or_a_400(
    hard: Hardened, sandbox: Control, levels: int
) -> None:
    arrays, objects = b"[" * levels + b"]" * levels, b'{"a":' * levels + b"1" + b"}" * levels
    with unharmed(hard, sandbox):
        for key, value in itertools.product(
            (b"tools", b"response_format", b"metadata", b"messages"), (arrays, objects)
        ):
            body = (
                around(value, key)
                if key != b"messages"
                else (b'{"model":"auto","messages":[{"role":"user","content":' + value + b"}]}")
            )
            for path in EVERY:
                reply = hard.request("POST", path, body, HEAD)
                if reply.status != 200:
                    assert reply.status == 400, (key, path, reply.body[:200])
                    assert set(reply.error) == {"message", "type", "param", "code"}
                else:
                    assert levels <= 1000
                    assert len(reply.body) < 1 << 20


@pytest.mark.parametrize("key", ["model", "stream", "messages", "temperature", "priority"])
def test_c10_a_key_given_twice_is_a_400_everywhere(
    hard: Hardened, sandbox: Control, key: str
) -> None:
    values: dict[str, list[Any]] = {
        "model": [MODEL, OTHER],
        "stream": [True, False],
        "messages": [HI, HI],
    }
    one, two = (json.dumps(v) for v in values.get(key, [1, 2]))
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    rest = ",".join(f'"{k}":{json.dumps(v[0])}' for k, v in values.items() if k != key)
    for second in (key, escaped):
        for body in (
            f'{{"{key}":{one},"{second}":{two},{rest}}}',
            f'{{"{second}":{one},{rest},"{key}":{two}}}',
        ):
            for path in EVERY:
                reply = hard.request("POST", path, body.encode(), HEAD)
                clean(reply, 400, "duplicate_key")
                assert reply.error["param"] == key
    assert sandbox.attempts() == []


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, 10**400, 1.5, "", "x", "auto", "\u0000", [], [[]], {}),
    *({"a": 1}, [None], ["x"], [{}], "x" * 10_000, [{"role": 1}], {"type": "json_schema"}),
)
KEYS = (
    *("model", "models", "messages", "stream", "stream_options", "tools", "tool_choice", "n"),
    *("response_format", "max_tokens", "max_completion_tokens", "temperature", "seed", "stop"),
    *("priority", "weights", "preferred_models", "max_latency_ms", "max_cost_per_1k"),
    *("max_cost_usd", "deadline_ms", "reasoning", "reasoning_effort", "modalities", "plugins"),
    *("provider", "logprobs", "metadata", "unheard_of", "functions", "prediction", "audio"),
)


def test_c11_no_field_however_odd_is_an_error_of_the_router(
    hard: Hardened, sandbox: Control
) -> None:
    seed = 20_261_123
    draw = random.Random(seed)
    with unharmed(hard, sandbox):
        for turn in range(400):
            body: dict[str, Any] = {"model": MODEL, "messages": HI}
            for key in draw.sample(KEYS, draw.randint(1, 3)):
                body[key] = draw.choice(ODD)
            path = draw.choice(EVERY)
            reply = hard.request("POST", path, json.dumps(body).encode(), HEAD)
            told = f"seed {seed}, turn {turn}: {path} {json.dumps(body)[:300]} {reply.body[:300]!r}"
            assert reply.status < 500, told
            if reply.status >= 400:
                assert set(reply.error) == {"message", "type", "param", "code"}, told


def test_c11_unknown_fields_go_on_and_wrong_types_name_themselves(
    hard: Hardened, sandbox: Control
) -> None:
    extra: dict[str, Any] = {"unheard_of": [1, {"b": None}], "x": 10**30}
    assert hard.chat(model=MODEL, **extra).status == 200
    assert extra.items() <= sandbox.attempts()[0]["body"].items()
    wrong: dict[str, Any] = {"stream": 1, "messages": "x", "model": [], "deadline_ms": "soon"}
    for key, value in wrong.items():
        reply = hard.chat(**{"model": MODEL, key: value})
        assert (reply.status, reply.error["param"]) == (400, key)


def test_c12_invented_models_are_404s_and_leave_no_trace(hard: Hardened, sandbox: Control) -> None:
    def lines() -> int:
        return len(hard.request("GET", "/metrics?format=prometheus").body.splitlines())

    with unharmed(hard, sandbox):
        for number in range(3):
            hard.chat(model=f"openai/gpt-5.4-mini{number}")
        before = lines()
        sandbox.reset()
        for number in range(300):
            reply = hard.chat(model=f"invented/model-{number}\u00e9\n")
            assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert hard.chat(model="gpt-5.4-mini").error["message"].count(MODEL) == 1
        assert lines() == before
        assert b"invented" not in hard.request("GET", "/metrics?format=prometheus").body
        assert b"invented" not in hard.request("GET", "/metrics").body
        assert sandbox.attempts() == []


# --- heads ---

BODY = ask()
HEADS: dict[str, tuple[bytes, int, str]] = {
    "one field of 64 KiB": (request_bytes(body=BODY, x="y" * 65536), 431, "headers_too_large"),
    "a path of 64 KiB": (request_bytes("/" + "y" * 65536), 431, "headers_too_large"),
    "201 fields": (
        request_bytes(body=BODY, **{f"x{n}": "y" for n in range(201)}),
        431,
        "headers_too_large",
    ),
    "a field without an end": (b"GET / HTTP/1.1\r\nx: " + b"y" * 400_000, 431, "headers_too_large"),
    "a name without an end": (b"GET / HTTP/1.1\r\n" + b"y" * 400_000, 431, "headers_too_large"),
    "nul": (request_bytes(body=BODY, x_request_id="a\0b"), 400, "invalid_http"),
    "bare cr": (request_bytes(body=BODY, x_request_id="a\rb"), 400, "invalid_http"),
    "bare lf": (request_bytes(body=BODY, x_request_id="a\nb"), 400, "invalid_http"),
    "folded": (request_bytes(body=BODY, x_request_id="a\r\n b"), 400, "invalid_http"),
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "invalid_http"),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
    "space in a name": (b"GET /livez HTTP/1.1\r\nho st: a\r\n\r\n", 400, "invalid_http"),
    "bad bytes in the path": (
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        400,
        "invalid_http",
    ),
    "connect": (b"CONNECT a:443 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "invalid_http"),
}


@pytest.mark.parametrize("name", HEADS)
def test_c13_hostile_heads_are_refused(hard: Hardened, sandbox: Control, name: str) -> None:
    data, status, code = HEADS[name]
    with unharmed(hard, sandbox):
        sandbox.reset()
        reply = talk(hard.port, data)
        clean(reply, status, code)
        assert reply.headers["connection"] == "close"
        assert reply.headers["x-request-id"].startswith("req-")
        assert sandbox.attempts() == []


def test_c13_large_heads_within_the_limits_pass(hard: Hardened, sandbox: Control) -> None:
    fields = {f"x{n}": "y" * 300 for n in range(190)}
    data = request_bytes(body=BODY, connection="close", **fields)
    assert talk(hard.port, data).status == 200
    with dial(hard.port) as connection:  # in pieces, the last with much of the body
        whole = request_bytes(body=ask(note="x" * 200_000), connection="close", **fields)
        for at in (0, 20_000, 40_000, len(whole)):
            connection.sendall(whole[at : {0: 20_000, 20_000: 40_000}.get(at, len(whole))])
            time.sleep(0.02)
        assert answer(read_all(connection)).status == 200


@pytest.mark.parametrize(
    "odd",
    [
        *("a b", "x" * 129, "a\tb", "\x7f", "\u009b31m", "é", "<script>", "a;b", "", "../../x"),
        *("${jndi:ldap://a}", '"', "a,b", "%0d%0aset-cookie:x"),
    ],
)
def test_c13_odd_ids_and_trace_headers_are_never_reflected(
    hard: Hardened, sandbox: Control, odd: str
) -> None:
    names = ("x-request-id", "traceparent", "tracestate", "x-llmr-decision-id", "x-b3-traceid")
    for path in (CHAT, "/health", "/nothing", "/livez"):
        fields = dict.fromkeys(names, odd)
        method, body = ("POST", BODY) if path == CHAT else ("GET", b"")
        data = request_bytes(path, body, method, connection="close", **fields)
        if odd == "\x7f":
            clean(talk(hard.port, data), 400, "invalid_http")
            continue
        reply = talk(hard.port, data)
        assert reply.headers.get("x-request-id", "req-").startswith("req-")
        if odd:
            assert all(odd.lower() not in value for value in reply.headers.values())
    for attempt in sandbox.attempts():
        assert not set(attempt["headers"]) & set(names)
