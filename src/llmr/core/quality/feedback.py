"""What callers say of answers, as a correction of what models can: shrunk, decayed, bounded.

An opinion counts by how far it lies from what had been expected, so that a model is not praised for
easy prompts, and by how much an answer of that expectation can tell: one step of Newton's method
towards the skill that makes the opinions most likely. A correction has a part that holds on every
kind and one of its own on each; what was said of one kind moves the others by about a seventh of
it. What is older than a month counts half.
"""

from collections.abc import Mapping, Sequence

from llmr.core.quality.ability import EVEN, Skill

HALF_LIFE_S = 30 * 86400.0
MOST_SHIFT = 1.0  # logits: from a half to nearly three quarters
# Variances in logits of what is wrong with a model everywhere, and on one kind alone.
COMMON, APART = 0.06, 0.36
LEAST_TOLD = 0.05  # an expectation near 0 or 1 leaves little to tell, but never less than this
MODELS_KEPT = 2000
UNREAD = -1  # the kind of a prompt that was not read


class _Sum:
    """A decayed sum of misses, and of how much they tell (Fisher's information, per logit²)."""

    __slots__ = ("at", "miss", "told")

    def __init__(self) -> None:
        self.miss = self.told = self.at = 0.0

    def add(self, miss: float, told: float, now: float) -> None:
        self.decay(now)
        self.miss += miss
        self.told += told

    def decay(self, now: float) -> None:
        kept = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE_S)
        self.miss *= kept
        self.told *= kept
        self.at = max(now, self.at)


class Feedback:
    """The opinions of one installation. `changed` is set by `add`, for whoever publishes."""

    def __init__(self) -> None:
        self._models: dict[str, dict[int, _Sum]] = {}  # the one last spoken of at the end
        self.changed = False
        self.unsaved: set[str] = set()  # targets that nobody has put away yet

    def add(
        self,
        target: str,
        kinds: Sequence[tuple[int, float]],
        score: float,
        expected: float,
        now: float,
    ) -> None:
        """Take an opinion: a score where another, 0..1 both, had been expected.

        `kinds` are (position in `KINDS`, share) of the prompt, empty where it was not read; `now`
        is in seconds.
        """
        told = max(expected * (1.0 - expected), LEAST_TOLD)
        self._take(target, kinds, score - expected, told, now)

    def change(
        self,
        target: str,
        kinds: Sequence[tuple[int, float]],
        score: float,
        before: float,
        now: float,
    ) -> None:
        """Take another score in the place of the one `before` it."""
        self._take(target, kinds, score - before, 0.0, now)

    def _take(
        self, target: str, kinds: Sequence[tuple[int, float]], miss: float, told: float, now: float
    ) -> None:
        cells = self._models.pop(target, None)
        if cells is None:
            cells = {}
            if len(self._models) >= MODELS_KEPT:
                del self._models[next(iter(self._models))]
        self._models[target] = cells
        for kind, share in kinds or [(UNREAD, 1.0)]:
            if share > 0.0:
                cells.setdefault(kind, _Sum()).add(share * miss, share * told, now)
        self.changed = True
        self.unsaved.add(target)

    def shift(self, target: str, now: float) -> Skill | None:
        """What to add to the skill of a model; None where nobody said anything of it."""
        cells = self._models.get(target)
        if not cells:
            return None
        common, precision = 0.0, 1.0 / COMMON
        for kind, cell in cells.items():
            cell.decay(now)
            if cell.told > 0.0:
                own = 1.0 / (1.0 / cell.told + (0.0 if kind == UNREAD else APART))
                common += own * cell.miss / cell.told
                precision += own
        common /= precision
        overall = _bounded(common)
        by_kind = list(EVEN)
        for kind, cell in cells.items():
            if kind != UNREAD:
                apart = (cell.miss - cell.told * common) / (cell.told + 1.0 / APART)
                by_kind[kind] = _bounded(overall + apart) - overall
        return overall, tuple(by_kind)

    def state(self, target: str) -> dict[int, tuple[float, float, float]]:
        """What was said of a model, as plain numbers: (miss, weight, instant) by kind."""
        cells = self._models.get(target, {})
        return {kind: (cell.miss, cell.told, cell.at) for kind, cell in cells.items()}

    def restore(self, target: str, state: Mapping[int, Sequence[float]], now: float) -> None:
        """Take up what `state` gave; kinds that are none are left out."""
        cells = self._models[target] = {}
        for kind, (miss, told, at) in state.items():
            if kind == UNREAD or 0 <= kind < len(EVEN):
                cells[kind] = cell = _Sum()
                cell.miss, cell.told, cell.at = miss, max(told, 0.0), min(at, now)
        self.changed = True

    @property
    def targets(self) -> list[str]:
        """The models that something was said of."""
        return list(self._models)


def _bounded(value: float) -> float:
    return min(max(value, -MOST_SHIFT), MOST_SHIFT)
