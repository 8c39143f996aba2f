"""The ceiling of a request in USD, over every attempt that is made for it.

Before a send its worst case is set aside, with `max_tokens` lowered to what is left; afterwards
what it did cost is taken out, or all that was set aside where that cannot be told.
"""

from decimal import Decimal

from msgspec import Struct

from llmr.core.ceiling import Worst
from llmr.core.decide import Decision
from llmr.core.look import Look
from llmr.execution.billing import cost_of
from llmr.execution.types import Attempt

SURE = ("reported", "computed", "free")


class Purse(Struct):
    """What is left of a ceiling. `refused`: some target was passed over for want of money."""

    _look: Look
    left: Decimal
    refused: bool = False
    _aside: Decimal = Decimal(0)

    def affords(self, index: int, more: int = 0) -> bool:
        """Whether a row may be sent to, with so many prompt tokens more than the request has."""
        bound = self._bound(index, more)
        self.refused |= bound is None
        return bound is not None

    def take(self, index: int, more: int = 0) -> int | None:
        """Set the worst case of a send aside; the `max_tokens` that keeps it, None: the request's.

        For a row that `affords` allowed.
        """
        bound = self._bound(index, more)
        assert bound is not None
        tokens = bound.tokens(self.left) if bound.bounded else None
        self._aside = bound.cost(tokens)
        return None if tokens is None else max(1, tokens // self._look.request.choices)

    def leaves_some(self, index: int) -> bool:
        """Whether a row could still be sent to, were all that is set aside spent."""
        bound = self._bound(index, 0)
        return bound is not None and (bound.least or Decimal(0)) <= self.left - self._aside

    def charge(self, attempt: Attempt) -> None:
        """Take out what a send did cost."""
        usd, source = cost_of(attempt, self._look.now.wall)
        self.left -= usd if usd is not None and source in SURE else self._aside
        self._aside = Decimal(0)

    def _bound(self, index: int, more: int) -> Worst | None:
        bound = self._look.worst(index, more)
        if bound is None or bound.least is None or bound.least > self.left:
            return None
        return bound


def purse_of(decision: Decision) -> Purse | None:
    """The purse of a decided request; None where its caller set no ceiling."""
    ceiling = decision.request.max_cost_usd
    return None if ceiling is None else Purse(decision.look(), Decimal(repr(ceiling)))
