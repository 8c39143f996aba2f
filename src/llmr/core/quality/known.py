"""Quality on a benchmark whose leaderboard is known, with what training saw of some models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmr.core.quality.artefact import Artefact, Form, Group
from llmr.core.quality.heads import Heads, Reading, softmax
from llmr.core.quality.predict import logit, sigma, widened
from llmr.core.quality.table import Table
from llmr.core.quality.task import Task

ROUNDS = 20
STEPS = 6
LEAST_SLOPE = 0.02
PSEUDO_COUNT = 30.0  # prompts that the usual difficulty of training counts as
UNKNOWN = 0.5


@dataclass(frozen=True, slots=True)
class _Seen:
    """One prompt: what the heads read, and what the second layer says, by group."""

    reading: Reading
    shares: tuple[float, ...]  # of each group, and of none
    tasks: dict[str, tuple[float, ...]]
    factors: dict[str, list[float]]


class Known:
    """The predictor over one artefact: stateless, the same arguments give the same answer."""

    __slots__ = ("_form", "_groups", "_heads", "_table")

    def __init__(self, artefact: Artefact) -> None:
        self._heads = Heads(artefact)
        self._table = Table(artefact.vocabulary, artefact.known)
        self._groups = artefact.groups
        self._form: Form = artefact.form

    def predict(
        self, tasks: Sequence[Task], models: Sequence[str], priors: Mapping[str, float]
    ) -> list[dict[str, float]]:
        """For each task the quality, 0..1, by model."""
        seen = _sized([self._seen(task) for task in tasks])
        given = [priors[model] for model in models if model in priors]
        usual = sum(given) / len(given) if given else UNKNOWN
        columns = {model: self._column(model, priors.get(model, usual), seen) for model in models}
        return [{model: columns[model][n] for model in models} for n in range(len(seen))]

    def _seen(self, task: Task) -> _Seen:
        outputs = self._table.read(task.text).outputs
        shares = softmax(outputs[: len(self._groups) + 1])
        return _Seen(
            self._heads.read(task),
            shares,
            {g.name: softmax(outputs[slice(*g.tasks)]) for g in self._groups if _has(g.tasks)},
            {g.name: outputs[slice(*g.factors)] for g in self._groups},
        )

    def _column(self, model: str, prior: float, seen: Sequence[_Seen]) -> list[float]:
        """Quality of one model on every prompt.

        What training saw of it counts on prompts like those it was seen on; elsewhere its prior,
        moved by how hard the prompt is for any model.
        """
        home = [(n, group) for n, group in enumerate(self._groups) if model in group.models]
        general = self._general(prior, [one.reading for one in seen])
        base = logit(prior)
        values = []
        for one, value in zip(seen, general, strict=True):
            for number, group in home:
                share = one.shares[number]
                value += share * (base + group.slope * _said(group, model, one) - value)
            values.append(value)
        return _held(values, prior)

    def _general(self, prior: float, readings: Sequence[Reading]) -> list[float]:
        """The logit of any model with this prior on each prompt; their usual ease is taken off."""
        form = self._form
        offsets = [self._offset(prior, reading) for reading in readings]
        weight = len(offsets) + PSEUDO_COUNT
        centre = sum(offsets) / weight
        spread = sum((offset - centre) ** 2 for offset in offsets)
        spread = (spread + PSEUDO_COUNT * form.usual_spread) / weight
        base = logit(prior) * widened(spread) - centre
        return [base + offset for offset in offsets]

    def _offset(self, prior: float, reading: Reading) -> float:
        form = self._form
        trust = min(1.0, reading.coverage / form.full_coverage)
        slope = trust * form.gain * (reading.gain - form.usual_gain)
        ease = trust * form.ease * (reading.ease - form.usual_ease)
        return ease + slope * (logit(prior) - form.pivot)


def _held(values: list[float], prior: float) -> list[float]:
    """Logits as probabilities, moved so that the mean of many is nearly the prior."""
    if not values:
        return []
    shift = 0.0
    for _ in range(STEPS):
        shares = [sigma(value + shift) for value in values]
        slope = sum([share * (1.0 - share) for share in shares])
        shift += (prior * len(shares) - sum(shares)) / max(slope, LEAST_SLOPE * len(shares))
    shift *= len(values) / (len(values) + PSEUDO_COUNT)
    return [sigma(value + shift) for value in values]


def _sized(seen: list[_Seen]) -> list[_Seen]:
    """The same prompts, their shares corrected by how common each group is among them.

    Expectation maximisation over the sizes of the groups (Saerens, Latinne and Decaestecker 2002);
    a single prompt hardly moves them from equal sizes.
    """
    if not seen:
        return seen
    many = len(seen[0].shares)
    sizes = [1.0 / many] * many
    shares = [one.shares for one in seen]
    for _ in range(ROUNDS):
        totals = [sum(column) for column in zip(*shares, strict=True)]
        weight = len(seen) + PSEUDO_COUNT
        sizes = [(total + PSEUDO_COUNT / many) / weight for total in totals]
        shares = [_posterior(one.shares, sizes) for one in seen]
    return [replace(one, shares=own) for one, own in zip(seen, shares, strict=True)]


def _posterior(shares: tuple[float, ...], sizes: list[float]) -> tuple[float, ...]:
    weighed = [share * size for share, size in zip(shares, sizes, strict=True)]
    total = sum(weighed)
    return tuple([value / total for value in weighed])


def _has(span: tuple[int, int]) -> bool:
    return span[0] < span[1]


def _said(group: Group, model: str, seen: _Seen) -> float:
    """What a group's tasks and factors say of its model here, in logits over its mean."""
    mean, tables, weights = group.models[model]
    share = mean + sum(map(float.__mul__, weights, seen.factors[group.name]))
    if tables:
        share += sum(map(float.__mul__, tables, seen.tasks[group.name]))
    return logit(min(max(share, 0.03), 0.97)) - logit(mean)
