"""The upstream client alone, on real sockets: what each answer means, and that nothing is left."""

import asyncio
import os
import socket

import pytest

from llmr.upstreams import reading
from llmr.upstreams.base import Send, TransportError
from llmr.upstreams.http import Origin
from llmr.upstreams.reading import ReadTimeout
from tests.fault_proxy import reset
from tests.raw_upstream import (
    OK,
    Served,
    answering,
    at_rest,
    chunked,
    each_loop,
    exchange,
    fails,
    fetch,
    hold,
    open_files,
    reply,
    request_of,
    send,
    until_true,
    whole,
)

# --- connections are kept, or not ---


@each_loop
def test_connections_are_used_again(loop: str) -> None:
    async def check(origin: Origin, served: Served) -> None:
        for _ in range(5):
            assert await fetch(origin) == b"ok"
        assert served.accepted == 1
        found = origin.statistics()
        assert (found.open, found.idle, found.connects, found.reused) == (1, 1, 1, 4)

    exchange(answering(OK), check, loop)


@each_loop
def test_the_newest_idle_connection_goes_first(loop: str) -> None:
    async def check(origin: Origin, served: Served) -> None:
        await asyncio.gather(*(fetch(origin) for _ in range(3)))
        oldest, *_, newest = origin._pool._idle
        for _ in range(2):
            assert await fetch(origin) == b"ok"
        assert (origin._pool._idle[0], origin._pool._idle[-1]) == (oldest, newest)

    exchange(answering(OK), check, loop)


KEPT = {
    "length": (reply(b"ok"), b"ok", True),
    "empty": (reply(b""), b"", True),
    "chunked": (chunked(b"o", b"k"), b"ok", True),
    "chunk extension and trailer": (
        chunked(end=b"2;a=b\r\nok\r\n0\r\nx-trailer: 1\r\n\r\n"),
        b"ok",
        True,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b"", True),
    "after 103s": (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3 + OK, b"ok", True),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nok", b"ok", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
    "connection: close": (reply(b"ok", "connection: close"), b"ok", False),
}


@pytest.mark.parametrize("name", KEPT)
@each_loop
def test_a_whole_answer_and_what_becomes_of_its_connection(name: str, loop: str) -> None:
    sent, body, kept = KEPT[name]

    async def check(origin: Origin, served: Served) -> None:
        assert await fetch(origin) == body
        assert await fetch(origin) == body
        assert served.accepted == (1 if kept else 2)
        assert origin.statistics().retried == 0

    exchange(answering(sent, close=not kept), check, loop)


