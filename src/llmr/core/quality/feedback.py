"""What callers say of answers, as a correction of what models can: shrunk, decayed, bounded.

An opinion counts by how far it lies from what had been expected, so that a model is not praised for
easy prompts. A miss has a part that is the model's on every kind and one of its own on each; both
are shrunk as by twenty opinions that say nothing. What is older than a month counts half.
"""

from collections.abc import Sequence

from llmr.core.quality.ability import EVEN, Skill

PSEUDO_COUNT = 20.0
HALF_LIFE_S = 30 * 86400.0
MOST_SHIFT = 1.0  # logits: from a half to nearly three quarters
STEEPNESS = 5.0  # logits that a miss of 1 in probability stands for, around the middle
MODELS_KEPT = 2000
UNREAD = -1  # the kind of a prompt that was not read


class _Sum:
    """A decayed sum of misses, and how many they are."""

    __slots__ = ("at", "miss", "weight")

    def __init__(self) -> None:
        self.miss = self.weight = self.at = 0.0

    def add(self, miss: float, weight: float, now: float) -> None:
        self.decay(now)
        self.miss += miss
        self.weight += weight

    def decay(self, now: float) -> None:
        kept = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE_S)
        self.miss *= kept
        self.weight *= kept
        self.at = max(now, self.at)


class Feedback:
    """The opinions of one installation. `changed` is set by `add`, for whoever publishes."""

    def __init__(self) -> None:
        self._models: dict[str, dict[int, _Sum]] = {}
        self.changed = False

    def add(
        self,
        target: str,
        kinds: Sequence[tuple[int, float]],
        miss: float,
        now: float,
        weight: float = 1.0,
    ) -> None:
        """Take an opinion: `miss` is the score, 0..1, less what had been expected.

        `kinds` are (position in `KINDS`, share) of the prompt, empty where it was not read; `now`
        is in seconds. A changed opinion is taken with the difference of the two scores and a
        `weight` of 0.
        """
        if target not in self._models and len(self._models) >= MODELS_KEPT:
            del self._models[next(iter(self._models))]
        cells = self._models.setdefault(target, {})
        for kind, share in kinds or [(UNREAD, 1.0)]:
            if share > 0.0:
                cells.setdefault(kind, _Sum()).add(share * miss, share * weight, now)
        self.changed = True

    def shift(self, target: str, now: float) -> Skill | None:
        """What to add to the skill of a model; None where nobody said anything of it."""
        cells = self._models.get(target)
        if not cells:
            return None
        common = precision = 0.0
        for cell in cells.values():
            cell.decay(now)
            if cell.weight > 0.0:
                own = 1.0 / (1.0 / cell.weight + 1.0 / PSEUDO_COUNT)
                common += own * cell.miss / cell.weight
                precision += own
        common /= precision + PSEUDO_COUNT
        overall = _bounded(STEEPNESS * common, MOST_SHIFT)
        by_kind = list(EVEN)
        for kind, cell in cells.items():
            if kind != UNREAD:
                apart = (cell.miss - cell.weight * common) / (cell.weight + PSEUDO_COUNT)
                by_kind[kind] = _bounded(overall + STEEPNESS * apart, MOST_SHIFT) - overall
        return overall, tuple(by_kind)

    @property
    def targets(self) -> list[str]:
        """The models that something was said of."""
        return list(self._models)


def _bounded(value: float, most: float) -> float:
    return min(max(value, -most), most)
