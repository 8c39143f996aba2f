"""The cache in this process: bounded by bytes, least recently used goes first, entries expire."""

from collections import OrderedDict

from msgspec import Struct

OVERHEAD = 300  # bytes an entry costs beside its body, measured with tracemalloc


class Entry(Struct, array_like=True):
    """A whole answer. `stored` is wall-clock seconds, for its age; expiry does not depend on it."""

    model: str
    upstream: str
    completion: bytes
    stored: float


class Memory:
    """Keys to entries. Not shared between threads; every call is O(1)."""

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self._max = max_bytes
        self._ttl = ttl_s
        self._entries: OrderedDict[bytes, tuple[Entry, float]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Entry | None:
        """The entry, unless it has expired at monotonic time `now`."""
        found = self._entries.get(key)
        if found is None:
            return None
        if found[1] <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: bytes, entry: Entry, now: float) -> bool:
        """Keep an entry; False where it alone is larger than the whole cache."""
        size = len(entry.completion) + OVERHEAD
        if size > self._max:
            return False
        self._drop(key)
        self._entries[key] = (entry, now + self._ttl)
        self.bytes += size
        while self.bytes > self._max:
            self._drop(next(iter(self._entries)))
        return True

    def clear(self) -> int:
        """Forget everything; how many there were."""
        count = len(self._entries)
        self._entries.clear()
        self.bytes = 0
        return count

    def _drop(self, key: bytes) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.bytes -= len(found[0].completion) + OVERHEAD
