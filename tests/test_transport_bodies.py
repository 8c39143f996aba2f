"""What each body of an upstream means: framing, encodings, and what is too large."""

import asyncio
import gzip
import tracemalloc
import zlib

import pytest

from llmr.upstreams.base import TransportError
from llmr.upstreams.http import Origin
from tests.fault_proxy import FaultProxy
from tests.raw_upstream import (
    OK,
    Served,
    answering,
    chunked,
    each_loop,
    exchange,
    fails,
    fetch,
    hold,
    reply,
    request_of,
    send,
    until_true,
    whole,
)

# --- T10, T11: framing ---

BROKEN = {
    "short": (reply(b"ok", length=5), "closed"),
    "no end chunk": (chunked(b"ok", end=b""), "closed"),
    "cut in a chunk": (chunked(end=b"9\r\nok"), "closed"),
    "chunk size": (chunked(b"ok", end=b"zz\r\nok\r\n0\r\n\r\n"), "protocol"),
    "chunk without an end": (chunked(end=b"2\r\nokXX0\r\n\r\n"), "protocol"),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + OK[17:], "protocol"),
    "both framings": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "protocol",
    ),
    "transfer coding": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok", "protocol"),
    "cut in the head": (b"HTTP/1.1 200 OK\r\ncontent-le", "closed"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.9\r\n", "protocol"),
    "switching": (b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "protocol"),
}


@pytest.mark.parametrize("name", BROKEN)
@each_loop
def test_t10_t11_a_body_that_is_not_whole_is_a_failure(name: str, loop: str) -> None:
    sent, kind = BROKEN[name]

    async def check(origin: Origin, served: Served) -> None:
        await fails(origin, kind)
        await until_true(lambda: origin.statistics().open == 0)

    exchange(answering(sent, close=True), check, loop)


@each_loop
def test_t11_a_reset_does_not_end_a_body_that_ends_with_the_connection(loop: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nok")
        await request_of(reader)

    async def check(origin: Origin, served: Served) -> None:
        with FaultProxy(("127.0.0.1", served.port)) as proxy:
            through = Origin("x", f"http://127.0.0.1:{proxy.port}", environ={})
            response = await send(through)
            until = asyncio.get_running_loop().time() + 2
            assert await response.read(until) == b"ok"
            await asyncio.to_thread(proxy.set, "reset")
            with pytest.raises(TransportError):
                await response.read(until)
            await through.close()

    exchange(handler, check, loop)


SURPLUS = {
    "a byte": b"}",
    "the beginning of an answer": b"HTTP/1.1 ",
    "a whole answer": reply(b"no"),
    "many bytes": b"x" * 100_000,
}


@pytest.mark.parametrize("name", SURPLUS)
@pytest.mark.parametrize("apart", [False, True])
@each_loop
def test_t10_surplus_bytes_poison_the_connection(loop: str, name: str, apart: bool) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if apart:
            writer.write(OK)
            await later.wait()
            writer.write(SURPLUS[name])
        else:
            writer.write(OK + SURPLUS[name])
        await hold(reader, writer)

    async def check(origin: Origin, served: Served) -> None:
        assert await fetch(origin) == b"ok"
        later.set()
        await until_true(lambda: origin.statistics().open == 0)
        assert await fetch(origin) == b"ok"
        assert served.accepted == 2

    later = asyncio.Event()
    exchange(handler, check, loop)


# --- T12: encodings ---

TEXT = b"data: " + b"".join(b"%d, " % n for n in range(2000)) + b"\n\n"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


ENCODED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("X-GZIP", gzip.compress(TEXT)),
    "gzip in two members": ("gzip", gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:])),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "raw deflate": ("deflate", raw_deflate(TEXT)),
    "identity": ("identity", TEXT),
}


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize("name", ENCODED)
def test_t12_an_encoding_nobody_asked_for_is_decoded(name: str, size: int) -> None:
    coding, data = ENCODED[name]
    pieces = [data[i : i + size] for i in range(0, len(data), size)]

    async def check(origin: Origin, served: Served) -> None:
        response = await send(origin)
        assert "content-encoding" not in response.headers
        assert await whole(response) == TEXT
        assert await fetch(origin) == TEXT
        assert served.accepted == 1

    exchange(answering(chunked(*pieces, fields=f"content-encoding: {coding}\r\n")), check)
    if size == 1:
        exchange(answering(reply(data, f"content-encoding: {coding}")), check)


