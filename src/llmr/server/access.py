"""Who may call: bearer keys compared as digests, and no other site's pages on an open router."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from llmr.config import LOOPBACK
from llmr.errors import ApiError

OPEN_TENANT = b"open"
ANYONE = frozenset(("/livez", "/readyz", "/health", "/docs", "/openapi.json"))


class Access:
    """Tells the tenant of a request, or refuses it."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def tenant(self, path: str, headers: Mapping[str, str]) -> bytes:
        """The tenant, a digest of the key and never the key; raises a 401 or 403."""
        if not self._digests:
            self._same_machine(headers)
            return OPEN_TENANT
        if path in ANYONE or path.startswith("/docs/"):
            return OPEN_TENANT
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (given := key.strip()):
            digest = _digest(given.encode())
            found = None
            for known in self._digests:  # all of them, so that time tells nothing
                if hmac.compare_digest(known, digest):
                    found = known
            if found is not None:
                return found
        raise ApiError(
            401,
            "invalid_api_key",
            "Send one of the router's own keys as 'Authorization: Bearer KEY' (server.api_keys).",
        )

    def _same_machine(self, headers: Mapping[str, str]) -> None:
        """An open router is for this machine: no rebound host name, no page of another site."""
        try:
            host = urlsplit(f"//{headers.get('host', 'localhost')}").hostname
            origin = headers.get("origin")
            site = urlsplit(origin).hostname if origin else "localhost"
        except ValueError:
            host = site = None
        if host not in LOOPBACK or site not in LOOPBACK:
            raise ApiError(
                403,
                "foreign_origin",
                "This router has no keys and answers this machine only. Set server.api_keys to "
                "call it under another name or from a web page.",
            )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:16]
