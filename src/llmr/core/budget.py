"""How many extra sends the fleet may make: a share of its recent traffic, and a floor.

Charged are retries on the same target, hedges, and sends to an account that is failing; a first
fallback to a healthy target is free. So a whole upstream that fails gets little more than its
usual load.
"""

from collections import deque

SHARE, FLOOR, SPAN_S = 0.2, 10, 10.0


class RetryBudget:
    """Counts requests and extra sends of the last 10 s; time is a parameter, in seconds."""

    __slots__ = ("_requests", "_spent")

    def __init__(self) -> None:
        self._requests: deque[list[float]] = deque()  # [slot of a tenth of a second, count]
        self._spent: deque[float] = deque()

    def request(self, now: float) -> None:
        """A request came in."""
        slot = int(now * 10.0) / 10.0
        if self._requests and self._requests[-1][0] == slot:
            self._requests[-1][1] += 1
        else:
            self._requests.append([slot, 1])
            while self._requests[0][0] < now - SPAN_S:
                self._requests.popleft()

    def spend(self, now: float) -> bool:
        """Take one extra send; False where there is none left."""
        while self._spent and self._spent[0] <= now - SPAN_S:
            self._spent.popleft()
        recent = sum(count for slot, count in self._requests if slot >= now - SPAN_S)
        if len(self._spent) >= FLOOR + SHARE * recent:
            return False
        self._spent.append(now)
        return True