def test_the_answer_to_a_head_has_no_body() -> None:
    async def check(origin: Origin, served: Served) -> None:
        assert await fetch(origin, method="HEAD") == b""

    exchange(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n"), check)


def test_an_interim_answer_is_not_the_last_word_for_ever() -> None:
    async def check(origin: Origin, served: Served) -> None:
        await fails(origin, "protocol")

    exchange(answering(b"HTTP/1.1 102 Processing\r\n\r\n" * 50), check)


# --- T05, T06: resets and stale connections ---


@each_loop
def test_t05_a_reset_before_any_byte_is_told_as_such(loop: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        reset(writer.transport)

    async def check(origin: Origin, served: Served) -> None:
        await fails(origin, "reset")
        assert served.accepted == 1  # a fresh connection is not retried here

    exchange(handler, check, loop)


@pytest.mark.parametrize("size", [2, 300_000])
@pytest.mark.parametrize("how", ["before the request", "at the request", "by reset"])
@each_loop
def test_t06_a_stale_connection_is_retried_on_a_fresh_one_unseen(
    loop: str, how: str, size: int
) -> None:
    body = bytes(size)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        if how != "before the request":
            await request_of(reader)
        if how == "by reset":
            reset(writer.transport)

    async def check(origin: Origin, served: Served) -> None:
        assert await fetch(origin) == b"ok"
        if how == "before the request":
            await until_true(lambda: origin.statistics().open == 0)
        assert await fetch(origin, body=body) == b"ok"
        assert served.accepted == 2
        assert origin.statistics().retried == (0 if how == "before the request" else 1)

    exchange(handler, check, loop)


@each_loop
def test_t06_a_stale_connection_is_retried_at_most_once(loop: str) -> None:
    answered = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while answered < 3:
            await request_of(reader)
            answered += 1
            if answered == 3:  # three are open and idle once all have been answered together
                gate.set()
            await gate.wait()
            writer.write(OK)
            await request_of(reader)
            return
        await request_of(reader)

    async def check(origin: Origin, served: Served) -> None:
        await asyncio.gather(*(fetch(origin) for _ in range(3)))
        assert origin.statistics().idle == 3
        await fails(origin, "connect")  # not "reset", which is worth one more try
        assert served.accepted == 4  # one idle one, then a fresh one, and no more
        assert origin.statistics().retried == 1

    gate = asyncio.Event()
    exchange(handler, check, loop)


def test_t06_the_retry_has_room_though_every_connection_is_taken() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await request_of(reader)

    async def check(origin: Origin, served: Served) -> None:
        replies = await asyncio.gather(*(fetch(origin) for _ in range(20)))
        assert replies == [b"ok"] * 20

    exchange(handler, check, max_connections=2)


# --- T07, T08: silence ---


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-ty"])
@each_loop
def test_t07_silence_ends_at_the_limit(loop: str, said: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(said)
        await hold(reader, writer)

    async def check(origin: Origin, served: Served) -> None:
        with pytest.raises(ReadTimeout):
            await fetch(origin, within_s=0.1)
        await until_true(lambda: served.gone == 1)

    exchange(handler, check, loop)


def test_t08_a_dripping_head_does_not_extend_the_limit() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.01)

    async def check(origin: Origin, served: Served) -> None:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(ReadTimeout):
            await fetch(origin, within_s=0.15)
        assert asyncio.get_running_loop().time() - begun < 0.5

    exchange(handler, check)


# --- both directions at the pace of the slower side ---


@each_loop
def test_a_slow_reader_slows_the_upstream(loop: str) -> None:
    written = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 * 2**20))
        for _ in range(1024):
            writer.write(bytes(2**16))
            await writer.drain()
            written += 2**16

    async def check(origin: Origin, served: Served) -> None:
        response = await send(origin)
        assert await at_rest(lambda: written) < 16 * 2**20
        assert len(await whole(response, 5.0)) == 64 * 2**20

    exchange(handler, check, loop)


@each_loop
def test_a_large_body_is_sent_no_faster_than_it_is_taken(loop: str) -> None:
    body = os.urandom(1024) * (32 * 1024)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take.wait()
        while True:
            received = await request_of(reader)
            writer.write(reply(b"%d" % received.endswith(body)))

    async def check(origin: Origin, served: Served) -> None:
        sending = asyncio.ensure_future(fetch(origin, body=body, within_s=5.0))
        await until_true(lambda: origin.statistics().open == 1)
        (connection,) = origin._pool._open
        assert await at_rest(connection.transport.get_write_buffer_size) < 2 * 2**20
        take.set()
        assert await sending == b"1"
        assert await fetch(origin, body=body, within_s=5.0) == b"1"
        assert served.accepted == 1

    take = asyncio.Event()
    exchange(handler, check, loop)


@each_loop
def test_a_large_body_nobody_takes_ends_at_the_limit(loop: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async def check(origin: Origin, served: Served) -> None:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(ReadTimeout):
            await fetch(origin, body=bytes(32 * 2**20), within_s=0.2)
        assert asyncio.get_running_loop().time() - begun < 2.0
        over.set()

    over = asyncio.Event()
    exchange(handler, check, loop)


@each_loop
@pytest.mark.parametrize("length", [2, 100])
def test_an_answer_before_the_body_is_sent_ends_the_sending(loop: str, length: int) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"no", status="413 Too Large", length=length))
        await over.wait()

    async def check(origin: Origin, served: Served) -> None:
        response = await send(origin, body=bytes(32 * 2**20))
        assert response.status == 413
        assert await response.read(asyncio.get_running_loop().time() + 2) == b"no"
        response.close()
        await until_true(lambda: origin.statistics().open == 0)
        over.set()

    over = asyncio.Event()
    exchange(handler, check, loop)


# --- cancellation ---


