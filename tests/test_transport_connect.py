"""How the upstream client comes to a connection: names, addresses, TLS, and its turn."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from llmr.upstreams.base import TransportError
from llmr.upstreams.http import Origin
from llmr.upstreams.resolve import AT_ONCE, TTL_S, Address, Resolver, without_lookup
from llmr.upstreams.tls import tls_context
from tests.fault_proxy import FullQueue
from tests.raw_upstream import (
    OK,
    Served,
    answering,
    each_loop,
    exchange,
    fails,
    fetch,
    hold,
    request_of,
    run,
    serving,
    until_true,
)
from tests.tls import Authority


class Table:
    """A resolver's answers, changed at will, and what it was asked."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses: Sequence[Address] | None = addresses
        self.asked = 0
        self.hanging = threading.Event()
        self.hanging.set()
        self.now = 1000.0

    def lookup(self, host: str, port: int) -> Sequence[Address]:
        self.asked += 1
        self.hanging.wait(5)
        if self.addresses is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return self.addresses

    def resolver(self) -> Resolver:
        return Resolver(self.lookup, lambda: self.now)


def local(port: int, host: str = "127.0.0.1") -> Address:
    return (socket.AF_INET, (host, port))


@pytest.fixture
def full_queue() -> Iterator[FullQueue]:
    queue = FullQueue()
    yield queue
    queue.close()


async def timed(origin: Origin, kind: str, connect_s: float) -> float:
    """Seconds until a request failed with this kind."""
    begun = time.monotonic()
    await fails(origin, kind, connect_s=connect_s)
    return time.monotonic() - begun


# --- T01: names ---


def test_t01_a_name_that_does_not_resolve_fails_at_once() -> None:
    async def main() -> None:
        table = Table()
        for addresses in (None, ()):
            table.addresses = addresses
            origin = Origin("x", "http://nowhere.test", resolver=table.resolver(), environ={})
            assert await timed(origin, "name", 1.0) < 0.5
            await origin.close()

    run(main)


def test_t01_a_hanging_resolver_ends_at_the_connect_limit_and_blocks_nothing() -> None:
    async def main() -> None:
        table = Table()
        table.hanging.clear()
        resolver = table.resolver()
        origins = [
            Origin("x", f"http://host-{number}.test", resolver=resolver, environ={})
            for number in range(3 * AT_ONCE)
        ]
        calls = [asyncio.ensure_future(timed(o, "name", 0.2)) for o in origins for _ in range(3)]
        begun = time.monotonic()
        await until_true(lambda: table.asked == AT_ONCE)
        assert time.monotonic() - begun < 0.1  # the loop goes on
        assert all(took < 0.5 for took in await asyncio.gather(*calls))
        assert table.asked == AT_ONCE  # one look-up for a name, and so many at a time
        table.hanging.set()
        await until_true(lambda: table.asked == 3 * AT_ONCE)
        await until_true(lambda: not resolver._flights)

    run(main)


def test_t01_a_name_is_asked_for_once_in_a_while() -> None:
    async def main() -> None:
        async with serving(answering(OK, close=True)) as served:
            table = Table(local(served.port))
            origin = Origin("x", "http://up.test", resolver=table.resolver(), environ={})
            for _ in range(3):
                assert await fetch(origin) == b"ok"
            assert (table.asked, served.accepted) == (1, 3)
            table.now += TTL_S
            assert await fetch(origin) == b"ok"
            assert table.asked == 2
            await origin.close()

    run(main)


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_t01_a_resolver_that_is_down_does_not_take_the_upstream_with_it(how: str) -> None:
    async def main() -> None:
        async with serving(answering(OK, close=True)) as served:
            table = Table(local(served.port))
            resolver = table.resolver()
            origin = Origin("x", "http://up.test", resolver=resolver, environ={})
            assert await fetch(origin) == b"ok"
            table.now += 2 * TTL_S
            if how == "fails":
                table.addresses = None
            else:
                table.hanging.clear()
            assert await fetch(origin) == b"ok"
            table.hanging.set()
            await until_true(lambda: not resolver._flights)
            await origin.close()

    run(main)


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("fe80::1%2", ["fe80::1"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("localhost.test", []),
    ],
)
def test_literals_and_localhost_need_no_resolver(host: str, addresses: list[str]) -> None:
    assert [where[0] for _, where in without_lookup(host, 80)] == addresses


# --- T02, T03: connecting ---


@each_loop
def test_t02_a_refused_connection_fails_at_once(loop: str) -> None:
    async def main() -> None:
        origin = Origin("x", "http://127.0.0.1:9", environ={})
        assert await timed(origin, "connect", 1.0) < 0.5
        assert origin.statistics().open == 0

    run(main, loop)


