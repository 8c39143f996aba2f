"""What the sandbox reads of a chat request; everything else in the body is let be."""

from typing import Any

import msgspec


class Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The text of the message, its parts joined."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text") or "") for part in self.content)
        return self.content or ""

    @property
    def images(self) -> int:
        if not isinstance(self.content, list):
            return 0
        return sum(part.get("type") == "image_url" for part in self.content)


class ChatRequest(msgspec.Struct):
    messages: list[Message]
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None
    user: str | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens of one choice; None for no limit."""
        limit = self.max_completion_tokens or self.max_tokens
        return limit if limit and limit > 0 else None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def images(self) -> int:
        return sum(message.images for message in self.messages)

    @property
    def prompt_tokens(self) -> int:
        """An estimate: a token for every four bytes of text, tools included."""
        size = sum(len(message.text.encode()) for message in self.messages)
        for extra in (self.tools, [m.tool_calls for m in self.messages if m.tool_calls]):
            size += len(msgspec.json.encode(extra)) if extra else 0
        return max(1, size // 4)

    @property
    def prefill(self) -> str | None:
        """The text of a last message by the assistant, which the answer is to continue."""
        last = self.messages[-1]
        return last.text if last.role == "assistant" and not last.tool_calls else None

    @property
    def wants_reasoning(self) -> bool:
        asked = self.reasoning or {}
        effort = self.reasoning_effort or asked.get("effort")
        if effort == "none" or asked.get("enabled") is False:
            return False
        return bool(effort or asked or self.include_reasoning)

    @property
    def hides_reasoning(self) -> bool:
        return self.include_reasoning is False or (self.reasoning or {}).get("exclude") is True


class InvalidRequestError(Exception):
    """The body is not a chat request; the message says why, `code` is for the error object."""

    def __init__(self, message: str, code: str | int = 400) -> None:
        super().__init__(message)
        self.code = code


def parse_json(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises `InvalidRequestError`."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"Invalid JSON body: {error}") from error


def asked_model(body: dict[str, Any]) -> str | None:
    """The model a request names, or the first of its list."""
    models = body.get("models")
    model = body.get("model") or (models[0] if isinstance(models, list) and models else None)
    return model if isinstance(model, str) else None


def parse_chat(body: dict[str, Any]) -> ChatRequest:
    """The part of the body that shapes the answer. Raises `InvalidRequestError`."""
    if not body.get("messages"):
        raise InvalidRequestError('Input required: specify "prompt" or "messages"')
    try:
        return msgspec.convert(body, ChatRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"Invalid request: {error}") from error
