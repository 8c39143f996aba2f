"""Trying what might be better than it seems: which candidate, and how often at most.

A first-token time is known with some doubt. Now and then each candidate's is drawn from what it may
be, and the best by those draws is tried first: one that is well known hardly ever, one of which
little is known as often as it is likely to be the best.
"""

from collections.abc import Sequence
from statistics import NormalDist

from msgspec import Struct

from llmr.core.look import Look
from llmr.core.scoring import LATENCY_SPAN

DAY_S = 86_400.0
MOST_CREDIT = 5.0  # tries that may come one after another
GOLDEN = 0.6180339887498949  # steps of it fill 0..1 evenly, so that one draw gives one for each row
EDGE = 1e-4
_NORMAL = NormalDist()


def by_draw(look: Look, order: Sequence[int], draw: float) -> int:
    """The row that is best where each is as quick as a draw says that it may be."""
    doubt, weight = look.telemetry.doubt, look.request.weights[0] / LATENCY_SPAN

    def drawn(place: int) -> float:
        index = order[place]
        share = (draw + place * GOLDEN) % 1.0
        luck = _NORMAL.inv_cdf(min(max(share, EDGE), 1.0 - EDGE))
        return look.terms(index).score + weight * doubt[index] * luck

    return order[max(range(len(order)), key=drawn)]


class Explorer(Struct):
    """How often, and at what price, another than the best is tried. `share` 0: never.

    `share` of the requests may, and what that costs more than the best would have is bounded by
    `usd_per_day`. `requests`, `tries` and `usd` count what came of it.
    """

    share: float
    usd_per_day: float
    requests: int = 0
    tries: int = 0
    usd: float = 0.0
    _credit: float = 0.0
    _usd_left: float = 0.0
    _at: float | None = None

    def may(self, now: float) -> bool:
        """Whether the request that comes now may try another than the best."""
        if not self.share:
            return False
        self.requests += 1
        self._credit = min(self._credit + self.share, MOST_CREDIT)
        if self._at is None:
            self._at, self._usd_left = now, self.usd_per_day / 24.0
        gained = (now - self._at) / DAY_S * self.usd_per_day
        self._usd_left, self._at = min(self._usd_left + gained, self.usd_per_day / 24.0), now
        return self._credit >= 1.0 and self._usd_left > 0.0

    def tried(self, usd_more: float) -> None:
        """Another was tried, expected to cost so much more than the best."""
        self._credit -= 1.0
        self._usd_left -= max(usd_more, 0.0)
        self.tries += 1
        self.usd += max(usd_more, 0.0)