@pytest.mark.parametrize("stage", ["connect", "handshake", "body out", "head", "body in", "wait"])
@each_loop
def test_cancelling_at_any_stage_leaves_nothing(loop: str, stage: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if stage == "body out":
            await asyncio.sleep(5)
        await request_of(reader)
        if stage == "body in":
            writer.write(reply(b"ok", length=100))
        await hold(reader, writer)

    async def one(origin: Origin) -> None:
        await fetch(origin, body=bytes(2**25 if stage == "body out" else 10), within_s=5.0)

    async def check(origin: Origin, served: Served) -> None:
        if stage == "handshake":
            origin = Origin("x", f"https://127.0.0.1:{served.port}", environ={})
        calls = [asyncio.ensure_future(one(origin)) for _ in range(5)]
        await asyncio.sleep(0 if stage == "connect" else 0.05)
        assert origin.statistics().waiting == (3 if stage == "wait" else 0)
        for call in reversed(calls):
            call.cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in found)
        await until_true(lambda: origin.statistics().open == 0)
        assert origin.statistics().waiting == 0
        await origin.close()

    exchange(handler, check, loop, max_connections=2 if stage == "wait" else 9)


@each_loop
def test_cancelling_at_every_single_step_leaves_nothing(loop: str) -> None:
    """One cancellation after each number of rounds of the loop that a request takes."""

    async def check(origin: Origin, served: Served) -> None:
        for rounds in range(80):
            call = asyncio.ensure_future(fetch(origin))
            for _ in range(rounds // 2):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await until_true(lambda: origin.statistics().open == origin.statistics().idle)
            if rounds % 2:  # the other half finds an idle connection, where one was left
                for connection in list(origin._pool._open):
                    connection.transport.abort()
        assert await fetch(origin) == b"ok"
        await until_true(lambda: origin.statistics().open == origin.statistics().idle)
        assert origin._pool._opening == 0

    exchange(answering(OK), check, loop, max_connections=1)


@each_loop
def test_an_answer_given_up_closes_its_connection(loop: str) -> None:
    async def check(origin: Origin, served: Served) -> None:
        response = await send(origin)
        response.close()
        response.close()
        await until_true(lambda: served.gone == 1)
        assert origin.statistics().open == 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(reply(b"ok", length=100))
        await hold(reader, writer)

    exchange(handler, check, loop)


def test_a_closed_client_turns_requests_away() -> None:
    async def check(origin: Origin, served: Served) -> None:
        waiting = [asyncio.ensure_future(fetch(origin)) for _ in range(3)]
        await until_true(lambda: origin.statistics().waiting == 2)
        await origin.close()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, TransportError) for one in found)
        await fails(origin, "connect")

    exchange(hold, check, max_connections=1)


def test_a_connection_idle_for_long_is_closed() -> None:
    async def check(origin: Origin, served: Served) -> None:
        origin._pool._idle_limit_s = 0.05
        await asyncio.gather(*(fetch(origin) for _ in range(3)))
        assert origin.statistics().idle >= 1
        await until_true(lambda: origin.statistics().open == 0)

    exchange(answering(OK), check)


def test_file_descriptors_running_out_are_nobodys_fault_but_ours() -> None:
    import resource

    async def check(origin: Origin, served: Served) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 3, hard))
        try:
            taken = []
            while True:
                try:
                    taken.append(socket.socket())
                except OSError:
                    break
            await fails(origin, "busy")
        finally:
            for one in taken:
                one.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await fetch(origin) == b"ok"

    exchange(answering(OK), check)


def test_the_head_names_the_host_and_asks_for_plain_bytes() -> None:
    seen = b""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await request_of(reader)
        writer.write(OK)

    async def check(_: Origin, served: Served) -> None:
        url = f"http://127.0.0.1:{served.port}/v1/"
        origin = Origin("x", url, ((b"authorization", b"Bearer k"),), environ={})
        now = asyncio.get_running_loop().time()
        wish = Send("POST", "/chat", (b"{}",), ((b"x-a", b"b"),))
        answer = await reading.send(origin, wish, connect_until=now + 1, until=now + 1)
        assert await whole(answer) == b"ok"
        await origin.close()
        lines = seen.split(b"\r\n")
        assert lines[0] == b"POST /v1/chat HTTP/1.1"
        assert set(lines[1:6]) == {
            b"host: 127.0.0.1:%d" % served.port,
            b"accept-encoding: identity",
            b"authorization: Bearer k",
            b"x-a: b",
            b"content-length: 2",
        }

    exchange(handler, check)
