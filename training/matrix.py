"""Prompts as sparse rows, by the very code that reads them at run time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import scipy.sparse as sparse

from llmr.core.quality.artefact import Vocabulary
from llmr.core.quality.scan import MOST_PAIRS, SIZES, STEM, steps, words
from llmr.core.quality.task import stated
from training.labels import Floats

STEM_SHARE = 0.5  # stems carry less than words, so that words that are known speak for themselves
COUNT_SHARE = 0.15
TREND_SHARE = 1.0  # a straight line over the steps of a count costs less than steps of their own
RUNS = (24, 24, 24, 20, 20, 20, *SIZES[2:])
"""The steps that stand in one order: of length and digits in each of three forms, the others."""
Features = tuple[list[bytes], list[bytes], tuple[int, ...]]


def features(prompt: str) -> Features:
    """(distinct words, distinct pairs, steps of the counts), in a fixed order."""
    text = stated(prompt)
    raw = text.encode("utf-8", "replace")
    found = words(raw)
    distinct = set(found)
    pairs = {a + b" " + b for a, b in pairwise(found[:MOST_PAIRS])}
    return sorted(distinct), sorted(pairs), steps(raw, found, distinct, len(raw) - len(text))


def vocabulary(found: Iterable[Features], least: int) -> Vocabulary:
    """Every word, stem and pair that occurs in at least `least` prompts."""
    single: Counter[bytes] = Counter()
    stems: Counter[bytes] = Counter()
    pairs: Counter[bytes] = Counter()
    for distinct, couples, _ in found:
        single.update(distinct)
        stems.update({word[:STEM] for word in distinct})
        pairs.update(couples)
    return Vocabulary(*(_frequent(counter, least) for counter in (single, stems, pairs)))


def _frequent(counter: Counter[bytes], least: int) -> list[bytes]:
    return sorted(name for name, count in counter.items() if count >= least)


def trends() -> Floats:
    """One column for each run of steps, a line from -1 to 1 over it."""
    columns = np.zeros((sum(RUNS), len(RUNS)))
    start = 0
    for number, size in enumerate(RUNS):
        columns[start : start + size, number] = np.linspace(-TREND_SHARE, TREND_SHARE, size)
        start += size
    return columns


def matrix(found: Sequence[Features], known: Vocabulary) -> sparse.csr_array:
    """One row a prompt: vocabulary first, then every step of every count, then their trends.

    A prompt's words and pairs have length about 1 however many there are.
    """
    place_of_word = {name: n for n, name in enumerate(known.words)}
    place_of_stem = {name: n + len(known.words) for n, name in enumerate(known.stems)}
    base = len(known.words) + len(known.stems)
    place_of_pair = {name: n + base for n, name in enumerate(known.pairs)}
    offsets = len(known) + np.r_[0, np.cumsum(SIZES)]
    columns: list[int] = []
    values: list[float] = []
    ends = [0]
    for distinct, couples, stepped in found:
        hits = 0
        start = len(values)
        for word in distinct:
            own, stem = place_of_word.get(word), place_of_stem.get(word[:STEM])
            hits += own is not None or stem is not None
            if own is not None:
                columns.append(own)
                values.append(1.0)
            if stem is not None:
                columns.append(stem)
                values.append(STEM_SHARE)
        for pair in couples:
            if pair in place_of_pair:
                hits += 1
                columns.append(place_of_pair[pair])
                values.append(1.0)
        norm = max(hits, 1) ** -0.5
        values[start:] = [value * norm for value in values[start:]]
        columns += [int(offset) + step for offset, step in zip(offsets, stepped, strict=False)]
        values += [COUNT_SHARE] * len(SIZES)
        ends.append(len(values))
    shape = (len(found), len(known) + sum(SIZES))
    made = sparse.csr_array((np.array(values), np.array(columns), np.array(ends)), shape=shape)
    stepped_part = made[:, len(known) :] / COUNT_SHARE
    return sparse.hstack([made, sparse.csr_array(stepped_part @ trends())]).tocsr()


def of_steps(weights: Floats) -> Floats:
    """What each step of each count adds, from the weights of the columns after the vocabulary."""
    own = weights[: sum(SIZES)] * COUNT_SHARE
    return np.asarray(own + trends() @ weights[sum(SIZES) :])
