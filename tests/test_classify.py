"""What failures mean: recorded replies, odd shapes, how long to wait, what is not repeated."""

import json
import pathlib
from collections.abc import Iterator
from time import tzset
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmr.core import classify
from llmr.core.classify import Failure, Kind, from_event, from_reply, scrub
from llmr.core.retry_after import wait_s
from tests.test_body import JSON

FOLDER = pathlib.Path(__file__).parent / "recordings" / "errors"
WALL = 1_786_968_000.0  # Mon, 17 Aug 2026 12:00:00 GMT


def reply(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Failure:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return from_reply(status, headers or {}, data, WALL)


def recorded(name: str) -> Failure:
    found = json.loads((FOLDER / f"{name}.json").read_bytes())
    return reply(found["status"], found["body"], found["response_headers"])


# --- recorded replies ---

RECORDED: dict[str, tuple[Kind, float | None]] = {
    "anthropic-400-context-length": (classify.CONTEXT, None),
    "anthropic-401": (classify.CREDENTIALS, None),
    "azure-401": (classify.CREDENTIALS, None),
    "azure-429-rate-limit": (classify.RATE_LIMITED, 0.0),
    "deepseek-400-context-length": (classify.CONTEXT, None),
    "deepseek-401": (classify.CREDENTIALS, None),
    "gemini-400-invalid-key": (classify.CREDENTIALS, None),
    "gemini-429-quota": (classify.RATE_LIMITED, 48.0),
    "groq-400-tool-use-failed": (classify.GENERATION, None),
    "groq-404-model-not-found": (classify.MISSING, None),
    "mistral-401": (classify.CREDENTIALS, None),
    "ollama-400-context-length": (classify.CONTEXT, None),
    "ollama-401": (classify.CREDENTIALS, None),
    "openai-400-bad-request": (classify.CALLER, None),
    "openai-400-context-length": (classify.CONTEXT, None),
    "openai-400-no-messages": (classify.CALLER, None),
    "openai-401": (classify.CREDENTIALS, None),
    "openai-404-unknown-model": (classify.MISSING, None),
    "openrouter-400-context-length": (classify.CONTEXT, None),
    "openrouter-401-missing-authentication": (classify.CREDENTIALS, None),
    "openrouter-429-upstream-rate-limited": (classify.RATE_LIMITED, None),
    "xai-400-invalid-key": (classify.CREDENTIALS, None),
}


def test_every_recording_has_its_row() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == RECORDED.keys()


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_replies(name: str) -> None:
    kind, wait = RECORDED[name]
    found = recorded(name)
    assert found.kind is kind
    assert found.retry_after_s == (wait if wait is None else pytest.approx(wait, abs=1.0))
    assert found.message


def test_the_reason_of_the_provider_behind_is_the_message() -> None:
    assert "rate-limited upstream" in recorded("openrouter-429-upstream-rate-limited").message


def test_what_a_caller_may_mend_is_told_with_code_and_param() -> None:
    found = recorded("openai-400-bad-request")
    assert (found.status, found.code, found.param) == (400, "unsupported_parameter", "max_tokens")
    assert "max_completion_tokens" in found.message


# --- statuses and words ---


@pytest.mark.parametrize(
    ("status", "kind", "fallback"),
    [
        (301, classify.INVALID, True),
        (400, classify.CALLER, False),
        (401, classify.CREDENTIALS, True),
        (402, classify.CREDIT, True),
        (403, classify.FORBIDDEN, True),
        (404, classify.MISSING, True),
        (405, classify.CALLER, False),
        (408, classify.TIMEOUT, True),
        (409, classify.CALLER, False),
        (410, classify.MISSING, True),
        (413, classify.CALLER, False),
        (418, classify.CALLER, False),
        (422, classify.CALLER, False),
        (429, classify.RATE_LIMITED, True),
        (498, classify.OVERLOADED, True),
        (500, classify.SERVER, True),
        (502, classify.SERVER, True),
        (503, classify.OVERLOADED, True),
        (504, classify.TIMEOUT, True),
        (520, classify.SERVER, True),
        (524, classify.TIMEOUT, True),
        (529, classify.OVERLOADED, True),
        (599, classify.SERVER, True),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"<html>oops</html>", b'{"error":{}}', b"\xff"]
)
def test_u13_u14_without_words_the_status_speaks(
    status: int, kind: Kind, fallback: bool, body: bytes
) -> None:
    found = reply(status, body)
    assert found.kind is kind
    assert found.kind.fallback is fallback
    assert str(status) in found.message
    assert "html" not in found.message


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, classify.CREDIT),
        (429, {"code": "credit_balance_exhausted"}, classify.CREDIT),
        (429, {"error_code": "x", "type": "rate_limit_error"}, classify.RATE_LIMITED),
        (400, {"code": "RESOURCE_EXHAUSTED"}, classify.RATE_LIMITED),
        (400, {"metadata": {"error_type": "context_length_exceeded"}}, classify.CONTEXT),
        (400, {"code": 400, "metadata": {"error_type": "invalid_request"}}, classify.CALLER),
        (403, {"metadata": {"error_type": "content_policy_violation"}}, classify.REFUSED),
        (
            403,
            {"message": "Your input was flagged", "metadata": {"reasons": ["x"]}},
            classify.REFUSED,
        ),
        (403, {"message": "Key limit exceeded"}, classify.FORBIDDEN),
        (404, {"availability": {"code": "no_endpoints"}}, classify.MISSING),
        (503, {"availability": {"code": "capacity_exhausted"}}, classify.OVERLOADED),
        (404, {"availability": {"code": "privacy_restricted"}}, classify.MISSING),
        (400, {"code": 400, "message": "foo/bar is not a valid model ID"}, classify.MISSING),
        (404, {"code": 404, "message": "No endpoints found for foo/bar."}, classify.MISSING),
        (400, {"type": "exceed_context_size_error", "n_ctx": 4096}, classify.CONTEXT),
        (413, {"metadata": {"error_type": "payload_too_large"}}, classify.CALLER),
        (529, {"type": "overloaded_error"}, classify.OVERLOADED),
        (402, {"message": "Insufficient credits"}, classify.CREDIT),
        (500, {"message": "maximum context length"}, classify.SERVER),
        (401, {"message": "context length"}, classify.CREDENTIALS),
        (429, {"message": "the api key has too many requests"}, classify.RATE_LIMITED),
        (400, {"message": "Budget exceeded", "code": "unknown_word"}, classify.CALLER),
    ],
)
def test_stable_words_decide_before_the_status_and_prose_comes_last(
    status: int, error: dict[str, Any], kind: Kind
) -> None:
    assert reply(status, {"error": error}).kind is kind


