"""Requests that come before the one ahead of them is answered: each is met as if it came alone."""

import socket
import time
from collections.abc import Iterator

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import eventually, upstream
from tests.test_clients import CHAT, HEAD, Hardened, answer, ask, dial, gone, request_bytes

MODEL = "openai/gpt-5.4"
SLOW = {"kind": "ok", "tokens_per_s": 20}


@pytest.fixture(scope="module")
def hard(sandbox_process: SandboxProcess) -> Iterator[Hardened]:
    with Hardened(upstream(sandbox_process.base_url), sandbox=True) as server:
        yield server


def arrived(connection: socket.socket, mark: bytes) -> bytes:
    """What comes until the mark has, at most 5 s."""
    connection.settimeout(5.0)
    data = b""
    while mark not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def test_a_body_that_comes_after_the_first_answer_is_answered(hard: Hardened) -> None:
    request = request_bytes(CHAT, ask())
    with dial(hard.port) as connection:
        connection.sendall(request + request[:-30])
        first = arrived(connection, b'"usage"')
        connection.sendall(request[-30:])
        second = arrived(connection, b'"usage"')
    assert answer(first).status == answer(second).status == 200


def test_c06_a_second_body_over_the_limit_is_not_taken(sandbox_process: SandboxProcess) -> None:
    tree = upstream(sandbox_process.base_url, limits={"body_mb": 1})
    head = HEAD | {"transfer-encoding": "chunked"}
    fields = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    second = f"POST {CHAT} HTTP/1.1\r\n{fields}\r\n".encode()
    with Hardened(tree, sandbox=True) as server, dial(server.port) as connection:
        connection.sendall(request_bytes(CHAT, ask()) + second)
        arrived(connection, b'"usage"')
        for _ in range(3):
            connection.sendall(b"80000\r\n" + bytes(0x80000) + b"\r\n")
        assert b" 413 " in arrived(connection, b"body_too_large")


def test_c01_who_leaves_with_a_second_request_behind_leaves_nothing_running(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault(MODEL, SLOW)
    with Hardened(upstream(sandbox_process.base_url), sandbox=True, most=2) as server:
        for _ in range(3):
            with dial(server.port) as connection:
                request = request_bytes(CHAT, ask(model=MODEL, stream=True))
                connection.sendall(request + request)
                arrived(connection, b"content")
            left = time.monotonic()
            eventually(lambda: gone(sandbox) and not server.application.calls, "ended")
            assert time.monotonic() - left < 2.0
        assert server.chat(model="openai/gpt-5.4-mini").status == 200
        figures = server.request("GET", "/metrics").json
        assert figures["client_closed_count"] == 3


def test_c05_a_late_second_body_writes_nothing_into_the_first_answer(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault(MODEL, SLOW)
    with Hardened(upstream(sandbox_process.base_url), sandbox=True, body_s=0.3) as server:
        request = request_bytes(CHAT, ask(model=MODEL, stream=True))
        with dial(server.port) as connection:
            connection.settimeout(5.0)
            connection.sendall(request + request[:-20])
            data = b""
            while piece := connection.recv(65536):
                data += piece
        assert data.count(b"HTTP/1.1 ") == 1
        assert b"[DONE]" not in data
        eventually(lambda: not server.application.calls, "ended")


def test_what_follows_garbage_is_not_sent_upstream(hard: Hardened, sandbox: Control) -> None:
    with dial(hard.port) as connection:
        connection.sendall(request_bytes(CHAT, ask()) + b"\x00\x01 nonsense\r\n\r\n")
        connection.settimeout(5.0)
        while connection.recv(65536):
            pass
    assert not sandbox.attempts()
    eventually(lambda: not hard.application.calls, "ended")
