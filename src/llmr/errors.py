"""The errors llmr raises.

    LlmrError
    ├── ConfigError        the configuration cannot be used; exit code 3
    └── ApiError           a request cannot be answered; becomes the OpenAI error object

Every `ApiError` carries a stable `code`, a status, and a message that says what was tried and what
to do. Codes are the contract; messages may change.
"""

from typing import Any

import msgspec

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


class LlmrError(Exception):
    """Anything llmr raises on purpose."""


class ConfigError(LlmrError):
    """The configuration cannot be used. The message names file, line and what was expected."""


class ApiError(LlmrError):
    """A request that cannot be answered.

    `status` is the HTTP status, `code` a stable word, `param` the field to mend. `retry_after_s`
    becomes `Retry-After`. `retryable` becomes `x-should-retry`: whether the same request may
    succeed later. `label` is the word for metrics and logs, where `code` is an upstream's own.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        kind: str | None = None,
        retry_after_s: float | None = None,
        retryable: bool = False,
        label: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.type = kind or TYPES.get(status, "api_error")
        self.retry_after_s = retry_after_s
        self.retryable = retryable
        self.label = label or code

    def body(self) -> dict[str, Any]:
        """The OpenAI error object."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}


def bad_request(code: str, message: str, param: str | None = None) -> ApiError:
    """A 400: the caller has to change the request."""
    return ApiError(400, code, message, param=param)


def internal() -> ApiError:
    """What the caller hears of a fault of our own."""
    return ApiError(500, "internal_error", "The router failed; its log says where.")


def error_event(error: ApiError) -> bytes:
    """An error on a started stream: one event, after which the stream ends without `[DONE]`."""
    return b"data: " + msgspec.json.encode(error.body()) + b"\n\n"
