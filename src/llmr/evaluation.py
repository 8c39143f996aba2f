"""How good predictions of quality are on a set of outcomes: the tables of `llmr quality evaluate`.

The prior of a model is its mean on the set, as a leaderboard would tell it. Deterministic.
"""

import gzip
import random
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import msgspec
from msgspec import Struct

from llmr import measures

Predictor = Callable[[Sequence[str], Sequence[str], Mapping[str, float]], list[dict[str, float]]]
ROWS, WHOLE = "each fifth of the rows in turn", "the whole set"
LENGTHS = (500, 2_000, 100_000)
SAMPLE = 400  # prompts that are reworded
READS = 500


class Outcome(Struct, frozen=True):
    """One prompt, what each model's answer was worth (0..1), and what it cost, where known."""

    prompt: str
    scores: dict[str, float]
    sub: str = ""
    cost: dict[str, float] = {}


class Measure(Struct, frozen=True):
    """One figure: its 95 % interval over prompts, what chance and the oracle would have."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    beside: dict[str, float] = {}


Tables = dict[str, dict[str, list[Measure]]]  # by set, then by what training had not seen


def held_out() -> Tables:
    """What `python -m training evaluate` measured."""
    raw = (files("llmr") / "data" / "quality-held-out.json").read_bytes()
    return msgspec.json.decode(raw, type=Tables)


def read(path: Path) -> list[Outcome]:
    """The outcomes in a file of JSON lines, packed or not. A `ValueError` names a bad line."""
    raw = path.read_bytes()
    try:
        lines = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is cut off or damaged: {error}") from None
    decode = msgspec.json.Decoder(Outcome).decode
    found = []
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            found.append(decode(line))
        except msgspec.DecodeError as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from None
    return found


def evaluate(
    rows: Sequence[Outcome], predict: Predictor, *, reworded: bool = True
) -> list[Measure]:
    """What there is to measure: two models are told apart by prompt, of more one is chosen.

    Prompts without any outcome are left out. A `ValueError` says what is too little to measure.
    """
    rows = [row for row in rows if row.scores]
    models = sorted({model for row in rows for model in row.scores})
    if len(models) < 2:
        raise ValueError(f"it has outcomes of {len(models)} models; two or more can be compared")
    priors = measures.singles([row.scores for row in rows])
    predicted = predict([row.prompt for row in rows], models, priors)
    found = list(_calibration(rows, predicted, priors))
    answered = [n for n, row in enumerate(rows) if len(row.scores) == len(models)]
    if not answered:
        return found  # no prompt that all have answered: nothing to choose by
    predicted, rows = [predicted[n] for n in answered], [rows[n] for n in answered]
    if len(models) == 2:
        weak, strong = sorted(models, key=priors.__getitem__)
        found += _pair(rows, predicted, strong, weak)
        if reworded:
            found += _reworded(rows, predict, models, priors, strong, weak)
    else:
        found += _choice(rows, predicted)
    costs = measures.singles([row.cost for row in rows if row.cost])
    if len(costs) == len(models) > 2 and min(costs.values()) < max(costs.values()):
        found += _trade_off(rows, predicted, costs)
    return found


def _calibration(
    rows: Sequence[Outcome], predicted: measures.Table, priors: Mapping[str, float]
) -> Iterator[Measure]:
    outcomes = [row.scores for row in rows]
    said, was = measures.pairs(predicted, outcomes)
    before, _ = measures.pairs([priors] * len(rows), outcomes)
    beside = {"prior": measures.auc(before, was)}

    def of(numbers: Sequence[int]) -> float:
        chosen = [predicted[n] for n in numbers], [outcomes[n] for n in numbers]
        return measures.auc(*measures.pairs(*chosen))

    yield Measure("AUC", measures.auc(said, was), *_interval(rows, of, 40), beside)
    beside = {"prior": measures.brier(before, was)}
    yield Measure("Brier", measures.brier(said, was), None, None, beside)
    yield Measure("ECE", measures.ece(said, was))


def _pair(
    rows: Sequence[Outcome], predicted: measures.Table, strong: str, weak: str
) -> Iterator[Measure]:
    best, least = ([row.scores[name] for row in rows] for name in (strong, weak))
    gains = [row[strong] - row[weak] for row in predicted]
    lengths = [float(len(row.prompt)) for row in rows]
    oracle = [a - b for a, b in zip(best, least, strict=True)]

    def of(numbers: Sequence[int]) -> float:
        return measures.apgr(*([values[n] for n in numbers] for values in (gains, best, least)))

    beside = {
        "random": 0.5,
        "length alone": measures.apgr(lengths, best, least),
        "oracle": measures.apgr(oracle, best, least),
    }
    yield Measure("APGR", measures.apgr(gains, best, least), *_interval(rows, of, 200), beside)
    for share in (0.5, 0.8):
        yield Measure(f"CPT {share:.0%}", measures.cpt(share, gains, best, least))


def _choice(rows: Sequence[Outcome], predicted: measures.Table) -> Iterator[Measure]:
    outcomes = [row.scores for row in rows]
    single = measures.best_single(outcomes)
    base = [row[single] for row in outcomes]
    routed = measures.routed(predicted, outcomes)
    best = sum(max(row.values()) for row in outcomes)

    def of(numbers: Sequence[int]) -> float:
        return _over([routed[n] for n in numbers], [base[n] for n in numbers])

    beside = {"oracle": 100.0 * (best / max(sum(base), 1e-9) - 1.0)}
    name = "routed over the best single, %"
    spread = measures.interval(len(rows), of)
    yield Measure(name, _over(routed, base), *spread, beside)


def _over(routed: Sequence[float], base: Sequence[float]) -> float:
    return 100.0 * (sum(routed) / max(sum(base), 1e-9) - 1.0)


def _trade_off(
    rows: Sequence[Outcome], predicted: measures.Table, costs: Mapping[str, float]
) -> Iterator[Measure]:
    outcomes = [row.scores for row in rows]
    means = measures.singles(outcomes)
    least, most = min(costs.values()), max(costs.values())
    static = measures.aiq([(costs[model], means[model]) for model in costs], least, most)
    points = measures.trade_offs(predicted, outcomes, costs)
    yield Measure("AIQ", measures.aiq(points, least, most), None, None, {"static mix": static})


def _reworded(
    rows: Sequence[Outcome],
    predict: Predictor,
    models: Sequence[str],
    priors: Mapping[str, float],
    strong: str,
    weak: str,
) -> Iterator[Measure]:
    """How often the choice between the two stays, half of the prompts going to each."""
    chosen = random.Random(0).sample(range(len(rows)), min(SAMPLE, len(rows)))
    prompts = [rows[n].prompt for n in chosen]

    def picks(texts: Sequence[str]) -> list[bool]:
        found = predict(texts, models, priors)
        gains = [row[strong] - row[weak] for row in found]
        middle = sorted(gains)[len(gains) // 2]
        return [gain >= middle for gain in gains]

    before = picks(prompts)
    for name, change in REWORDINGS.items():
        after = picks([change(prompt) for prompt in prompts])
        same = sum(a == b for a, b in zip(before, after, strict=True)) / len(before)
        yield Measure(f"same choice after {name}, %", 100.0 * same)


def _typos(text: str) -> str:
    """Two neighbouring letters change places in one word of twenty."""
    draw = random.Random(len(text))

    def slip(match: re.Match[str]) -> str:
        word = match[0]
        if draw.random() > 0.05:
            return word
        at = draw.randrange(1, len(word) - 1)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return re.sub(r"[a-z]{4,}", slip, text)


REWORDINGS: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "upper case": str.upper,
    "spaces doubled": lambda text: text.replace(" ", "  "),
    "typos in one word of twenty": _typos,
    "a polite beginning and end": lambda text: f"Could you help me? {text} Thank you!",
}


def _interval(
    rows: Sequence[Outcome], measure: Callable[[Sequence[int]], float], resamples: int
) -> tuple[float, float]:
    return measures.interval(len(rows), measure, resamples)


def made_up(words: Sequence[str], length: int, count: int) -> list[str]:
    """Different texts of a length, of words drawn as unevenly as in a language; the same ones."""
    draw, chances = random.Random(length), [1.0 / (rank + 2.7) for rank in range(len(words))]
    many = length // 4
    return [" ".join(draw.choices(words, chances, k=many))[:length] for _ in range(count)]


def reading_us(read_one: Callable[[str], object], texts: Sequence[str]) -> tuple[float, float]:
    """(median, 99th percentile) microseconds to read a text, each of them once."""
    took = []
    for text in texts:
        begun = time.perf_counter()
        read_one(text)
        took.append((time.perf_counter() - begun) * 1e6)
    took.sort()
    return took[len(took) // 2], took[int(len(took) * 0.99)]