@each_loop
def test_t03_a_black_hole_ends_at_the_connect_limit(full_queue: FullQueue, loop: str) -> None:
    async def main() -> None:
        origin = Origin("x", f"http://127.0.0.1:{full_queue.port}", environ={})
        assert 0.15 < await timed(origin, "connect_timeout", 0.2) < 0.6

    run(main, loop)


# --- T04: TLS ---


def secured(authority: Authority, served: Served, host: str = "up.test") -> Origin:
    table = Table(local(served.port))
    return Origin(
        "x",
        f"https://{host}",
        tls=authority.client(),
        resolver=table.resolver(),
        environ={},
    )


@each_loop
def test_t04_a_good_certificate_is_taken_and_connections_are_kept(
    authority: Authority, loop: str
) -> None:
    async def main() -> None:
        async with serving(answering(OK), authority.server("up.test")) as served:
            origin = secured(authority, served)
            for _ in range(3):
                assert await fetch(origin, body=bytes(300_000)) == b"ok"
            assert served.accepted == 1
            (connection,) = origin._pool._open
            made = connection.transport.get_extra_info("ssl_object")
            assert made.selected_alpn_protocol() == "http/1.1"
            await origin.close()

    run(main, loop)


@pytest.mark.parametrize(
    ("host", "days", "trusted", "reason"),
    [
        ("up.test", -1, True, "has expired"),
        ("other.test", 2, True, "Hostname mismatch"),
        ("up.test", 2, False, "certificate"),
    ],
    ids=["expired", "wrong host", "unknown issuer"],
)
@each_loop
def test_t04_a_bad_certificate_is_refused_and_named(
    authority: Authority, host: str, days: int, trusted: bool, reason: str, loop: str
) -> None:
    received: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(65536))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's complaint
        async with serving(handler, authority.server(host, days=days)) as served:
            origin = secured(authority, served)
            if not trusted:
                origin = Origin(
                    "x",
                    "https://up.test",
                    resolver=Table(local(served.port)).resolver(),
                    environ={},
                )
            error = await fails(origin, "tls")
            assert reason in error.detail
            assert "up.test" in error.detail
            assert not any(received)
            await origin.close()

    run(main, loop)


@pytest.mark.parametrize(("how", "kind"), [("stalls", "connect_timeout"), ("plain", "tls")])
@each_loop
def test_t04_a_handshake_that_leads_nowhere(loop: str, how: str, kind: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if how == "plain":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await hold(reader, writer)

    async def main() -> None:
        async with serving(handler) as served:
            origin = Origin("x", f"https://127.0.0.1:{served.port}", environ={})
            assert await timed(origin, kind, 0.2) < 0.6
            await until_true(lambda: served.gone == 1)

    run(main, loop)


def test_t04_one_context_serves_the_process(authority: Authority) -> None:
    assert tls_context({}) is tls_context({})
    alone = tls_context({"SSL_CERT_FILE": str(authority.certificate)})
    assert alone is not tls_context({})
    assert alone.check_hostname


# --- T15: addresses ---


def test_t15_a_refusing_address_is_passed_over_and_tried_last_from_then_on() -> None:
    async def main() -> None:
        async with serving(answering(OK, close=True)) as served:
            dead = local(served.port, "127.0.0.2")
            table = Table(dead, local(served.port))
            resolver = table.resolver()
            origin = Origin("x", "http://up.test", resolver=resolver, environ={})
            assert await fetch(origin) == b"ok"
            until = asyncio.get_running_loop().time() + 1
            order = await resolver.addresses("up.test", 80, until)
            assert order == [local(served.port), dead]
            assert table.asked == 1  # it was only just looked up
            table.now += 2
            resolver.failed("up.test", 80, order[1])
            await until_true(lambda: table.asked == 2)
            await until_true(lambda: not resolver._flights)
            assert await resolver.addresses("up.test", 80, until) == order  # and stays last
            await origin.close()

    run(main)


@each_loop
def test_t15_a_silent_address_is_overtaken(full_queue: FullQueue, loop: str) -> None:
    async def main() -> None:
        async with serving(answering(OK, close=True)) as served:
            table = Table(local(full_queue.port), local(served.port))
            origin = Origin("x", "http://up.test", resolver=table.resolver(), environ={})
            begun = time.monotonic()
            assert await fetch(origin) == b"ok"
            assert 0.2 < time.monotonic() - begun < 0.6
            begun = time.monotonic()
            assert await fetch(origin) == b"ok"
            assert time.monotonic() - begun < 0.2
            await origin.close()

    run(main, loop)


def test_t15_new_connections_follow_a_change_of_address() -> None:
    async def main() -> None:
        async with serving(answering(OK, close=True)) as old:
            table = Table(local(old.port))
            origin = Origin("x", "http://up.test", resolver=table.resolver(), environ={})
            assert await fetch(origin) == b"ok"
        async with serving(answering(OK, close=True)) as new:
            table.addresses = (local(new.port),)
            table.now += 2  # long before the answer expires
            assert await fetch(origin) == b"ok"
            assert await fetch(origin) == b"ok"
            assert new.accepted == 2
        await origin.close()

    run(main)


def test_t15_an_expired_answer_is_renewed_though_the_old_address_lives() -> None:
    async def main() -> None:
        async with (
            serving(answering(OK, close=True)) as old,
            serving(answering(OK, close=True)) as new,
        ):
            table = Table(local(old.port))
            origin = Origin("x", "http://up.test", resolver=table.resolver(), environ={})
            assert await fetch(origin) == b"ok"
            table.addresses = (local(new.port),)
            assert await fetch(origin) == b"ok"
            table.now += TTL_S
            assert await fetch(origin) == b"ok"
            assert (old.accepted, new.accepted) == (2, 1)
            await origin.close()

    run(main)


def test_t15_localhost_is_either_family() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")

    async def main() -> None:
        async with serving(answering(OK), host="::1") as served:
            origin = Origin("x", f"http://localhost:{served.port}", environ={})
            assert await fetch(origin) == b"ok"
            await origin.close()

    run(main)


# --- T14: more requests than connections ---


@each_loop
@pytest.mark.parametrize(("connections", "kept"), [(1, True), (1, False), (2, True)])
def test_t14_fifty_callers_share_few_connections_in_turn(
    loop: str, connections: int, kept: bool
) -> None:
    async def check(origin: Origin, served: Served) -> None:
        order: list[int] = []

        async def one(number: int) -> None:
            assert await fetch(origin) == b"ok"
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(50)))
        assert served.accepted == (connections if kept else 50)
        assert sorted(order) == list(range(50))
        if connections == 1:  # of several, one may be quicker
            assert order == list(range(50))
        assert origin.statistics().waiting == 0

    said = OK if kept else OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    exchange(answering(said, close=not kept), check, loop, max_connections=connections)