def test_t12_compressed_events_flow_as_they_come() -> None:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n")
        writer.write(packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH))
        await more.wait()
        writer.write(packer.compress(b"data: 2\n\n") + packer.flush())

    async def check(origin: Origin, served: Served) -> None:
        response = await send(origin)
        until = asyncio.get_running_loop().time() + 2
        assert await response.read(until) == b"data: 1\n\n"
        more.set()
        assert await whole(response) == b"data: 2\n\n"

    more = asyncio.Event()
    exchange(handler, check)


CORRUPT = {
    "corrupt gzip": ("gzip", gzip.compress(TEXT)[:200] + b"\xff" * 500),
    "cut gzip": ("gzip", gzip.compress(TEXT)[:-9]),
    "wrong checksum": ("gzip", gzip.compress(TEXT)[:-8] + b"\0" * 8),
    "not gzip": ("gzip", TEXT),
    "bytes after deflate": ("deflate", zlib.compress(TEXT) + b"x"),
    "br": ("br", b"\x0b\x02\x80"),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd"),
    "twice": ("gzip, gzip", gzip.compress(gzip.compress(TEXT))),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_t12_what_cannot_be_decoded_fails_after_its_status(name: str) -> None:
    coding, data = CORRUPT[name]
    sent = reply(data, f"content-encoding: {coding}", "retry-after: 7", status="503 Busy")

    async def check(origin: Origin, served: Served) -> None:
        response = await send(origin)
        assert (response.status, response.headers["retry-after"]) == (503, "7")
        with pytest.raises(TransportError) as caught:
            await whole(response)
        assert caught.value.kind == "protocol"
        await until_true(lambda: origin.statistics().open == 0)

    exchange(answering(sent), check)


# --- T13: bombs ---


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_t13_a_bomb_fails_and_memory_stays_flat(coding: str) -> None:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS + (16 if coding == "gzip" else 0))
    zeros = bytes(1024 * 1024)
    bomb = b"".join(packer.compress(zeros) for _ in range(200)) + packer.flush()

    async def check(origin: Origin, served: Served) -> None:
        tracemalloc.start()
        response = await send(origin)
        with pytest.raises(TransportError) as caught:
            await whole(response)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert caught.value.kind == "too_large"
        assert peak < 8 * 1024 * 1024

    exchange(answering(reply(bomb, f"content-encoding: {coding}")), check)


HEADS = {
    "one giant field": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 201 + b"\r\n",
    "many bytes in fields": b"HTTP/1.1 200 OK\r\n" + (b"x: " + b"y" * 999 + b"\r\n") * 70,
    "a giant reason": b"HTTP/1.1 200 " + b"O" * 70_000,
    "a giant chunk extension": chunked(end=b"2;" + b"x" * 70_000),
    "a giant trailer": chunked(b"ok", end=b"0\r\nx: " + b"y" * 700_000),
}


@pytest.mark.parametrize("name", HEADS)
def test_t13_giant_heads_fail(name: str) -> None:
    async def check(origin: Origin, served: Served) -> None:
        await fails(origin, "too_large")
        await until_true(lambda: origin.statistics().open == 0)

    exchange(answering(HEADS[name]), check)


def test_t13_a_head_too_large_fails_though_it_comes_in_one_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmr.upstreams.connection.HEAD_LIMIT", 1000)

    async def check(origin: Origin, served: Served) -> None:
        await fails(origin, "too_large")

    exchange(answering(reply(b"ok", "x: " + "y" * 1000)), check)


@pytest.mark.parametrize("line", [b"x-field: y\r\n", b"y"])
def test_t13_an_endless_head_is_not_kept_in_memory(line: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            writer.write(line * 1000)
            await writer.drain()

    async def check(origin: Origin, served: Served) -> None:
        await fails(origin, "too_large")
        await until_true(lambda: served.gone == 1)

    exchange(handler, check)
