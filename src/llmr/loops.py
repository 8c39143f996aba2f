"""A router that is its own upstream: refused at load, and stopped on the way round.

What goes upstream names the routers it has been through. One that sees its own name has met a
loop; so has one that sees more names than any sane chain of routers has, as where several processes
answer on one address.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from llmr.errors import ApiError

VIA = "x-llmr-via"
MOST = 5  # routers a request may have been through before this one
CODE = "loop_detected"

Fields = tuple[tuple[bytes, bytes], ...]

_NAMES = re.compile(r"[0-9a-f]{12}(?:,[0-9a-f]{12})*\Z", re.ASCII)
_ADVICE = "Take the upstream that leads to a router again out of the configuration."


class Hops:
    """The header fields of what goes upstream, with the name of this router in them."""

    __slots__ = ("_fields", "_first", "name")

    def __init__(self, fields: Fields) -> None:
        """`fields` go with every request, beside the names."""
        self.name = secrets.token_hex(6)
        self._fields = fields
        self._first = self._with(self.name)

    def onward(self, headers: Mapping[str, str]) -> Fields:
        """The fields for a request that came with `headers`; a 508 where it goes round."""
        given = headers.get(VIA)
        if given is None or not _NAMES.match(given):  # none of a router: never passed on
            return self._first
        names = given.split(",")
        if self.name in names:
            raise _loop(f"This request has been through this router before. {_ADVICE}")
        if len(names) > MOST:
            raise _loop(f"This request has been through {len(names)} routers already. {_ADVICE}")
        return self._with(f"{given},{self.name}")

    def _with(self, names: str) -> Fields:
        return (*self._fields, (VIA.encode(), names.encode()))


def _loop(text: str) -> ApiError:
    return ApiError(508, CODE, text)


def own_address(host: str, port: int, url: str) -> bool:
    """Whether a URL leads to a server that listens on `host` and `port`, as far as the text tells.

    Names are not looked up: what is found out later, the names in the header find out. Port 0 is
    any that is free, and so nobody's.
    """
    parts = urlsplit(url)
    if port == 0 or (parts.port or (443 if parts.scheme == "https" else 80)) != port:
        return False
    ours, theirs = host.lower().rstrip("."), (parts.hostname or "").rstrip(".")
    return ours == theirs or any(_heard(ours, address) for address in _loopback(theirs))


def _loopback(name: str) -> Iterator[IPv4Address | IPv6Address]:
    """The addresses of this machine's own that a connection to `name` may go to."""
    unnamed = {"localhost": ("127.0.0.1", "::1"), "0.0.0.0": ("127.0.0.1",), "::": ("::1",)}
    for text in unnamed.get(name, (name,)):
        try:
            address = ip_address(text)
        except ValueError:
            return
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if address.is_loopback:
            yield address


def _heard(host: str, address: IPv4Address | IPv6Address) -> bool:
    """Whether a socket bound to `host` takes connections to a loopback address."""
    if host in ("0.0.0.0", "::"):
        return host == "::" or address.version == 4
    return str(address) == ("127.0.0.1" if host == "localhost" else host)
