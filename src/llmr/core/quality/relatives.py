"""Which known model a name is nearest to.

Names of models are words, sizes and versions: `claude-opus-4.7` and `claude-opus-5.5` say the same
but for the version. What is known of one tells of the other, the more so the more words they share.
"""

import math
import re
from functools import lru_cache

LEAST_LIKENESS = 0.5

_SEPARATOR = re.compile(r"[-_.]")
_SIZED = re.compile(r"[ae]?\d+(?:\.\d+)?[bt]$")
_DIGITS = re.compile(r"\d+")
_UNSAID = frozenset(("preview", "exp", "latest", "beta", "instruct", "it"))


class Relatives:
    """Known models by author, with their dates; one without a date is of the newest."""

    def __init__(self) -> None:
        self._known: dict[str, list[tuple[str, frozenset[str], float]]] = {}

    def add(self, base: str, created: float) -> None:
        """Add a known model."""
        author, words = _named(base)
        self._known.setdefault(author, []).append((base, words, created))

    def nearest(self, base: str, created: float) -> tuple[str, float] | None:
        """(the known model most alike, how alike: 0..1); of equals the nearest in time."""
        author, words = _named(base)
        best, found = (LEAST_LIKENESS, -math.inf), None
        for known, own, then in self._known.get(author, ()):
            shared = len(words & own)
            likeness = shared / (len(words) + len(own) - shared) if shared else 0.0
            if likeness >= best[0] and (likeness, -abs(then - created)) >= best:
                best, found = (likeness, -abs(then - created)), known
        return None if found is None else (found, best[0])


@lru_cache(maxsize=4096)
def _named(base: str) -> tuple[str, frozenset[str]]:
    """(author, words of the name without versions and dates)."""
    author, _, name = base.lower().partition("/")
    words = []
    for word in _SEPARATOR.split(name):
        stem = word if _SIZED.match(word) else _DIGITS.sub("", word)
        if stem and stem not in _UNSAID:
            words.append(stem)
    return author, frozenset(words)
