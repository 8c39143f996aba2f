"""Which target answered a conversation last: digests and names alone, and soon forgotten."""

from collections import OrderedDict

from msgspec import Struct

from llmr.core.catalogue import Model
from llmr.core.staying import Stay

KEPT = 20_000
FORGET_S = 600.0  # providers keep a prompt for 5 to 10 minutes after its last use
LEAST_CACHED = 1024  # tokens: providers cache nothing shorter


class _Last(Struct):
    stay: Stay
    at: float


class Sessions:
    """Conversations by a digest of their tenant and their own id or beginning."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, _Last] = OrderedDict()

    def __len__(self) -> int:
        return len(self._last)

    def find(self, key: bytes, now: float) -> Stay | None:
        """Where the conversation was answered last; None where it is new, or too long ago."""
        last = self._last.get(key)
        if last is None:
            return None
        if now - last.at > FORGET_S:
            del self._last[key]
            return None
        return last.stay

    def note(self, key: bytes, model: Model, tokens: int, now: float) -> None:
        """A model answered; prompt and answer were so many tokens."""
        caches = "input_cache_read" in model.prices.base and tokens >= LEAST_CACHED
        self._last[key] = _Last(Stay(model.target, tokens if caches else 0), now)
        self._last.move_to_end(key)
        if len(self._last) > KEPT:
            self._last.popitem(last=False)