def test_kinds_a_retry_of_the_same_request_cannot_mend_say_so() -> None:
    kinds = {found.name: found for found in vars(classify).values() if isinstance(found, Kind)}
    for name in ("caller", "context", "refused", "missing", "credentials", "credit"):
        assert not kinds[name].retryable, name
    for name in ("rate_limited", "overloaded", "server", "timeout", "transport", "cut"):
        assert kinds[name].retryable, name
    assert all(400 <= kind.status < 600 and kind.code for kind in kinds.values())
    assert not any(kind.own_status and kind.status >= 500 for kind in kinds.values())


# --- odd shapes ---


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": "all in one text"}, "all in one text", None),
        ({"error": {"message": "plain", "code": "word"}}, "plain", "word"),
        ({"error": {"message": "number", "code": 400}}, "number", None),
        ({"error": {"message": "numeric text", "code": "400"}}, "numeric text", None),
        ([{"error": {"message": "in a list", "code": 400}}], "in a list", None),
        ({"error": [{"message": "list within"}]}, "list within", None),
        ({"error": {"error": {"message": "nested", "code": "word"}}}, "nested", "word"),
        ({"detail": "a text"}, "a text", None),
        ({"detail": [{"loc": ["body", "n"], "msg": "too many"}]}, "too many", None),
        ({"message": "at the top", "code": "word"}, "at the top", "word"),
        ({"object": "error", "message": "as vLLM has it", "code": 400}, "as vLLM has it", None),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": "real"}}},
            "real",
            None,
        ),
        (
            {"error": {"message": "said", "metadata": {"raw": "<html>no</html>"}}},
            "said",
            None,
        ),
        ({"error": {"message": "", "metadata": None}}, "answered with status 400", None),
        ({"error": None}, "answered with status 400", None),
        (
            {"error": {"message": ["a"], "code": ["b"], "param": 5}},
            "answered with status 400",
            None,
        ),
        ("just a text", "answered with status 400", None),
        (5, "answered with status 400", None),
    ],
)
def test_the_reason_is_found_in_every_shape(body: Any, message: str, code: str | None) -> None:
    found = reply(400, body)
    assert message in found.message
    assert found.code == code
    assert found.kind is classify.CALLER


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ({"code": 429, "message": "slow down"}, 429, classify.RATE_LIMITED),
        ({"code": "429", "message": "slow down"}, 429, classify.RATE_LIMITED),
        ({"code": "rate_limit_exceeded", "message": "x"}, None, classify.RATE_LIMITED),
        ({"code": 502, "message": "x", "metadata": {"error_type": "server"}}, 502, classify.SERVER),
        ({"status_code": 400, "code": "tool_use_failed"}, 400, classify.GENERATION),
        ({"http_status": 503, "error_type": "provider_unavailable"}, 503, classify.OVERLOADED),
        ({"code": 12, "message": "x"}, None, classify.SERVER),
        ({"code": True, "message": "x"}, None, classify.SERVER),
        ({"message": "prompt is too long"}, None, classify.CONTEXT),
        ("overloaded", None, classify.SERVER),
        (["x"], None, classify.SERVER),
        (None, None, classify.SERVER),
    ],
)
def test_u15_errors_within_an_answer(error: Any, status: int | None, kind: Kind) -> None:
    found = from_event(error)
    assert (found.status, found.kind) == (status, kind)
    assert found.message


