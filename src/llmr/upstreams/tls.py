"""TLS towards upstreams: one context for the process, and what is said where a handshake fails."""

import os
import ssl
from collections.abc import Mapping
from functools import cache

import certifi


def tls_context(environ: Mapping[str, str] | None = None) -> ssl.SSLContext:
    """The context shared by all connections: certificates and host names are always checked.

    The system's trust and certifi's; `SSL_CERT_FILE` or `SSL_CERT_DIR` alone where they are set.
    """
    environ = os.environ if environ is None else environ
    return _context(environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR"))


@cache
def _context(file: str | None, directory: str | None) -> ssl.SSLContext:
    if file or directory:
        context = ssl.create_default_context(cafile=file or None, capath=directory or None)
    else:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def reason(error: Exception) -> str:
    """Why a handshake failed, in words that hold no secrets."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).replace("_", " ").lower()
    return "the connection was closed during the handshake"
