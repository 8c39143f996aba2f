"""What a failure means and what follows from it, as one table.

Fed by transport errors, statuses, error bodies and in-stream errors of every dialect. The error's
own stable words decide first, the status second, prose last. A new provider adds rows, not code.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from llmr.core.retry_after import wait_s


class Kind(Struct, frozen=True):
    """A class of failure and its consequence.

    `fallback`: whether another target may be tried. `cool`: whose fault it was, and who is to be
    left alone: None, target, account, or the account's free rows; `hard`: after the first such
    fault, else after many. `status` and `code` are what the caller sees where nothing else helps;
    `own_status`: whether the upstream's 4xx goes to the caller as it is.
    """

    name: str
    fallback: bool
    cool: str | None
    status: int
    code: str
    own_status: bool = False
    retryable: bool = True
    hard: bool = True


RATE_LIMITED = Kind("rate_limited", True, "target", 429, "rate_limited")
OVERLOADED = Kind("overloaded", True, "target", 503, "upstream_overloaded")
SERVER = Kind("server", True, "target", 502, "upstream_error")
CREDENTIALS = Kind("credentials", True, "account", 502, "upstream_credentials", retryable=False)
CREDIT = Kind("credit", True, "account", 503, "upstream_out_of_credit", retryable=False)
FORBIDDEN = Kind("forbidden", True, "target", 502, "upstream_forbidden", retryable=False)
CALLER = Kind("caller", False, None, 400, "invalid_request", own_status=True, retryable=False)
CONTEXT = Kind("context", True, None, 400, "context_length_exceeded", True, False)
REFUSED = Kind("refused", False, None, 400, "content_policy_violation", True, False)
MISSING = Kind("missing", True, "target", 404, "model_not_found", own_status=True, retryable=False)
GENERATION = Kind("generation", True, None, 400, "generation_failed", True, False)
INVALID = Kind("invalid_answer", True, "target", 502, "invalid_upstream_answer", hard=False)
TRANSPORT = Kind("transport", True, "target", 502, "upstream_unreachable")
TIMEOUT = Kind("timeout", True, "target", 504, "upstream_timeout")
CUT = Kind("cut", True, "target", 502, "upstream_cut_answer", hard=False)
RESET = Kind("reset", True, "target", 502, "upstream_unreachable")
FREE_LIMIT = Kind("free_limit", True, "free", 429, "rate_limited")
DEPARTED = Kind("departed", False, None, 502, "upstream_cut_answer")
LOOP = Kind("loop", True, None, 508, "loop_detected", retryable=False)
DEADLINE = Kind("deadline", False, None, 504, "deadline_exceeded")
BUSY = Kind("busy", True, None, 503, "upstream_pool_busy")

# Stable words: OpenRouter's error_type and availability codes, OpenAI's and others' code and type.
WORDS: Mapping[str, Kind] = {
    "context_length_exceeded": CONTEXT,
    "exceed_context_size_error": CONTEXT,
    "token_limit_exceeded": CONTEXT,
    "string_too_long": CONTEXT,
    "request_too_large": CONTEXT,
    "rate_limit_exceeded": RATE_LIMITED,
    "rate_limit_error": RATE_LIMITED,
    "ratelimitreached": RATE_LIMITED,
    "resource_exhausted": RATE_LIMITED,
    "too_many_requests": RATE_LIMITED,
    "capacity_exhausted": OVERLOADED,
    "temporarily_unavailable": OVERLOADED,
    "provider_overloaded": OVERLOADED,
    "overloaded_error": OVERLOADED,
    "overloaded": OVERLOADED,
    "provider_unavailable": OVERLOADED,
    "model_unavailable_upstream": OVERLOADED,
    "unavailable": OVERLOADED,
    "insufficient_quota": CREDIT,
    "credit_balance_exhausted": CREDIT,
    "enforced_spend_limit_reached": CREDIT,
    "payment_required": CREDIT,
    "authentication": CREDENTIALS,
    "authentication_error": CREDENTIALS,
    "invalid_api_key": CREDENTIALS,
    "api_key_invalid": CREDENTIALS,
    "unauthenticated": CREDENTIALS,
    "permission_denied": FORBIDDEN,
    "permission_error": FORBIDDEN,
    "content_policy_violation": REFUSED,
    "content_filter": REFUSED,
    "refusal": REFUSED,
    "model_not_found": MISSING,
    "no_endpoints": MISSING,
    "model_deprecated": MISSING,
    "free_variant_ended": MISSING,
    "privacy_restricted": MISSING,
    "region_restricted": MISSING,
    "not_found": MISSING,
    "tool_use_failed": GENERATION,
    "loop_detected": LOOP,
    "server": SERVER,
    "server_error": SERVER,
    "timeout": TIMEOUT,
    "invalid_request": CALLER,
    "invalid_prompt": CALLER,
    "unprocessable": CALLER,
    "payload_too_large": CALLER,
}

STATUSES: Mapping[int, Kind] = {
    401: CREDENTIALS,
    402: CREDIT,
    403: FORBIDDEN,
    404: MISSING,
    408: TIMEOUT,
    410: MISSING,
    413: CALLER,
    429: RATE_LIMITED,
    498: OVERLOADED,
    503: OVERLOADED,
    504: TIMEOUT,
    524: TIMEOUT,
    529: OVERLOADED,
}

# Upstreams repeat the caller's words in their reasons: prose about keys counts only at the start.
PROSE: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"^(?:incorrect|invalid|missing)? ?api key\b"), CREDENTIALS),
    (
        re.compile(
            r"context (?:length|window|size)|(?:prompt|input) (?:is )?too long|maximum context"
        ),
        CONTEXT,
    ),
    (re.compile(r"not a valid model|model\b.{0,80}\bdoes not exist|no endpoints found"), MISSING),
    (re.compile(r"moderation|content (?:policy|filter)|flagged"), REFUSED),
)

CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z", re.ASCII)
PARAM = re.compile(r"[\w.\[\]-]{1,100}\Z", re.ASCII)
PLAIN_WORDS = frozenset(("invalid_request_error", "api_error", "error", "none"))
SECRET = re.compile(
    r"\b(?:sk|pk|key|gsk|xai)-[\w-]{6,}|\bBearer\s+\S+|AIza[\w-]{20,}|\*{2,}[\w-]*"
    r"|\b(?=\w*\d)(?=\w*[A-Za-z])\w{28,}\b",
    re.I,
)
MESSAGE_LIMIT = 600


class Failure(Exception):  # noqa: N818 - carries a failure, is not only an error
    """One attempt failed. `message` is the upstream's own reason, scrubbed, or what happened."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{kind.name}: {message}")
        self.kind = kind
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


