"""The free rows' allowance of one account: so many requests a minute, so many a day."""

from collections import deque

MINUTE_LIMIT = 20
DAY_LIMIT = 50  # 1,000 for accounts that ever bought credits; the account itself tells, where asked
MINUTE_S, DAY_S = 60.0, 86_400.0
MOST_KEPT = 1000  # no day limit is higher


class Allowance:
    """Counts what was sent. Time is a parameter, in monotonic seconds."""

    __slots__ = ("_sent", "day_limit")

    def __init__(self) -> None:
        self._sent: deque[float] = deque(maxlen=MOST_KEPT)
        self.day_limit = DAY_LIMIT

    def take(self, now: float) -> float | None:
        """Count one request; until when the next has to wait, or None where it need not."""
        sent = self._sent
        sent.append(now)
        while sent and sent[0] <= now - DAY_S:
            sent.popleft()
        until = 0.0
        if len(sent) >= self.day_limit:
            until = sent[-self.day_limit] + DAY_S
        if len(sent) >= MINUTE_LIMIT:
            until = max(until, sent[-MINUTE_LIMIT] + MINUTE_S)
        return until if until > now else None
