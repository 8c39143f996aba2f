"""The header fields of a request, and those that two readers could understand differently."""

from collections.abc import Iterable, Mapping

from llmr.errors import ApiError, bad_request

CURLS_OWN = "application/x-www-form-urlencoded"
ONCE = frozenset(
    ("host", "authorization", "content-type", "content-encoding", "content-length", "origin")
)
LOOKED_AT = ("cache-control", "x-session-id")


def fields(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names to values. A 400 where a field that decides something is given twice."""
    found: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1")
        if key in found and (key in ONCE or key.startswith("x-llmr-")):
            raise bad_request("doubled_header", f"The header {key!r} is given twice.")
        found[key] = value.decode("latin-1")
    coding = found.get("transfer-encoding")
    if coding is not None and coding.lower() != "chunked":
        raise bad_request("invalid_http", "The only transfer encoding understood is 'chunked'.")
    return found


def must_be_json(headers: Mapping[str, str]) -> None:
    """A 415 where the body says it is something else. One that says nothing is tried.

    Nor does it say anything where it says what curl says of everything.
    """
    given = headers.get("content-type")
    if given is None or given == CURLS_OWN:
        return
    kind, _, parameters = given.lower().partition(";")
    kind, charset = kind.strip(), parameters.partition("charset=")[2].strip(' "')
    if kind.endswith(("/json", "+json")) and charset in ("", "utf-8", "utf8", "us-ascii"):
        return
    raise ApiError(
        415, "unsupported_media_type", "The body must be JSON: 'Content-Type: application/json'."
    )


def wishes(headers: Mapping[str, str]) -> dict[str, str]:
    """The fields that say how a request is to be answered: mostly none."""
    return {k: v for k, v in headers.items() if k.startswith("x-llmr-") or k in LOOKED_AT}
