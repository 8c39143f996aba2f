"""Prices as OpenRouter publishes them: decimal strings, USD per token, with conditional overrides.

Sums of money are Decimal. Floats appear only in estimates that order candidates.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec import Struct

FIELDS = (
    "prompt",
    "completion",
    "request",
    "image",
    "web_search",
    "internal_reasoning",
    "input_cache_read",
    "input_cache_write",
    "input_cache_write_1h",
    "audio",
    "audio_output",
    "input_audio_cache",
    "image_output",
)


NOTHING = Decimal(0)
LEAST = Decimal("1e-15")
LONGEST = 64  # characters
NOTHING_KNOWN = Decimal("nan")
DEAREST = Decimal(10_000)  # USD per token, request or image: whatever is above is a mistake


class Override(Struct, frozen=True):
    """Prices that replace the base ones while every condition holds. Later overrides win."""

    prices: dict[str, Decimal]
    min_prompt_tokens: int | None = None
    utc_start: int | None = None
    utc_end: int | None = None
    utc_days: tuple[int, ...] | None = None

    def holds(self, prompt_tokens: int, hhmm: int, day: int) -> bool:
        """Whether it applies to a prompt of that size at that UTC time (HHMM, Monday = 0)."""
        if self.min_prompt_tokens is not None and prompt_tokens <= self.min_prompt_tokens:
            return False
        if self.utc_days is not None and day not in self.utc_days:
            return False
        if self.utc_start is None or self.utc_end is None:
            return True
        if self.utc_start <= self.utc_end:
            return self.utc_start <= hhmm < self.utc_end
        return hhmm >= self.utc_start or hhmm < self.utc_end


class Prices(Struct, frozen=True):
    """USD per token by field of `FIELDS`. A field that is absent is unknown, never free."""

    base: dict[str, Decimal]
    overrides: tuple[Override, ...] = ()

    def at(self, prompt_tokens: int, hhmm: int = 0, day: int = 0) -> dict[str, Decimal]:
        """The prices for a prompt of that size at that UTC time."""
        prices = self.base
        for override in self.overrides:
            if override.holds(prompt_tokens, hhmm, day):
                prices = {**prices, **override.prices}
        return prices

    @property
    def known(self) -> bool:
        """Whether both token prices are known."""
        return "prompt" in self.base and "completion" in self.base


UNKNOWN = Prices({})


def amount(value: Any) -> Decimal | None:
    """A price as published, or None where it is negative, not a number or absent."""
    if value is None or isinstance(value, bool):
        return None
    try:
        text = str(value)
        number = Decimal(text) if len(text) <= LONGEST else NOTHING_KNOWN
    except InvalidOperation:
        return None
    if not number.is_finite() or not 0 <= number < DEAREST:
        return None
    # Nobody charges less than that, and its digits would go on for ever.
    return number if number >= LEAST or not number else Decimal(0)


def amounts(pricing: Mapping[str, Any]) -> dict[str, Decimal]:
    """The usable prices among published ones."""
    found = {field: amount(pricing.get(field)) for field in FIELDS}
    return {field: value for field, value in found.items() if value is not None}


def parse(pricing: Mapping[str, Any]) -> Prices:
    """Prices from the `pricing` object of a catalogue row."""
    overrides = pricing.get("overrides")
    rules = overrides if isinstance(overrides, list) else []
    return Prices(
        amounts(pricing), tuple(_override(rule) for rule in rules if isinstance(rule, dict))
    )


def _override(rule: Mapping[str, Any]) -> Override:
    days = rule.get("utc_days")
    return Override(
        amounts(rule),
        _whole(rule.get("min_prompt_tokens")),
        _whole(rule.get("utc_start")),
        _whole(rule.get("utc_end")),
        tuple(days) if isinstance(days, list) else None,
    )


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 1e12 else None


def cost(prices: Mapping[str, Decimal], usage: Mapping[str, Any]) -> Decimal | None:
    """USD of one answer from its `usage` object, or None where a needed price is unknown.

    Cached, cache-written and audio tokens are subsets of the prompt, audio and image tokens of the
    completion. A part without a price of its own costs what the whole does; reasoning does always,
    since conditional prices name the completion alone.
    """
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    if "prompt" not in prices or "completion" not in prices:
        return None
    total = prices.get("request", NOTHING)
    tools = usage.get("server_tool_use_details")
    if isinstance(tools, dict) and (searches := _count(tools.get("web_search_requests"))):
        if "web_search" not in prices:
            return None
        total += searches * prices["web_search"]
    total += _parts(
        prices,
        max(prompt, 0),
        "prompt",
        usage.get("prompt_tokens_details"),
        (
            ("cached_tokens", "input_cache_read"),
            ("cache_write_tokens", "input_cache_write"),
            ("audio_tokens", "audio"),
        ),
    )
    return total + _parts(
        prices,
        max(completion, 0),
        "completion",
        usage.get("completion_tokens_details"),
        (
            ("audio_tokens", "audio_output"),
            ("image_tokens", "image_output"),
        ),
    )


def _parts(
    prices: Mapping[str, Decimal],
    tokens: int,
    whole: str,
    details: Any,
    parts: tuple[tuple[str, str], ...],
) -> Decimal:
    """What tokens cost of which some are of a part with another price.

    No part is larger than what the ones before it leave: recorded is an Azure reply with more
    cached tokens than prompt tokens.
    """
    usual = prices[whole]
    total, left = NOTHING, tokens
    if isinstance(details, dict):
        for name, field in parts:
            if field in prices and (some := min(_count(details.get(name)), left)):
                total += some * prices[field]
                left -= some
    return total + left * usual


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
