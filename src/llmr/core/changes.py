"""What one list of rows has that another had not."""

from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct

from llmr.core import price
from llmr.core.catalogue import Model


class Repriced(Struct, frozen=True):
    """A price of a model before and after, in USD per token or request; None where unknown."""

    model: str
    field: str
    before: Decimal | None
    after: Decimal | None


class Changes(Struct, frozen=True):
    """From one list of rows to the next: ids, prices, and other facts by name."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    repriced: tuple[Repriced, ...] = ()
    altered: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.repriced or self.altered)


FACTS = ("context_length", "max_output", "supports", "expires", "barred", "default_effort")


def changes(before: Iterable[Model], after: Iterable[Model]) -> Changes:
    """What differs between two lists of rows of one upstream. Ids are compared to the letter."""
    old, new = {row.id: row for row in before}, {row.id: row for row in after}
    repriced, altered = [], []
    for name in sorted(old.keys() & new.keys()):
        was, now = old[name], new[name]
        for field in price.FIELDS:
            pair = was.prices.base.get(field), now.prices.base.get(field)
            if pair[0] != pair[1]:
                repriced.append(Repriced(name, field, *pair))
        if was.prices.overrides != now.prices.overrides:
            altered.append((name, "conditional prices"))
        altered += [(name, fact) for fact in FACTS if getattr(was, fact) != getattr(now, fact)]
    return Changes(
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(old.keys() - new.keys())),
        tuple(repriced),
        tuple(altered),
    )
