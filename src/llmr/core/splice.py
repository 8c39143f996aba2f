"""Joining a second answer to a first that broke off, where that is provably right.

The second starts over: what it repeats of the delivered text, byte for byte, is swallowed, and the
rest goes on under the first one's id. At the first byte that departs there is nothing to join.
"""

from typing import Any

import msgspec

from llmr.core.sse import Event

THOUGHTS = ("reasoning", "reasoning_content", "reasoning_details")
KEPT_BYTES = 2 * 1024 * 1024  # of delivered text; a longer answer is not continued


class Departed(Exception):  # noqa: N818 - says what the second answer did
    """The second answer is not a continuation of the first."""


class Splice:
    """Turns the events of the second stream into a continuation of the first.

    `delivered` is the text the caller has; with `prefilled` the second begins where it ends, and
    `prefill` is what it goes on from.
    """

    __slots__ = ("_identity", "_left", "prefill")

    def __init__(self, delivered: str, identity: dict[str, Any], *, prefilled: bool) -> None:
        self.prefill = delivered if prefilled else None
        self._left = "" if prefilled else delivered
        self._identity = {key: value for key, value in identity.items() if value is not None}

    @property
    def prompt_tokens(self) -> int:
        """Tokens of prompt, about, that the second request has more than the first."""
        return 0 if self.prefill is None else len(self.prefill.encode()) // 4 + 4

    def take(self, event: Event) -> Event | None:
        """The event as the caller may see it, None where there is nothing in it; or `Departed`."""
        if event.data is None or event.data == b"[DONE]":
            return event
        try:
            chunk = msgspec.json.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        if not isinstance(chunk, dict) or chunk.get("error"):
            return event
        chunk.update(self._identity)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self._choice(choice)
        if choices and not chunk.get("usage") and not any(_says_something(c) for c in choices):
            return None
        data = msgspec.json.encode(chunk)
        return Event(b"data: " + data + b"\n\n", data, normal=False)

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        delta = choice["delta"] = dict(delta) if isinstance(delta, dict) else {}
        delta.pop("role", None)
        for name in THOUGHTS:
            delta.pop(name, None)
        if choice.get("index", 0) != 0 or delta.get("tool_calls") or delta.get("refusal"):
            raise Departed
        text = delta.get("content")
        if isinstance(text, list):
            raise Departed
        if text:
            delta["content"] = self._rest_of(text)
        if choice.get("finish_reason") and self._left:
            raise Departed

    def _rest_of(self, text: str) -> str:
        """What of `text` the caller does not have yet."""
        common = min(len(text), len(self._left))
        if text[:common] != self._left[:common]:
            raise Departed
        self._left = self._left[common:]
        return text[common:]


def _says_something(choice: dict[str, Any]) -> bool:
    return bool(choice.get("finish_reason") or any(choice["delta"].values()))