@each_loop
@pytest.mark.parametrize("how", ["given back", "closed"])
def test_t14_a_waiter_cancelled_as_its_turn_comes_passes_it_on(loop: str, how: str) -> None:
    async def check(origin: Origin, served: Served) -> None:
        taken = await origin.connection(asyncio.get_running_loop().time() + 1)
        first, second = (asyncio.ensure_future(fetch(origin)) for _ in range(2))
        await until_true(lambda: origin.statistics().waiting == 2)
        if how == "given back":
            origin._pool.give_back(taken)
        else:
            origin._pool.lost(taken)
            taken.transport.abort()
        first.cancel()
        assert await second == b"ok"
        assert first.cancelled()

    exchange(answering(OK), check, loop, max_connections=1)


def test_t14_waiters_are_bounded_in_time() -> None:
    async def check(origin: Origin, served: Served) -> None:
        holding = [asyncio.ensure_future(fetch(origin)) for _ in range(2)]
        await until_true(lambda: origin.statistics().open == 2)
        assert 0.05 < await timed(origin, "busy", 0.1) < 0.4
        assert origin.statistics().waiting == 0
        for one in holding:
            one.cancel()
        await asyncio.gather(*holding, return_exceptions=True)

    exchange(hold, check, max_connections=2)


def test_t14_waiters_are_bounded_in_number() -> None:
    async def check(origin: Origin, served: Served) -> None:
        calls = [asyncio.ensure_future(fetch(origin)) for _ in range(5)]
        await until_true(lambda: origin.statistics().waiting == 3)
        assert await timed(origin, "busy", 1.0) < 0.1
        for one in calls:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert origin.statistics().waiting == 0

    exchange(hold, check, max_connections=2, max_waiting=3)


def test_t14_other_origins_go_on_while_one_is_full() -> None:
    async def check(origin: Origin, served: Served) -> None:
        calls = [asyncio.ensure_future(fetch(origin)) for _ in range(5)]
        await until_true(lambda: origin.statistics().waiting == 4)
        async with serving(answering(OK)) as other:
            free = Origin("y", other.url, environ={}, max_connections=1)
            assert await fetch(free) == b"ok"
            await free.close()
        for one in calls:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    exchange(hold, check, max_connections=1)


def test_t14_a_waiter_gets_the_room_of_a_connection_that_failed() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if first.is_set():
            writer.write(OK)
        first.set()

    async def check(origin: Origin, served: Served) -> None:
        found = await asyncio.gather(*(fetch(origin) for _ in range(3)), return_exceptions=True)
        assert isinstance(found[0], TransportError)
        assert found[1:] == [b"ok", b"ok"]

    first = asyncio.Event()
    exchange(handler, check, max_connections=1)
