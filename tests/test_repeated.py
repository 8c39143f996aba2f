"""Heads known again: what they are taken for, and that a connection never mistakes one."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmr.sandbox.process import SandboxProcess
from llmr.server.repeated import Repeated, repeated
from tests.harness import upstream
from tests.test_clients import CHAT, Hardened, answer, ask, dial, request_bytes
from tests.test_pipelining import arrived

SURFACE = (CHAT, "v1")


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"POST {CHAT} HTTP/1.1", *lines)).encode() + b"\r\n"


def known(data: bytes) -> Repeated:
    found = repeated(data, SURFACE, [], keep=True)
    assert found is not None
    return found


PLAIN = head("Host: x", "Content-Length: 5", "Content-Type: application/json")


@given(st.binary(max_size=2000))
def test_the_same_head_is_known_whatever_the_body(body: bytes) -> None:
    data = PLAIN.replace(b": 5\r\n", b": %d\r\n" % len(body)) + body
    assert known(PLAIN + b"hello").body(data) == body


@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))
def test_another_byte_anywhere_is_another_head(place: int, byte: int) -> None:
    other = PLAIN[:place] + bytes([byte]) + PLAIN[place + 1 :]
    found = known(PLAIN + b"hello").body(other + b"hello")
    assert (found is not None) == (other == PLAIN)


@given(st.integers(0, len(PLAIN) + 4))
def test_less_than_all_is_not_taken(cut: int) -> None:
    assert known(PLAIN + b"hello").body((PLAIN + b"hello")[:cut]) is None


def test_more_than_one_request_is_not_taken() -> None:
    assert known(PLAIN + b"hello").body((PLAIN + b"hello") * 2) is None


@pytest.mark.parametrize(
    "data",
    [
        head("Host: x", "Transfer-Encoding: chunked"),
        head("Content-Length: 5", "Content-Length: 5"),
        head("Content-Length: 5", "content-length: 6"),
        head("Content-Length: 5x"),
        head("Content-Length: 12345678901"),
        PLAIN[:-4],
    ],
)
def test_heads_that_are_never_known_again(data: bytes) -> None:
    assert repeated(data, SURFACE, [], keep=True) is None


@pytest.fixture(scope="module")
def hard(sandbox_process: SandboxProcess) -> Iterator[Hardened]:
    with Hardened(upstream(sandbox_process.base_url), sandbox=True) as server:
        yield server


def in_pieces(connection: socket.socket, data: bytes, *cuts: int) -> int:
    """The status of the answer to a request that is sent in pieces."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start, stop in zip((0, *cuts), (*cuts, len(data)), strict=True):
        connection.sendall(data[start:stop])
    return answer(arrived(connection, b'"usage"')).status


def test_requests_whole_and_in_pieces_on_one_connection(hard: Hardened) -> None:
    short, long = (request_bytes(CHAT, ask(user=user)) for user in ("a", "a" * 900))
    with dial(hard.port) as connection:
        for data in (short, long, short):
            assert in_pieces(connection, data) == 200
        for cut in range(1, len(short), 7):
            assert in_pieces(connection, short, cut) == 200
            assert in_pieces(connection, long, cut, cut + 1) == 200
            assert in_pieces(connection, short) == 200