def scrub(text: str) -> str:
    """The text without anything that looks like a credential, and not longer than it need be."""
    return SECRET.sub("[redacted]", text)[:MESSAGE_LIMIT]


def from_reply(status: int, headers: Mapping[str, str], body: bytes, wall: float) -> Failure:
    """The failure that an error reply means. `wall` is the wall clock, for dates in headers."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parsed = None  # an HTML page, an empty body: the status speaks, the body is not echoed
    return _failure(status, parsed, headers, wall)


def from_event(error: Any, status: int | None = None) -> Failure:
    """The failure that an `error` inside a 200 reply or a stream means, in any shape."""
    if status is None and isinstance(error, dict):
        for key in ("code", "status_code", "status", "http_status"):
            value = error.get(key)
            if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
                value = int(value)
            if isinstance(value, int) and 400 <= value < 600:
                status = value
                break
    return _failure(status, {"error": error}, {}, 0.0)


def _failure(status: int | None, parsed: Any, headers: Mapping[str, str], wall: float) -> Failure:
    facts = list(_objects(parsed))
    message = _message(facts, parsed)
    kind = _of_reply(status, facts, message)
    codes = (c for f in facts if isinstance(c := f.get("code"), str) and not c.isdigit())
    code = next((c for c in codes if c.lower() not in PLAIN_WORDS and _plain(c, CODE)), None)
    params = (p for f in facts if isinstance(p := f.get("param"), str))
    param = next((p for p in params if _plain(p, PARAM)), None)
    return Failure(
        kind,
        _shown(kind, message, status),
        status=status,
        code=code,
        param=param,
        retry_after_s=wait_s(headers, facts, message, wall),
    )


def _plain(text: str, form: re.Pattern[str]) -> bool:
    """Whether a word of an upstream may be repeated in its own place: short, and no secret."""
    return form.match(text) is not None and scrub(text) == text


def _shown(kind: Kind, message: str, status: int | None) -> str:
    """The upstream's reason as it may be repeated; what it says of keys is not."""
    if kind is CREDENTIALS:
        return f"the upstream refused the router's key (status {status})"
    return scrub(message) or f"the upstream answered with status {status}"


def _objects(parsed: Any, depth: int = 4) -> Iterator[dict[str, Any]]:
    """The error object and the objects inside it that carry facts, outermost last."""
    if depth == 0:
        return
    if isinstance(parsed, list):
        for item in parsed[:4]:
            yield from _objects(item, depth - 1)
    if not isinstance(parsed, dict):
        return
    for key in ("error", "metadata", "availability", "details"):
        inner = parsed.get(key)
        if isinstance(inner, dict | list):
            yield from _objects(inner, depth - 1)
    yield parsed


def _message(facts: list[dict[str, Any]], parsed: Any) -> str:
    for fact in facts:
        raw = fact.get("raw")
        if isinstance(raw, str) and raw and "<" not in raw[:20]:
            return raw
    for fact in facts:
        for key in ("message", "detail", "error"):
            if isinstance(value := fact.get(key), str) and value:
                return value
    if isinstance(parsed, dict) and isinstance(parsed.get("detail"), list):
        return str(parsed["detail"])[:MESSAGE_LIMIT]
    return ""


def _words(facts: list[dict[str, Any]]) -> Iterator[str]:
    for key in ("error_type", "reason", "code", "status", "type"):
        for fact in facts:
            if isinstance(word := fact.get(key), str) and word.lower() not in PLAIN_WORDS:
                yield word.lower()


def _of_reply(status: int | None, facts: list[dict[str, Any]], message: str) -> Kind:
    kind = _kind(status, facts, message)
    if kind is RATE_LIMITED and "free-models-per" in message:
        return FREE_LIMIT  # the allowance is the account's, not the model's
    return kind


def _kind(status: int | None, facts: list[dict[str, Any]], message: str) -> Kind:
    for word in _words(facts):
        if (kind := WORDS.get(word)) is not None:
            # Whatever it says, these two are about the router's account, never about the caller.
            return STATUSES[status] if status in (401, 402) and kind.own_status else kind
    if status is not None and status >= 500:
        return STATUSES.get(status, SERVER)
    prose = message.lower()
    if status is None or status in (400, 403, 404, 413, 422):
        # These statuses mean several things; the others do not.
        for pattern, kind in PROSE:
            if pattern.search(prose):
                return kind
    if status is None:
        return SERVER
    if 300 <= status < 400:
        return INVALID
    return STATUSES.get(status, CALLER if status < 500 else SERVER)