@given(st.integers(300, 599), JSON, st.dictionaries(st.sampled_from(["retry-after"]), st.text()))
def test_no_reply_is_an_error_of_the_router(
    status: int, body: Any, headers: dict[str, str]
) -> None:
    for shape in (body, {"error": body}, {"error": {"metadata": body, "code": body}}):
        found = reply(status, shape, headers)
        assert found.message
        assert found.retry_after_s is None or found.retry_after_s >= 0
    assert from_event(body).message


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error":' * 50_000, b'{"error":' * 300 + b"1"])
def test_a_reply_nested_without_end_is_no_error(body: bytes) -> None:
    assert reply(500, body).kind is classify.SERVER


# --- how long to wait ---


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "1"}, 0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9),
        ({"retry-after": "Mon, 17 Aug 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Mon, 17 Aug 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "Mon, 17 Aug 2026 14:00:30 +0200"}, 30),
        ({"retry-after": "Monday, 17-Aug-26 12:00:30 GMT"}, 30),
        ({"retry-after": "Mon Aug 17 12:00:30 2026"}, 30),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "99 Foo 2026 99:99:99 GMT"}, None),
        ({"retry-after": "9" * 400}, None),
    ],
)
def test_u02_u03_what_a_header_says(headers: dict[str, str], expected: float | None) -> None:
    assert reply(429, {}, headers).retry_after_s == expected


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that is not in Greenwich."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-5")
        tzset()
        yield
    tzset()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "date",
    [
        "Mon, 17 Aug 2026 12:00:30 GMT",
        "Mon, 17 Aug 2026 12:00:30 -0000",
        "Mon, 17 Aug 2026 12:00:30",
        "Mon Aug 17 12:00:30 2026",
    ],
)
def test_u02_dates_of_headers_are_of_greenwich_wherever_the_machine_is(date: str) -> None:
    assert reply(429, {}, {"retry-after": date}).retry_after_s == 30


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"metadata": {"retry_after": 12}}, 12),
        ({"availability": {"code": "capacity_exhausted", "retry_after": 2.5}}, 2.5),
        ({"details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "48s"}]}, 48),
        ({"details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "48.96s"}]}, 48.96),
        ({"details": [{"retryDelay": "soon"}]}, None),
        ({"metadata": {"retry_after": -1}}, None),
        ({"metadata": {"retry_after": True}}, None),
        ({"metadata": {"retry_after": "3"}}, 3),
        ({"message": "Please retry in 48.9s."}, 48.9),
        ({"message": "Please try again in 20ms. Visit"}, 0.02),
        ({"message": "Please try again in 1.2 seconds"}, 1.2),
        ({"message": "Retry after 30 seconds"}, 30),
        ({"message": "Please retry after 5 sec"}, 5),
        ({"message": "Rate limit reached. Please try again in 1m30s."}, 90),
        ({"message": "Please try again in 7m54.336s."}, 474.336),
        ({"message": "Please try again in 2 minutes"}, 120),
        ({"message": "Please try again in 6m0s"}, 360),
        ({"message": "try again in 500 milliseconds"}, 0.5),
        ({"message": "Please try again later."}, None),
        ({"message": "Please retry shortly"}, None),
    ],
)
def test_what_a_body_says(error: dict[str, Any], expected: float | None) -> None:
    assert reply(429, {"error": error}).retry_after_s == expected


def test_a_header_wins_over_the_body() -> None:
    body = {"error": {"message": "Please retry in 9s.", "metadata": {"retry_after": 8}}}
    assert reply(429, body, {"retry-after": "7"}).retry_after_s == 7
    assert reply(429, body, {"retry-after": "soon"}).retry_after_s in (8, 9)


@given(st.text(), st.text(), JSON)
def test_u03_no_wait_is_ever_negative_or_endless(ms: str, header: str, fact: Any) -> None:
    headers = {"retry-after-ms": ms, "retry-after": header}
    found = wait_s(headers, [{"retry_after": fact, "retryDelay": fact}], header, WALL)
    assert found is None or 0 <= found < float("inf")


# --- what is not repeated ---


@pytest.mark.parametrize(
    "secret",
    [
        "sk-or-v1-0123456789abcdef0123456789abcdef",
        "sk-proj-Ab_cd-0123456789",
        "sk-ant-api03-AbCdEf0123456789",
        "gsk_AbCdEf0123456789AbCdEf0123456789AbCdEf0123456789abcd",
        "xai-AbCdEf0123456789",
        "AIzaSyA0123456789abcdefghijklmnopqrstuv",
        "Bearer abc.def.ghi",
        "bearer 0123456789",
        "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
        "0123456789abcdef0123456789abcdef",
        "sk-****************************abcd",
    ],
)
def test_what_looks_like_a_key_is_not_repeated(secret: str) -> None:
    for text in (secret, f"Incorrect key: {secret}.", f'{{"key":"{secret}"}}', f"({secret})"):
        shown = scrub(text)
        assert secret not in shown
        assert secret.split(" ")[-1][-8:] not in shown
    assert secret not in reply(400, {"error": {"message": f"no such user {secret}"}}).message


def test_words_of_an_upstream_about_keys_are_not_repeated() -> None:
    shown = recorded("openai-401").message
    assert "invalid-key" not in shown
    assert "key" in shown


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 1048565 tokens.",
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "anthropic/claude-sonnet-4.6-20260217 is overloaded",
        "google/gemini-3.1-flash-lite-preview is not available",
        "deepseek/deepseek-v4-flash-0731 and openai/gpt-oss-safeguard-20b",
    ],
)
def test_plain_reasons_are_repeated_whole(text: str) -> None:
    assert scrub(text) == text


def test_a_reason_is_not_repeated_without_end() -> None:
    assert len(reply(400, {"error": {"message": "x y " * 10_000}}).message) < 1000
