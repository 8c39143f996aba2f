"""How many tokens a model counts and writes, against what is estimated for every model alike.

A prompt is estimated from its bytes, an answer from the request; each tokenizer counts another
number, and each model has its own way with words. What was seen of a model takes the place of what
is known of its family, as far as enough was seen.
"""

import re
from collections.abc import Mapping
from math import exp, log
from typing import Any

from msgspec import Struct

from llmr.core.mean import LATE, SLOW, Mean

# A late prompt or answer is the one in twenty: so many times the expected one. The first is the
# spread of bytes over tokens, measured over kinds of text and tokenizers, the second that of
# recorded answers around what their prompts let expect.
PROMPT_LATE, ANSWER_LATE = 1.3, 4.0
THOUGHT_LATE = 3.0


# Tokens a model thinks before it answers an everyday prompt, by reasoning effort. Estimates.
EFFORT_TOKENS = {
    "none": 0,
    "minimal": 32,
    "low": 128,
    "medium": 384,
    "high": 768,
    "xhigh": 1536,
    "max": 3072,
}
USUAL_THOUGHT = EFFORT_TOKENS["medium"]


class Lengths(Struct, frozen=True):
    """Factors on estimated tokens: `prompt` of the prompt, `answer` of what is answered.

    `…_late` are those of the one in twenty over those. `thought` has the tokens thought before an
    answer by reasoning effort, "" where the request named none; for what it has not, the usual ones
    count. `family` is the factor of the prompt before anything was seen.
    """

    prompt: float = 1.0
    prompt_late: float = PROMPT_LATE
    answer: float = 1.0
    answer_late: float = ANSWER_LATE
    thought: tuple[tuple[str, float], ...] = ()
    family: float = 1.0

    def thoughts(self, effort: str | None) -> float | None:
        """Tokens thought at an effort, None where they were not measured."""
        for name, tokens in self.thought:
            if name == (effort or ""):
                return tokens
        return None


USUAL = Lengths()

# Tokens per four bytes of everyday text by who made the tokenizer; others count as GPT does. Public
# measurements over English, code, JSON and European languages.
FAMILIES = {
    **dict.fromkeys(("Claude", "anthropic"), 1.15),
    **dict.fromkeys(("DeepSeek", "deepseek"), 1.08),
    **dict.fromkeys(("Qwen", "Qwen3", "qwen"), 1.08),
    **dict.fromkeys(("Mistral", "mistralai"), 1.1),
}
# Claude's tokenizer since Opus 4.7 makes the same text a third longer than the one before.
NEW_CLAUDE = 1.45
CLAUDE = re.compile(r"(?:^|/)claude-")
OLD_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(?:[23](?:[.-]|$)|4(?:[.-][0-6])?(?![.\d]))")


def of_family(model: str, tokenizer: str | None = None) -> Lengths:
    """What is known of a model by the family of its tokenizer, or else by its author."""
    factor = FAMILIES.get(tokenizer or model.lstrip("~").split("/", 1)[0], 1.0)
    if CLAUDE.search(model) and not OLD_CLAUDE.search(model):
        factor = NEW_CLAUDE
    return USUAL if factor == 1.0 else Lengths(prompt=factor, family=factor)


LEAST_LATE = 1.05  # however steady a model is, nobody knows the next prompt
LEAST_ANSWER, MOST_ANSWER = 0.25, 4.0
MOST_THOUGHT = 16_384
MOVED = 0.05  # in logarithms
PRIOR_WEIGHT = 20.0  # answers
PROMPT_SPREAD, ANSWER_SPREAD = log(PROMPT_LATE) / LATE, log(ANSWER_LATE) / LATE


class Counted:
    """What was counted of the answers of one target."""

    __slots__ = ("answer", "prompt", "thought")

    def __init__(self) -> None:
        self.prompt = Mean(*SLOW)
        self.answer = Mean(*SLOW)
        self.thought: dict[str, Mean] = {}

    def of_effort(self, effort: str) -> Mean:
        """The mean of the tokens thought at an effort."""
        found = self.thought.get(effort)
        if found is None:
            found = self.thought[effort] = Mean(*SLOW)
        return found


class LengthBook:
    """What was counted of the answers of each target, bounded by the rows of the catalogue."""

    def __init__(self) -> None:
        self.targets: dict[str, Counted] = {}
        self.changed = False

    def add(
        self,
        target: str,
        usage: Mapping[str, Any],
        prompt_tokens: int,
        answer_tokens: int,
        effort: str | None,
        whole: bool,
        now: float,
    ) -> None:
        """Take a usage object, against what was estimated for every model alike.

        `whole`: the answer ended by itself, and was not cut short by a limit.
        """
        seen = self.targets.get(target)
        if seen is None:
            seen = self.targets[target] = Counted()
        if prompt := _count(usage, "prompt_tokens"):
            seen.prompt.add(log(prompt / prompt_tokens), now)
        completion = _count(usage, "completion_tokens")
        thought = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
        if whole and completion > thought:
            seen.answer.add(log((completion - thought) / answer_tokens), now)
        if whole and (thought or effort):
            # Below one the logarithm would say more than there is to say: no thought is one token.
            seen.of_effort(effort or "").add(log(max(thought, 1)), now)
        self.changed = True

    def of(self, target: str, known: Lengths, now: float) -> Lengths:
        """The factors of a target, from what is known of its family and what was seen."""
        seen = self.targets.get(target)
        if seen is None:
            return known
        prompt, late = _blend(seen.prompt, known.family, PROMPT_SPREAD, now)
        answer, long = _blend(seen.answer, 1.0, ANSWER_SPREAD, now)
        return Lengths(
            prompt=prompt,
            prompt_late=max(late / prompt, LEAST_LATE),
            answer=min(max(answer, LEAST_ANSWER), MOST_ANSWER),
            answer_late=max(long / answer, LEAST_LATE),
            thought=tuple((e, _tokens(e, mean, now)) for e, mean in sorted(seen.thought.items())),
            family=known.family,
        )


def _blend(seen: Mean, prior: float, spread: float, now: float) -> tuple[float, float]:
    """(the mean, what one in twenty exceeds)."""
    middle, spread, _ = seen.over(log(prior), spread, now, PRIOR_WEIGHT)
    return exp(middle), exp(middle + LATE * spread)


def _tokens(effort: str, seen: Mean, now: float) -> float:
    prior = EFFORT_TOKENS.get(effort, USUAL_THOUGHT)
    return min(_blend(seen, max(prior, 1), PROMPT_SPREAD, now)[0], MOST_THOUGHT)


def differs(now: Lengths, before: Lengths) -> bool:
    """Whether factors have changed by enough to be worth a new list of rows."""
    pairs = [
        (now.prompt * now.prompt_late, before.prompt * before.prompt_late),
        (now.prompt, before.prompt),
        (now.answer, before.answer),
        (now.answer_late, before.answer_late),
        *((tokens, before.thoughts(effort) or 1.0) for effort, tokens in now.thought),
    ]
    return any(abs(log(new / old)) > MOVED for new, old in pairs)


def _count(fields: Any, name: str) -> int:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    return value if isinstance(value, int) and 0 < value < 10**9 else 0
