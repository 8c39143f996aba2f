"""Proxies as the environment names them, and the tunnel through one.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`; the lower-case form goes first. The
loopback is never proxied. Only `http://` proxies are spoken to.
"""

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from llmr.upstreams.base import TransportError

HEAD_LIMIT = 16 * 1024


class Proxy(Struct, frozen=True):
    """`authorization` is the value of the header that the proxy wants, if any: a secret.

    `unusable`: why nothing can be sent through it.
    """

    host: str
    port: int
    authorization: bytes | None = None
    unusable: str | None = None

    def header(self) -> bytes:
        """The proxy's own header line, or nothing."""
        if self.authorization is None:
            return b""
        return b"proxy-authorization: %s\r\n" % self.authorization


def proxy_for(secure: bool, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for an origin, or None where it is to be reached directly."""
    if _loopback(host) or _excepted(host, port, _setting(environ, "no_proxy")):
        return None
    for name in ("https_proxy" if secure else "http_proxy", "all_proxy"):
        if url := _setting(environ, name):
            return _read(url, name.upper())
    return None


async def tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Ask the proxy at the other end of `sock` for a connection to the host, with CONNECT.

    Raises `TransportError` ("connect", "protocol") where it refuses, `OSError` where it breaks off.
    """
    loop = asyncio.get_running_loop()
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    target = authority.encode("ascii" if authority.isascii() else "idna")
    request = b"CONNECT %s HTTP/1.1\r\nhost: %s\r\n%s\r\n" % (target, target, proxy.header())
    await loop.sock_sendall(sock, request)
    reply = b""
    while b"\r\n\r\n" not in reply:
        data = await loop.sock_recv(sock, 4096)
        if not data:
            raise TransportError("connect", f"the proxy {proxy.host} closed the connection")
        reply += data
        if len(reply) > HEAD_LIMIT:
            raise TransportError("protocol", f"the answer of the proxy {proxy.host} has no end")
    _check(reply, proxy)


def _check(reply: bytes, proxy: Proxy) -> None:
    head, _, surplus = reply.partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or not status.isdigit() or surplus:
        raise TransportError("protocol", f"the proxy {proxy.host} does not speak HTTP/1.1")
    if not status.startswith(b"2"):
        code = int(status)
        raise TransportError("connect", f"the proxy {proxy.host} refused (status {code})")


def _setting(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _read(url: str, setting: str) -> Proxy:
    """The proxy in a URL; its text is never repeated, since it may hold a password."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError:
        return Proxy("", 0, unusable=f"{setting} is not a URL")
    if parts.scheme != "http" or not parts.hostname:
        return Proxy("", 0, unusable=f"{setting} must be like http://host:port")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + base64.b64encode(pair.encode())
    return Proxy(parts.hostname, port, authorization)


def _loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _excepted(host: str, port: int, setting: str) -> bool:
    return any(_matches(entry, host, port) for entry in setting.lower().replace(",", " ").split())


def _matches(entry: str, host: str, port: int) -> bool:
    """An entry is `*`, a host (and those below it), an address or a network; maybe with a port."""
    if entry == "*":
        return True
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if (address := _address(host)) is not None:
        return _within(address, entry)
    suffix = entry.removeprefix("*").removeprefix(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, entry: str) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
