"""What the simulated provider charges: the price of an answer, and the invoice over all of them.

A prompt whose beginning was seen before is cheaper, as on providers that cache by themselves. What
was cut off is charged for what had left; an answer that ended in an error, or that never began, for
nothing.
"""

import hashlib
from collections import OrderedDict, defaultdict
from decimal import Decimal
from typing import Any

import msgspec

from llmr.sandbox.attempts import Attempt
from llmr.sandbox.catalogue import Prices
from llmr.sandbox.request import ChatRequest

KEPT = 100_000  # generations
CACHED_PROMPTS = 20_000
LEAST_CACHED = 64  # tokens
CUT_OFF = frozenset(("cut", "stall", "endless", "bad_chunk", "content_length", "drip_body"))


class Bill(msgspec.Struct):
    """The price of one answer in USD, and what was charged for it in the end (None: under way).

    `user` is the request's own word for who asked.
    """

    model: str
    prompt_usd: Decimal
    token_usd: Decimal
    whole_usd: Decimal
    usage: dict[str, Any]
    charged: Decimal | None = None
    user: str = ""

    def settle(self, attempt: Attempt) -> None:
        """Charge for what was sent of it."""
        if attempt.fault == "error_event" or not attempt.tokens_sent:
            self.charged = Decimal(0)
        elif attempt.ended == "peer_gone" or attempt.fault in CUT_OFF:
            some = self.prompt_usd + attempt.tokens_sent * self.token_usd
            self.charged = min(some, self.whole_usd)
        else:
            self.charged = self.whole_usd


class Books:
    """Bills by generation, and the prompts that are cached."""

    def __init__(self) -> None:
        self._bills: OrderedDict[str, Bill] = OrderedDict()
        self._prompts: OrderedDict[bytes, None] = OrderedDict()

    def open(self, generation: str, bill: Bill) -> None:
        """Put a bill on the books."""
        self._bills[generation] = bill
        if len(self._bills) > KEPT:
            self._bills.popitem(last=False)

    def open_nothing(self, generation: str, model: str) -> None:
        """Put an answer on the books that is none: nothing will be charged for it."""
        usage = {"prompt_tokens": 0, "completion_tokens": 0}
        self.open(generation, Bill(model, Decimal(0), Decimal(0), Decimal(0), usage))

    def close(self, generation: str, attempt: Attempt) -> None:
        """Its answer is over."""
        if bill := self._bills.get(generation):
            bill.settle(attempt)

    def generation(self, generation: str) -> dict[str, Any] | None:
        """What `GET /generation` says of an answer; None while it is under way, or unknown."""
        bill = self._bills.get(generation)
        if bill is None or bill.charged is None:
            return None
        return {
            "id": generation,
            "model": bill.model,
            "provider_name": "Sandbox",
            "total_cost": bill.charged,
            "usage": bill.charged,
            "tokens_prompt": bill.usage["prompt_tokens"],
            "tokens_completion": bill.usage["completion_tokens"],
        }

    def invoice(self) -> dict[str, Any]:
        """All that was charged, as decimal text, and how many answers are under way."""
        by_model: dict[str, Decimal] = defaultdict(Decimal)
        by_user: dict[str, Decimal] = defaultdict(Decimal)
        open_ones = 0
        for bill in self._bills.values():
            if bill.charged is None:
                open_ones += 1
            else:
                by_model[bill.model] += bill.charged
                by_user[bill.user] += bill.charged
        return {
            "total": format(sum(by_model.values(), Decimal(0)), "f"),
            "by_model": {model: format(usd, "f") for model, usd in sorted(by_model.items())},
            "by_user": {user: format(usd, "f") for user, usd in sorted(by_user.items())},
            "answers": len(self._bills),
            "open": open_ones,
        }

    def reset(self) -> None:
        """Forget all of it."""
        self._bills.clear()
        self._prompts.clear()

    def cached_tokens(self, model: str, request: ChatRequest) -> int:
        """Tokens of the prompt that an earlier one of this model began with, which it now is."""
        digest, size, cached = hashlib.blake2b(model.encode(), digest_size=16), 0, 0
        for message in request.messages:
            text = message.text.encode()
            digest.update(message.role.encode() + b"\0" + text + b"\0")
            size += len(text)
            key = digest.digest()
            if key in self._prompts and size // 4 >= LEAST_CACHED:
                cached = size // 4
            self._prompts[key] = None
        while len(self._prompts) > CACHED_PROMPTS:
            self._prompts.popitem(last=False)
        return min(cached, request.prompt_tokens)


def bill_of(model: str, usage: dict[str, Any], prices: Prices) -> Bill:
    """The bill of an answer with this usage."""
    prompt, cached = usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
    prompt_usd = (prompt - cached) * prices.prompt + cached * prices.cached + prices.request
    whole = prompt_usd + usage["completion_tokens"] * prices.completion
    return Bill(model, prompt_usd, prices.completion, whole, usage)
