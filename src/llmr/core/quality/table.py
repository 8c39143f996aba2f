"""A linear layer over sparse features, in pure Python.

The outputs of one row stand side by side in one large whole number, 16 bits each, so that adding
two rows adds all their outputs at once: the sum over a text is one call of `sum`. An entry is a
byte with 64 for zero, and a last lane counts the rows, so that the zeros can be taken off again.
At most 480 rows are added, of at most 127 each: no lane runs over.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from llmr.core.quality.artefact import Vocabulary, Weights
from llmr.core.quality.scan import MOST_PAIRS, OPTIONS_STEP, SIZES, STEM, steps, words

ZERO = 64
LANE = 2  # bytes


class Words(dict[bytes, int]):
    """Row by word; a word that has none gets that of its stem, or nothing."""

    __slots__ = ("stems",)

    def __init__(self, rows: dict[bytes, int], stems: dict[bytes, int]) -> None:
        super().__init__(rows)
        self.stems = stems

    def __missing__(self, word: bytes) -> int:
        return self.stems.get(word[:STEM], 0)


class Linear(NamedTuple):
    """Outputs of the layer, the share of the text's words that have a row, what else was seen."""

    outputs: list[float]
    coverage: float
    distinct: set[bytes]
    options: int


class Table:
    """The layer, made once from its artefact and read for every prompt."""

    __slots__ = ("_bias", "_columns", "_counts", "_pairs", "_scales", "_shift", "_words")

    def __init__(self, vocabulary: Vocabulary, weights: Weights) -> None:
        columns = weights.columns
        rows = _packed(weights.rows, columns)
        first, second = len(vocabulary.words), len(vocabulary.words) + len(vocabulary.stems)
        self._words = Words(
            dict(zip(vocabulary.words, rows, strict=False)),
            dict(zip(vocabulary.stems, rows[first:], strict=False)),
        )
        pairs = [tuple(pair.split(b" ")) for pair in vocabulary.pairs]
        self._pairs: dict[tuple[bytes, ...], int] = dict(zip(pairs, rows[second:], strict=True))
        self._columns = columns
        self._counts = _by_count(_packed(weights.counts, columns))
        self._scales = list(zip(weights.scales, weights.count_scales, strict=True))
        zeros = ZERO * len(SIZES)
        self._bias = [
            bias - zeros * scale
            for bias, scale in zip(weights.bias, weights.count_scales, strict=True)
        ]
        self._shift = 8 * LANE * columns

    def read(self, text: str) -> Linear:
        """The outputs for a text that is already capped."""
        raw = text.encode("utf-8", "replace")
        found = words(raw)
        distinct = set(found)
        known = sum(map(self._words.__getitem__, distinct))
        rows = known + sum(filter(None, map(self._pairs.get, pairwise(found[:MOST_PAIRS]))))
        stepped = steps(raw, found, distinct, len(raw) - len(text))
        counts = sum([row[step] for row, step in zip(self._counts, stepped, strict=True)])
        coverage = (known >> self._shift) / len(distinct) if distinct else 0.0
        return Linear(self._outputs(rows, counts), coverage, distinct, stepped[OPTIONS_STEP])

    def shares(self, text: str, columns: Sequence[int]) -> list[tuple[bytes, float]]:
        """What each known word of a text adds to some columns together, as if it stood alone."""
        found = []
        for word in dict.fromkeys(words(text.encode("utf-8", "replace"))):
            if row := self._words[word]:
                lanes = self._lanes(row & ((1 << self._shift) - 1))
                share = sum((lanes[column] - ZERO) * self._scales[column][0] for column in columns)
                found.append((word, share))
        return found

    def _outputs(self, rows: int, counts: int) -> list[float]:
        number = rows >> self._shift
        norm = 1.0 / math.sqrt(number) if number else 0.0
        zeros = ZERO * number
        return [
            (row - zeros) * norm * scale + count * count_scale + bias
            for row, count, (scale, count_scale), bias in zip(
                self._lanes(rows)[:-1],
                self._lanes(counts)[:-1],
                self._scales,
                self._bias,
                strict=True,
            )
        ]

    def _lanes(self, total: int) -> list[int]:
        raw = total.to_bytes(LANE * (self._columns + 1), "little")
        return memoryview(raw).cast("H").tolist()


def _packed(entries: bytes, columns: int) -> list[int]:
    """Each row of bytes as one whole number, with a 1 in the lane that counts."""
    wide = bytearray(LANE * len(entries))
    wide[::LANE] = entries
    one = 1 << (8 * LANE * columns)
    width = LANE * columns
    number = int.from_bytes
    return [
        number(wide[start : start + width], "little") | one for start in range(0, len(wide), width)
    ]


def _by_count(rows: list[int]) -> list[list[int]]:
    """The rows of the steps, a list for each count."""
    lists = []
    start = 0
    for size in SIZES:
        lists.append(rows[start : start + size])
        start += size
    return lists
