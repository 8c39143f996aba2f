"""The form of the artefact: what training writes and a router reads. MessagePack, no code in it."""

import msgspec

VERSION = 1


class Vocabulary(msgspec.Struct, frozen=True):
    """The features that have a row, each list in the order of its rows: words, stems, pairs.

    A pair is two words with a space between them.
    """

    words: list[bytes]
    stems: list[bytes]
    pairs: list[bytes]

    def __len__(self) -> int:
        return len(self.words) + len(self.stems) + len(self.pairs)


class Weights(msgspec.Struct, frozen=True):
    """One linear layer over the vocabulary and the counts, in whole numbers.

    Attributes:
        columns: how many outputs it has.
        rows: a byte for each row and column, 64 for zero, the rows in the vocabulary's order.
        scales: what one step of a byte is worth, by column.
        counts: the same as `rows` for every step of every count.
        count_scales: what one step of those is worth, by column.
        bias: what is added, by column.
    """

    columns: int
    rows: bytes
    scales: list[float]
    counts: bytes
    count_scales: list[float]
    bias: list[float]


class Form(msgspec.Struct, frozen=True):
    """The numbers of the response curve; `predict` says what each does."""

    ease: float
    gain: float
    pivot: float
    full_coverage: float
    item_sd: float
    usual_ease: float
    usual_gain: float
    usual_spread: float


class Group(msgspec.Struct, frozen=True):
    """One set of outcomes that models were seen in, as columns of the second layer.

    Attributes:
        name: of the set.
        tasks: columns that tell its tasks apart (a softmax), as (first, end).
        factors: columns of the factors its models share, as (first, end).
        models: for each model its mean, its mean by task, its weight on each factor.
        slope: how much of what these columns say is kept.
    """

    name: str
    tasks: tuple[int, int]
    factors: tuple[int, int]
    models: dict[str, tuple[float, list[float], list[float]]]
    slope: float = 1.0


class Artefact(msgspec.Struct, frozen=True):
    """Everything training found."""

    version: int
    kinds: list[str]
    vocabulary: Vocabulary
    heads: Weights
    known: Weights
    form: Form
    groups: list[Group]
