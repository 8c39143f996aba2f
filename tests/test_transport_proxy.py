"""Proxies of the environment: which one is meant, and how requests go through it."""

import asyncio
import base64

import pytest

from llmr.upstreams.http import Origin
from llmr.upstreams.proxy import proxy_for
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

CASES = [
    (True, "api.test", {"HTTPS_PROXY": "http://p:1"}, ("p", 1)),
    (True, "api.test", {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"}, ("p", 1)),
    (True, "api.test", {"HTTP_PROXY": "http://p:1"}, None),
    (False, "api.test", {"HTTP_PROXY": "p:1"}, ("p", 1)),
    (False, "api.test", {"ALL_PROXY": "http://p"}, ("p", 80)),
    (True, "api.test", {"all_proxy": "http://p:1", "HTTPS_PROXY": ""}, ("p", 1)),
    *(
        (True, host, {"ALL_PROXY": "http://p:1", "NO_PROXY": no}, None)
        for host, no in [
            ("api.test", "*"),
            ("api.test", "api.test"),
            ("api.test", "other, .test"),
            ("api.test", "TEST"),
            ("api.test", "*.test"),
            ("api.test", "api.test:443"),
            ("10.1.2.3", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("fd00::1", "[fd00::1]:443"),
            ("fd00::1", "fd00::/8"),
        ]
    ),
    *(
        (True, host, {"ALL_PROXY": "http://p:1", "NO_PROXY": no}, ("p", 1))
        for host, no in [
            ("api.test", "pi.test"),
            ("api.test", "api.test:80"),
            ("api.test", ","),
            ("api.test", "sub.api.test"),
            ("10.1.2.3", "10.1.2"),
            ("fd00::1", "fd01::/16"),
        ]
    ),
    *(
        (True, host, {"ALL_PROXY": "http://p:1"}, None)
        for host in ("localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1")
    ),
]


@pytest.mark.parametrize(("secure", "host", "environ", "expected"), CASES)
def test_which_proxy_the_environment_names(
    secure: bool, host: str, environ: dict[str, str], expected: tuple[str, int] | None
) -> None:
    found = proxy_for(secure, host, 443, environ)
    assert (None if found is None else (found.host, found.port)) == expected


@pytest.mark.parametrize(
    "url", ["socks5://u:hunter2@p:1", "https://u:hunter2@p", "http://u:hunter2@p:port", "http://"]
)
def test_a_proxy_that_cannot_be_used_fails_clearly_and_tells_no_password(url: str) -> None:
    async def main() -> None:
        origin = Origin("x", "https://api.test", environ={"ALL_PROXY": url})
        error = await fails(origin, "connect")
        assert "ALL_PROXY" in str(error)
        assert "hunter2" not in str(error)

    run(main)


def test_a_request_in_the_clear_names_the_whole_url_to_its_proxy() -> None:
    seen = b""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await request_of(reader)
        writer.write(OK)

    async def check(_: Origin, served: Served) -> None:
        environ = {"http_proxy": f"http://us%40er:hunter2@127.0.0.1:{served.port}"}
        origin = Origin("x", "http://api.test/v1", environ=environ)
        assert await fetch(origin) == b"ok"
        assert seen.startswith(b"POST http://api.test/v1/x HTTP/1.1\r\nhost: api.test\r\n")
        assert base64.b64encode(b"us@er:hunter2") in seen
        await origin.close()

    exchange(handler, check)


@each_loop
def test_tls_goes_through_a_tunnel(authority: Authority, loop: str) -> None:
    asked: list[bytes] = []

    async def main() -> None:
        async with serving(answering(OK), authority.server("up.test")) as served:

            async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                back, forth = await asyncio.open_connection("127.0.0.1", served.port)
                writer.write(b"HTTP/1.1 200 Go\r\nx: y\r\n\r\n")
                try:
                    await asyncio.gather(copy(reader, forth), copy(back, writer))
                finally:
                    forth.close()

            async with serving(proxy) as through:
                environ = {"HTTPS_PROXY": f"http://u:hunter2@127.0.0.1:{through.port}"}
                origin = Origin(
                    "x", "https://up.test:8443", tls=authority.client(), environ=environ
                )
                for _ in range(2):
                    assert await fetch(origin) == b"ok"
                await origin.close()

    run(main, loop)
    (head,) = asked
    assert head.startswith(b"CONNECT up.test:8443 HTTP/1.1\r\nhost: up.test:8443\r\n")
    assert base64.b64encode(b"u:hunter2") in head


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"HTTP/1.1 407 Who are you\r\n\r\n", "connect"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", "connect"),
        (b"HTTP/1.1 200 Go\r\n\r\nsurplus", "protocol"),
        (b"SSH-2.0\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 " + b"x" * 20_000, "protocol"),
        (b"", "connect"),
        (None, "connect_timeout"),
    ],
    ids=["407", "502", "surplus", "not HTTP", "endless", "closed", "silent"],
)
@each_loop
def test_a_tunnel_that_is_refused(said: bytes | None, kind: str, loop: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if said is None:
            await hold(reader, writer)
        else:
            writer.write(said)

    async def main() -> None:
        async with serving(handler) as served:
            environ = {"HTTPS_PROXY": f"http://u:hunter2@127.0.0.1:{served.port}"}
            origin = Origin("x", "https://up.test", environ=environ)
            error = await fails(origin, kind, connect_s=0.2)
            assert "hunter2" not in str(error)
            await until_true(lambda: served.gone == 1)

    run(main, loop)
