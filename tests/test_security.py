"""Callers and upstreams who mean harm: rows X of the fault list."""

import itertools
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmr import config, config_file
from llmr.core.classify import SECRET
from llmr.errors import ConfigError
from llmr.observe import log
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import upstream
from tests.test_clients import (
    CHAT,
    EVERY,
    HEAD,
    HI,
    LIST,
    MODEL,
    PATHS,
    Hardened,
    answer,
    ask,
    clean,
    dial,
    read_all,
    request_bytes,
    talk,
    unharmed,
)
from tests.test_process import Child

KEY = "sk-or-v1-0123456789abcdef0123456789abcdef"
PLAIN_KEY = "correct horse battery".replace(" ", "-")  # a key that looks like none
CALLER_KEY = "caller-key-7f3a"
WORDS = ("zyxwords-in-the-prompt", "zyxwords-in-a-tool", "zyxwords-in-a-name")


@pytest.fixture(scope="module")
def hard(sandbox_process: SandboxProcess) -> Iterator[Hardened]:
    with Hardened(upstream(sandbox_process.base_url), sandbox=True) as server:
        yield server


class Trap:
    """A listener that nobody may ever call."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def sprung(self) -> bool:
        self._socket.settimeout(0.05)
        try:
            self._socket.accept()[0].close()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    found = Trap()
    yield found
    found.close()


# --- what callers may not steer ---

STEERING = (
    *("base_url", "api_base", "api_key", "upstream", "upstreams", "headers", "extra_headers"),
    *("endpoint", "url", "host", "authorization", "proxy", "organization", "api_version"),
)


@pytest.mark.parametrize("path", PATHS)
def test_x01_addresses_keys_and_headers_in_a_body_steer_nothing(
    hard: Hardened, sandbox: Control, trap: Trap, path: str
) -> None:
    with unharmed(hard, sandbox):
        sandbox.reset()
        evil: dict[str, Any] = {
            name: {"authorization": "Bearer evil", "x-evil": "1"} if "headers" in name else trap.url
            for name in STEERING
        }
        nested = {"extra_body": evil, "metadata": {"a": [evil]}, "provider": evil}
        message = {"role": "user", "content": "Hi", **evil}
        for more in (evil, nested, {**evil, **nested, "messages": [message]}):
            body = {"model": MODEL, "messages": HI, "seed": len(more), **more}
            assert hard.request("POST", path, body, HEAD).status == 200
        for sent in sandbox.attempts():
            assert sent["headers"]["authorization"] == "Bearer sk-test-key"
            assert "x-evil" not in sent["headers"]
            assert sent["path"].endswith("/chat/completions")
        assert not trap.sprung()
        # A model's name and the wishes' headers are names and numbers, not addresses.
        for name in (trap.url, "../../etc/passwd", f"{MODEL}@{trap.url}", "openrouter/http:/x"):
            assert hard.chat(path, model=name).status in (400, 404)
        fields = {"x-llmr-base-url": trap.url, "x-llmr-api-key": "evil", "x-upstream": trap.url}
        assert hard.chat(path, headers=fields, model=MODEL, seed=99).status in (200, 400)
        assert not trap.sprung()


def test_x01_u18_keys_go_to_their_own_hosts_only(
    sandbox_process: SandboxProcess, sandbox: Control, trap: Trap
) -> None:
    row = {"id": "lab-model", "prompt_cost_per_1k": 1, "completion_cost_per_1k": 1}
    lab = {"base_url": sandbox_process.base_url, "api_key": "key-of-lab", "models": [row]}
    tree = upstream(sandbox_process.base_url)
    tree["upstreams"]["lab"] = lab
    with Hardened(tree) as server:
        sandbox.fault("lab-model", {"kind": "redirect", "location": trap.url})
        reply = server.chat(models=["lab-model", MODEL])
        assert reply.headers["x-llmr-model"] == MODEL
        keys = {a["model"]: a["headers"]["authorization"] for a in sandbox.attempts() if a["model"]}
        assert keys == {"lab-model": "Bearer key-of-lab", MODEL: "Bearer sk-test-key"}
        assert not trap.sprung()


@pytest.mark.parametrize("path", EVERY)
def test_x02_addresses_in_messages_are_never_fetched(
    hard: Hardened, sandbox: Control, trap: Trap, path: str
) -> None:
    inside = (
        trap.url,
        "http://169.254.169.254/latest/meta-data",
        f"http://localhost:{trap.port}",
        f"http://[::ffff:127.0.0.1]:{trap.port}/",
        f"http://0x7f000001:{trap.port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
    )
    parts: list[dict[str, Any]] = [{"type": "text", "text": "Look"}]
    for url in inside:
        parts.append({"type": "image_url", "image_url": {"url": url}})
        parts.append({"type": "file", "file": {"filename": "a.pdf", "file_data": url}})
    messages = [{"role": "user", "content": parts}]
    with unharmed(hard, sandbox):
        sandbox.reset()
        body = {"model": MODEL, "messages": messages}
        reply = hard.request("POST", path, body, HEAD)
        assert reply.status in (200, 400)
        assert not trap.sprung()
        for sent in sandbox.attempts():
            assert sent["body"]["messages"] == messages  # as text, as it came


# --- what upstreams may not say ---

LOOKED_AT = ("/metrics", "/metrics?format=prometheus", "/health", "/models")


def echoes(key: str) -> dict[str, dict[str, Any]]:
    text = f"no such key {key}, url https://a/?key={key}&api_key={key}"
    error = {"message": text, "type": text, "metadata": {"raw": text}}
    if SECRET.search(key):
        error |= {"code": key, "param": key}
    status = {"kind": "status", "body": json.dumps({"error": error}), "headers": {"x-echo": key}}
    return {
        "401": {**status, "status": 401},
        "400": {**status, "status": 400},
        "429": {**status, "status": 429},
        "500": {**status, "status": 500},
        "text": {"kind": "status", "status": 422, "body": text, "content_type": "text/plain"},
        "in a 200": {"kind": "json_body", "body": json.dumps({"error": error})},
        "in a stream": {"kind": "error_event", "at_token": 3, "event": {"error": error}},
        "first in a stream": {"kind": "error_event", "at_token": 0, "event": {"error": error}},
        "broken": {"kind": "raw", "status": None, "pieces": [{"data": text.encode()}]},
        "redirect": {"kind": "redirect", "location": f"http://127.0.0.1:1/?key={key}"},
    }


@pytest.mark.parametrize("key", [KEY, PLAIN_KEY])
def test_x03_a_key_an_upstream_echoes_leaves_nowhere(
    tmp_path: Path, sandbox_process: SandboxProcess, sandbox: Control, key: str
) -> None:
    tree = upstream(sandbox_process.base_url, limits={"first_event_s": 0.3, "attempts": 1})
    tree["upstreams"]["openrouter"]["api_key"] = key
    with Child(tmp_path, tree, "--log-level", "debug") as child:
        said = b""
        for name, fault in echoes(key).items():
            sandbox.reset()
            sandbox.fault(MODEL, fault)
            sandbox.fault("/models", fault)
            for path, stream in itertools.product(PATHS, (True, False)):
                with dial(child.port) as connection:
                    body = ask(stream=stream, note=name)
                    connection.sendall(request_bytes(path, body, connection="close"))
                    data = read_all(connection)
                assert data.startswith(b"HTTP/1.1 "), name
                assert key.encode() not in data, (name, path, stream)
                said += data
                decision = answer(data).headers["x-llmr-decision-id"]
                said += child.get(f"/v1/decisions/{decision}").body
        for path in LOOKED_AT:
            said += child.get(path).body
        child.signal(15)
        assert child.ends() == 0
        assert key.encode() not in said
        assert key not in child.lines()
        assert key.encode() not in Path("/proc/self/cmdline").read_bytes()


# --- framing ---

INNER = request_bytes("/cache", method="DELETE")
SMUGGLED: dict[str, bytes] = {
    "both lengths": request_bytes(body=b"0\r\n\r\n", transfer_encoding="chunked") + INNER,
    "two lengths": b"POST /route HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n"
    b"content-length: 6\r\n\r\nhello!" + INNER,
    "a list of lengths": request_bytes(content_length="5, 5"),
    "a signed length": request_bytes(content_length="+5"),
    "a hex length": request_bytes(content_length="0x5"),
    "an endless length": request_bytes(content_length="9" * 30),
    "an odd coding": request_bytes(transfer_encoding="xchunked", content_length=None),
    "chunked not last": request_bytes(transfer_encoding="chunked, gzip", content_length=None),
    "space before the colon": b"POST /route HTTP/1.1\r\nhost: localhost\r\n"
    b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": request_bytes(transfer_encoding="chunked", content_length=None) + b"xyz\r\n",
    "an endless chunk": request_bytes(transfer_encoding="chunked", content_length=None)
    + b"f" * 40
    + b"\r\n",
    "two codings": request_bytes(transfer_encoding="gzip, chunked", content_length=None)
    + b"0\r\n\r\n",
    "two hosts": b"POST /route HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n"
    b"connection: close\r\ncontent-length: 2\r\n\r\n{}",
    "two keys": b"POST /route HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a\r\n"
    b"connection: close\r\nauthorization: Bearer b\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_x07_a_request_that_can_be_read_in_two_ways_is_refused(
    hard: Hardened, sandbox: Control, name: str
) -> None:
    with unharmed(hard, sandbox):
        sandbox.reset()
        with dial(hard.port) as connection:
            connection.sendall(SMUGGLED[name])
            connection.settimeout(3)
            data = b""
            try:
                data = read_all(connection)
            except TimeoutError:
                pytest.fail(f"neither answered nor closed: {data!r}")
        reply = answer(data)
        assert (reply.status, reply.error["code"]) in (
            *((400, "invalid_http"), (400, "doubled_header")),
        )
        assert (
            len(re.findall(rb"HTTP/1.1 \d", data)) == 1
        )  # what was hidden behind it is not answered
        assert sandbox.attempts() == []


def test_x07_what_concerns_one_connection_or_another_host_goes_no_further(
    hard: Hardened, sandbox: Control
) -> None:
    given = {
        "te": "trailers",
        "trailer": "x-a",
        "upgrade": "h2c",
        "keep-alive": "timeout=5",
        "proxy-authorization": "Basic abc",
        "proxy-connection": "keep-alive",
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "forwarded": "for=1.2.3.4;host=evil.example",
        "x-real-ip": "1.2.3.4",
        "x-original-url": "/cache",
        "x-rewrite-url": "/cache",
        "x-http-method-override": "DELETE",
        "cookie": "a=b",
        "via": "1.1 evil",
        "x-hop": "1",
    }
    fields = {name.replace("-", "_"): value for name, value in given.items()}
    data = request_bytes(CHAT, ask(), connection="close, x-hop", **fields)
    assert talk(hard.port, data).status == 200
    sent = sandbox.attempts()[0]["headers"]
    assert not set(sent) & set(given)
    assert sent["host"].startswith("127.0.0.1:")


def test_x07_trailers_are_not_headers(sandbox_process: SandboxProcess, sandbox: Control) -> None:
    tree = upstream(sandbox_process.base_url, server={"api_keys": [CALLER_KEY]})
    body = ask()
    head = request_bytes(CHAT, transfer_encoding="chunked", content_length=None, connection="close")
    trailer = f"authorization: Bearer {CALLER_KEY}\r\nx-llmr-priority: cost\r\n\r\n".encode()
    with Hardened(tree) as server:
        data = head + b"%x\r\n%s\r\n0\r\n" % (len(body), body) + trailer
        clean(talk(server.port, data), 401, "invalid_api_key")
        endless = head + b"5\r\nhello\r\n0\r\nx: " + b"y" * 400_000
        key = f"authorization: Bearer {CALLER_KEY}\r\n\r\n".encode()
        reply = talk(server.port, endless.replace(b"\r\n\r\n", b"\r\n" + key, 1))
        clean(reply, 400, "invalid_http")


def test_x07_pipelined_requests_are_answered_one_by_one_in_order(
    hard: Hardened, sandbox: Control
) -> None:
    with unharmed(hard, sandbox), dial(hard.port) as connection:
        one, two = (request_bytes(CHAT, ask(), x_request_id=f"n-{n}") for n in (1, 2))
        last = request_bytes("/livez", method="GET", x_request_id="n-3", connection="close")
        connection.sendall(one + two + last)
        data = read_all(connection)
        assert re.findall(rb"x-request-id: (n-\d)", data) == [b"n-1", b"n-2", b"n-3"]


# --- time ---

SLOW = (
    "a" * 120 + "!",
    "/" * 128,
    "(a+)+" * 25,
    "*" * 128,
    ".*" * 64,
    "-" * 128,
    "auto:" + "a" * 99,
)


@pytest.mark.parametrize("name", SLOW)
def test_x10_no_name_or_header_takes_long_to_read(
    hard: Hardened, sandbox: Control, name: str
) -> None:
    hard.request("GET", "/health")  # what is imported late is imported now
    for body in (
        {"model": name},
        {"models": [name] * 8},
        {"model": "auto", "preferred_models": [name] * 8},
        {"model": "auto", "priority": name},
    ):
        begun = time.monotonic()
        hard.request("POST", "/v1/decisions", {**body, "messages": HI}, HEAD)
        assert time.monotonic() - begun < 1.0  # what grows with a power of the length takes minutes
    for field in ("x-request-id", "cache-control", "accept", "x-llmr-priority", "content-encoding"):
        begun = time.monotonic()
        hard.request("GET", "/metrics", headers={field: (name * 500)[:60_000]})
        hard.chat(model=MODEL, headers={field: (name * 500)[:60_000]})
        assert time.monotonic() - begun < 0.5


def test_x10_scrubbing_takes_linear_time() -> None:
    for text in (
        "sk-" * 100_000,
        "Bearer " * 50_000,
        "=" * 300_000,
        "key=" * 75_000,
        "a" * 300_000,
    ):
        begun = time.monotonic()
        SECRET.sub("", text)
        assert time.monotonic() - begun < 0.5, text[:10]


# --- configuration ---

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(f'*{a}' for _ in range(9))}]\n"
    for a, b in itertools.pairwise("abcdefghij")
)
BOMBS: dict[str, str] = {
    "billion laughs": LAUGHS,
    "alias to itself": "server: &s\n  api_keys: [*s]\n",
    "python object": "server: !!python/object/apply:os.system ['touch pwned']\n",
    "python name": "server: !!python/name:os.system\n",
    "deep": "server: " + "[" * 5000 + "]" * 5000,
    "large": "# " + "x" * 2_000_000,
    "many": "upstreams:\n" + "".join(f"  u{n}: {{}}\n" for n in range(2_100)),
    "merge": "x: &x {port: 1}\nserver:\n  <<: *x\n",
    "not utf-8": "server: \udcff\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_x11_a_configuration_that_is_a_bomb_is_refused_in_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "many":
        monkeypatch.setattr(config_file, "NODE_LIMIT", 2_000)
    file = tmp_path / "config.yaml"
    file.write_bytes(BOMBS[name].encode("utf-8", "surrogateescape"))
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        config.load(str(file), {}, {}, tmp_path)
    assert time.monotonic() - begun < 10
    assert not (tmp_path / "pwned").exists()


# --- paths, methods and kinds of content ---

TRAVERSALS = (
    *("../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd"),
    *("....//....//etc/passwd", "..\\..\\etc\\passwd", "..%5c..%5cetc%5cpasswd", "%00", "a%00.js"),
    *("/etc/passwd", "%2fetc%2fpasswd", "..%252f..%252fetc%252fpasswd", "../__init__.py", "", "."),
    *(
        "swagger-ui-bundle.js%00.html",
        "a" * 5000,
        "%ff%fe",
        "..;/..;/etc/passwd",
        "./../../core.py",
    ),
)


@pytest.mark.parametrize("tail", TRAVERSALS)
def test_x12_assets_are_the_only_files_there_are(
    hard: Hardened, sandbox: Control, tail: str
) -> None:
    data = request_bytes(f"/docs/assets/{tail}", method="GET", connection="close")
    reply = talk(hard.port, data)
    assert reply.status in (400, 404, 405)
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert b"root:" not in reply.body


METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@pytest.mark.parametrize("method", METHODS)
def test_x12_other_methods_do_nothing(hard: Hardened, sandbox: Control, method: str) -> None:
    for path in EVERY:
        fields = {"x_http_method_override": "POST", "connection": "close"}
        reply = talk(hard.port, request_bytes(path, ask(), method, **fields))
        assert reply.status == 405
        assert reply.headers["allow"] == "post"
        assert b"TRACE" not in reply.body or method == "TRACE"
    for path in ("/livez", "/readyz", "/health"):
        if method not in ("GET", "HEAD"):
            assert (
                talk(hard.port, request_bytes(path, b"", method, connection="close")).status == 405
            )
    assert sandbox.attempts() == []


KINDS: dict[str, int] = {
    "application/json": 200,
    "application/json; charset=utf-8": 200,
    "Application/JSON;charset=UTF-8": 200,
    "application/vnd.api+json": 200,
    "text/plain": 415,
    "text/plain; x=application/json": 415,
    "application/x-www-form-urlencoded": 200,
    "application/x-www-form-urlencoded; charset=utf-8": 415,
    "multipart/form-data; boundary=application/json": 415,
    "application/xml": 415,
    "application/json; charset=utf-16": 415,
    "application/jsonp": 415,
    "": 415,
}


@pytest.mark.parametrize("kind", KINDS)
def test_x12_a_body_that_says_it_is_not_json_is_a_415(
    hard: Hardened, sandbox: Control, kind: str
) -> None:
    for path in EVERY:
        reply = hard.request("POST", path, ask(), {"content-type": kind})
        assert reply.status == KINDS[kind], (path, reply.body)
        if reply.status == 415:
            clean(reply, 415, "unsupported_media_type")
    with dial(hard.port) as connection:
        data = request_bytes(CHAT, ask(), content_type=None, connection="close")
        connection.sendall(data)
        assert answer(read_all(connection)).status == 200


# --- everything that is written ---

MIXED: dict[str, dict[str, Any]] = {
    "well": {"kind": "ok"},
    "429": {"kind": "status", "status": 429, "headers": {"retry-after": "1"}},
    "500": {"kind": "status", "status": 500},
    "reset": {"kind": "reset"},
    "html": {"kind": "status", "status": 502, "body": "<html>", "content_type": "text/html"},
    "cut": {"kind": "cut", "after_tokens": 5},
    "malformed": {"kind": "malformed", "at_token": 3},
    "not json": {"kind": "json_body", "body": "{"},
    "silent": {"kind": "silent", "seconds": 30},
    "echo": {
        "kind": "status",
        "status": 400,
        "body": json.dumps({"error": {"message": f"bad: {WORDS[0]} {KEY}", "code": 400}}),
    },
    "echo in a stream": {
        "kind": "error_event",
        "at_token": 3,
        "event": {"error": {"message": f"bad: {WORDS[0]} {KEY}", "code": 500}},
    },
}


def test_x13_at_debug_level_no_key_and_no_word_of_a_prompt_is_written(
    tmp_path: Path, sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    """A mixed run in a process of its own; everything it says of it is searched."""
    tree = upstream(
        sandbox_process.base_url,
        limits={"first_event_s": 0.3, "body_mb": 0.1},
        server={"api_keys": [CALLER_KEY]},
        redis={"url": f"redis://:{PLAIN_KEY}@127.0.0.1:1/0"},
    )
    tree["upstreams"]["openrouter"]["api_key"] = KEY
    key: dict[str, Any] = {"authorization": f"Bearer {CALLER_KEY}"}
    tool = {"type": "function", "function": {"name": "f", "description": WORDS[1]}}
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": f"Tell me of {WORDS[0]}", "name": WORDS[2]}],
        "tools": [tool],
        "user": WORDS[2],
    }
    with Child(tmp_path, tree, "--log-level", "debug") as child:
        kept = b""
        for name, fault in MIXED.items():
            sandbox.reset()
            sandbox.fault(MODEL, fault)
            sandbox.fault("/models", fault)
            for number, path in enumerate(PATHS):
                body = ask(models=LIST, stream=number == 0, note=name, **fields)
                reply = answer(
                    exchange(child, request_bytes(path, body, connection="close", **key))
                )
                assert reply.headers["x-request-id"]
                if found := reply.headers.get("x-llmr-decision-id"):
                    path = f"/v1/decisions/{found}"
                    data = request_bytes(path, b"", "GET", connection="close", **key)
                    kept += exchange(child, data)
        for bad in bad_requests(fields):
            exchange(child, bad)
        leaving = child.open(CHAT, ask(model=MODEL, stream=True, **fields), **key)
        leaving.close()
        child.signal(1)
        for path in (
            "/metrics",
            "/metrics?format=prometheus",
            "/health",
            "/models",
            "/cache/stats",
        ):
            kept += exchange(child, request_bytes(path, method="GET", connection="close", **key))
        arguments = Path(f"/proc/{child.process.pid}/cmdline")
        shown = arguments.read_bytes() if arguments.exists() else b""
        child.signal(15)
        assert child.ends() == 0
        written = child.lines()
    assert "200 route" in written
    assert "error=" in written
    for secret in (KEY, PLAIN_KEY, CALLER_KEY, *WORDS):
        assert secret not in written, secret
        assert secret.encode() not in kept, secret
        assert secret.encode() not in shown, secret


def test_x13_a_line_that_holds_a_secret_is_written_without_it() -> None:
    reader, writer = os.pipe()
    handler = log.Writer([PLAIN_KEY], writer)
    for text in (f"a {PLAIN_KEY} b", f"a {KEY} b", "a\x1b[31m\r\x9b b"):
        handler.emit(logging.LogRecord("llmr", logging.INFO, "", 0, "%s", (text,), None))
    handler.stop()
    os.close(writer)
    told = os.read(reader, 65536).decode()
    os.close(reader)
    assert told.count("[redacted]") == 2
    assert told.endswith(r"a\x1b[31m\r\x9b b" + "\n")
    assert PLAIN_KEY not in told
    assert KEY not in told


def exchange(child: Child, data: bytes) -> bytes:
    with dial(child.port) as connection:
        connection.sendall(data)
        return read_all(connection)


def bad_requests(fields: dict[str, Any]) -> Iterator[bytes]:
    """Requests that fail in every place where something could be said of them."""
    key: dict[str, Any] = {"authorization": f"Bearer {CALLER_KEY}", "connection": "close"}
    word = WORDS[0]
    wrong = {**key, "authorization": f"Bearer {KEY}x"}
    yield request_bytes(CHAT, ask(**fields), **wrong)
    yield request_bytes(CHAT, ask(**{**fields, "model": word}), **key)
    yield request_bytes(CHAT, ask(**{**fields, "priority": word}), **key)
    yield request_bytes(CHAT, ask(**{**fields, "stream": word}), **key)
    yield request_bytes(CHAT, b'{"' + word.encode(), **key)
    yield request_bytes(CHAT, b'{"messages": "\xff' + word.encode() + b'"}', **key)
    yield request_bytes(f"/{word}", b"", "GET", **key)
    yield request_bytes(CHAT, ask(**fields) + b" " * 200_000, **key)
    yield request_bytes(CHAT, ask(**fields), content_encoding=word, **key)
    yield request_bytes(CHAT, ask(**fields), x="y\0" + word, **key)
    yield request_bytes(f"/v1/decisions/{word}", b"", "GET", **key)
    yield f"nonsense {word} {KEY}\r\n\r\n".encode()
