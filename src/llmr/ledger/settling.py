"""What an answer cost that broke off: the upstream that made it is asked, once it knows.

An upstream that names its generations tells what each was billed. Until it does, the send stands on
no line; where it never does, it stands there as it was estimated here, or as unknown.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import count
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from llmr.core import price
from llmr.ledger.sheet import Key, Line, line_of
from llmr.observe.record import Sent
from llmr.upstreams.base import Send, TransportError, Upstream
from llmr.upstreams.reading import ReadTimeout, send

log = logging.getLogger("llmr.ledger")

WAITS_S = (1.0, 4.0, 15.0, 60.0)  # before each question, from the end of the answer on
ASK_S = 10.0
REPLY_LIMIT = 64 * 1024
MOST_PENDING = 10_000
AT_ONCE = 4  # questions
LOOK_S = 0.5


Put = Callable[[Key, Line], None]


class _Open(Struct):
    """A send whose bill is not known yet."""

    key: Key
    sent: Sent
    due: float
    asked: int = 0


class Settling:
    """Asks for bills, off the request path. A `put` takes each line once it is known."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        clock: Callable[[], float],
        waits_s: tuple[float, ...] = WAITS_S,
    ) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._waits_s = waits_s
        self._open: dict[int, _Open] = {}  # also those being asked for: none is lost at a close
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, key: Key, sent: Sent) -> bool:
        """Whether the upstream of this send will be asked what it was billed."""
        if (
            sent.generation is None
            or sent.cost_source not in ("unknown", "estimated")
            or len(self._open) >= MOST_PENDING
        ):
            return False
        due = self._clock() + self._waits_s[0]
        self._open[next(self._numbers)] = _Open(key, sent, due)
        return True

    async def run(self, put: Put) -> None:
        """Ask what is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look(put)

    async def look(self, put: Put) -> None:
        """Ask for every bill that is due, some at a time."""
        now = self._clock()
        due = iter([number for number, one in self._open.items() if one.due <= now])

        async def some() -> None:
            for number in due:
                await self._ask(number, put)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())

    def give_up(self, put: Put) -> None:
        """Put what is still open as it was worked out here."""
        for one in self._open.values():
            put(one.key, line_of(one.sent))
        self._open.clear()

    async def _ask(self, number: int, put: Put) -> None:
        one = self._open[number]
        billed = await self._billed(one)
        one.asked += 1
        if billed is None and one.asked < len(self._waits_s):
            one.due = self._clock() + self._waits_s[one.asked]
            return
        del self._open[number]
        key, line = one.key, line_of(one.sent)
        if billed is not None:
            key, line.usd, line.unpriced = key._replace(source="reported"), billed, 0
        put(key, line)

    async def _billed(self, one: _Open) -> Decimal | None:
        upstream = self._upstreams.get(one.sent.upstream)
        if upstream is None:
            return None
        loop = asyncio.get_running_loop()
        until = loop.time() + ASK_S
        wish = Send("GET", f"/generation?id={quote(one.sent.generation or '', safe='')}")
        try:
            response = await send(upstream, wish, connect_until=until, until=until)
            try:
                body = b""
                while (data := await response.read(until)) and len(body) <= REPLY_LIMIT:
                    body += data
            finally:
                response.close()
        except (TransportError, ReadTimeout):
            return None
        return total_in(body) if response.status == 200 else None


def total_in(body: bytes) -> Decimal | None:
    """The USD in the reply of `GET /generation`; None where it says none."""
    try:
        parsed: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    data = parsed.get("data") if isinstance(parsed, dict) else None
    return price.amount(data.get("total_cost")) if isinstance(data, dict) else None
