"""When a second target is asked before the first has failed, and how often at most."""

from msgspec import Struct

# A second target is asked where the first token is later than nine times in ten; that many are
# never allowed of targets that are well, so the budget decides.
LATE_SHARE = 1.2816 / 1.645  # of the way, in logs, from the middle to what one in twenty exceeds
PAYING, PAYING_SHARE = 0.2, 0.2
MOST_CREDIT, REMEMBERED = 3.0, 8.0


class Hedges(Struct):
    """The extra sends that may be made to be quicker: `share` of the requests that could need one.

    While at least a fifth of them win, targets are stalling, and up to 20 % may be made.
    `requests`, `sends` and `won` count what came of it.
    """

    share: float
    requests: int = 0
    sends: int = 0
    won: int = 0
    _credit: float = 0.0
    _winning: float = 0.0

    def request(self) -> None:
        """A request that could be hedged came in."""
        self.requests += 1
        share = self.share
        if self._winning >= PAYING:
            share = max(share, PAYING_SHARE)
        self._credit = min(self._credit + share, MOST_CREDIT)

    def may(self) -> bool:
        """Whether an extra send is left."""
        return self._credit >= 1.0

    def sent(self) -> None:
        """An extra send is made."""
        self._credit -= 1.0
        self.sends += 1

    def ended(self, *, won: bool) -> None:
        """An extra send was first, or was not."""
        self.won += won
        self._winning += (won - self._winning) / REMEMBERED
