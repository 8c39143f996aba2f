"""What is read off a prompt, whatever the model: kinds, difficulty, and how sure that is."""

import math

import msgspec

from llmr.core.quality.artefact import Artefact
from llmr.core.quality.kinds import KINDS
from llmr.core.quality.table import Linear, Table
from llmr.core.quality.task import Task

AGENT = KINDS.index("agent")
WITH_TOOLS = 1.0  # what declared tools add to the logit of `agent`
FOLLOW_UP = 8.0  # words of a follow-up that count as much as the task before it
NEW_TASK = 0.7  # the same where nothing points back
LEVEL = len(KINDS)  # the column of the level of a prompt; that of its ease within it follows
TELLING = 6  # words that are shown
SYSTEM_WORDS = 1.0
POINTING_BACK = frozenset(
    b"now instead again it that this these those them same also above previous more shorter longer "
    b"continue rather too else another".split()
)


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What a prompt says of itself.

    Attributes:
        kinds: probability of each of `KINDS`; they add up to 1.
        ease: in logits, above 0 where models do better than on the mean training prompt.
        gain: above 0 where ability counts for more than usual.
        coverage: 0..1, the share of its words that training knew.
        log_tokens: natural logarithm of the expected output tokens.
    """

    kinds: tuple[float, ...]
    ease: float
    gain: float
    coverage: float
    log_tokens: float


class Heads:
    """The layer over prompts; made once from an artefact, read for every request."""

    __slots__ = ("_table",)

    def __init__(self, artefact: Artefact) -> None:
        self._table = Table(artefact.vocabulary, artefact.heads)

    def telling(self, task: Task) -> dict[str, float]:
        """The words that say most about how easy a prompt is, and what each says in logits.

        Words of the prompt: for the caller's own eyes, and never to be kept.
        """
        shares = self._table.shares(task.text, (LEVEL, LEVEL + 1))
        most = sorted(shares, key=lambda pair: -abs(pair[1]))[:TELLING]
        return {word.decode("utf-8", "replace"): round(share, 3) for word, share in most}

    def read(self, task: Task) -> Reading:
        """What this task asks for. Deterministic, linear in the capped text."""
        last = self._table.read(task.text)
        outputs = last.outputs
        coverage = last.coverage
        if task.before:
            earlier = self._table.read(task.before)
            share = _inherited(last)
            outputs = _mixed(outputs, earlier.outputs, share)
            coverage += share * (earlier.coverage - coverage)
        if task.system:
            role = self._table.read(task.system).outputs
            share = SYSTEM_WORDS / (SYSTEM_WORDS + len(last.distinct))
            outputs = _mixed(outputs, role, share)
        return _reading(outputs, coverage, task.tools, last.options)


def _inherited(last: Linear) -> float:
    """The weight of the turn before: large where the last one is short and points back."""
    pull = NEW_TASK if POINTING_BACK.isdisjoint(last.distinct) else FOLLOW_UP
    return pull / (pull + len(last.distinct))


def _mixed(own: list[float], other: list[float], share: float) -> list[float]:
    return [a + share * (b - a) for a, b in zip(own, other, strict=True)]


def _reading(outputs: list[float], coverage: float, tools: int, options: int) -> Reading:
    logits = outputs[: len(KINDS)]
    if tools:
        logits[AGENT] += WITH_TOOLS
    level, ease, gain, log_tokens, of_choices = outputs[len(KINDS) :]
    within = of_choices if options else ease
    return Reading(softmax(logits), level + within, gain, coverage, log_tokens)


def softmax(logits: list[float]) -> tuple[float, ...]:
    """Logits as probabilities that add up to 1."""
    top = max(logits)
    powers = [math.exp(logit - top) for logit in logits]
    total = sum(powers)
    return tuple([power / total for power in powers])
