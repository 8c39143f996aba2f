"""What its load does to the speed of a target: the requests in flight, and what is left of a limit.

How much slower a target is when more is in flight than usual is learned, not assumed: a large
provider does not notice, a single machine takes twice as long. O(1); time is a parameter.
"""

import math

from llmr.core.mean import MINUTE_S

HALF_LIFE_S = 10.0 * MINUTE_S
PRIOR = 1.0  # as much as load that was e times the usual, once
NOISE = 0.5  # deviation of one answer in logs: a slope must stand out of it
STEEPEST = 1.5
LEAST, MOST = 0.25, 16.0
MOVED = 1.5  # times as many in flight as when it was last looked at: look again


class Load:
    """The requests of this router at one target. `left` of its limit, None: not told."""

    __slots__ = (
        *("_at", "_cross", "_known", "_looked", "_square", "_usual"),
        *("flying", "left", "resets_at", "slope"),
    )

    def __init__(self) -> None:
        self.flying = 0
        self.left: int | None = None
        self.resets_at = 0.0
        self.slope = 0.0  # of log seconds by log requests in flight
        self._usual = 0.0  # mean of the latter
        self._known = self._square = self._cross = self._at = 0.0
        self._looked = 1

    def begun(self) -> bool:
        """A request is sent; whether so much has changed that expectations should."""
        self.flying += 1
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                return True
        return self.slope > 0.0 and self.flying > MOVED * self._looked

    def ended(self) -> None:
        """One of them is over."""
        self.flying -= 1

    def told(self, left: int, reset_s: float, now: float) -> bool:
        """The upstream says what is left of its limit, and until when; whether it is nothing."""
        self.left, self.resets_at = left, now + reset_s
        return left <= 0

    def times(self, flying: int) -> float:
        """How many times slower than usual a target is with so many in flight."""
        if not self.slope:
            return 1.0
        found = math.exp(self.slope * (math.log(max(flying, 1)) - self._usual))
        return min(max(found, LEAST), MOST)

    def learn(self, flying: int, miss: float, now: float) -> None:
        """With so many in flight an answer took so much longer, in logs, than at usual load."""
        left = math.exp2(-max(now - self._at, 0.0) / HALF_LIFE_S)
        self._at = max(now, self._at)
        self._known = self._known * left + 1.0
        more = math.log(max(flying, 1)) - self._usual
        self._usual += more / self._known
        self._square = self._square * left + more * more
        self._cross = self._cross * left + more * miss
        total = self._square + PRIOR
        slope = self._cross / total - NOISE / math.sqrt(total)
        self.slope = min(max(slope, 0.0), STEEPEST)

    @property
    def moves(self) -> bool:
        """Whether what is expected of it changes without an answer."""
        return bool(self.slope or (self.left is not None and self.left <= 0))

    def look(self) -> float:
        """`times` for the next request."""
        self._looked = self.flying + 1
        return self.times(self._looked)

    def wait_s(self, now: float) -> float:
        """Seconds until the limit lets another request through."""
        if self.left is None or self.left > 0:
            return 0.0
        if now >= self.resets_at:
            self.left = None
            return 0.0
        return self.resets_at - now
