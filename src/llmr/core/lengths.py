"""How many tokens a model counts and writes, against what is estimated for every model alike.

A prompt is estimated from its bytes, an answer from the request; each tokenizer counts another
number, and each model has its own way with words. What was seen of a model takes the place of what
is known of its family, as far as enough was seen.
"""

import re

from msgspec import Struct

# A late prompt or answer is the one in twenty: so many times the expected one. The first is the
# spread of bytes over tokens, measured over kinds of text and tokenizers, the second that of
# recorded answers around what their prompts let expect.
PROMPT_LATE, ANSWER_LATE = 1.3, 4.0
THOUGHT_LATE = 3.0


class Lengths(Struct, frozen=True):
    """Factors on estimated tokens: `prompt` of the prompt, `answer` of what is answered.

    `…_late` are those of the one in twenty over those. `thought` has the tokens thought before an
    answer by reasoning effort, "" where the request named none; for what it has not, the usual ones
    count.
    """

    prompt: float = 1.0
    prompt_late: float = PROMPT_LATE
    answer: float = 1.0
    answer_late: float = ANSWER_LATE
    thought: tuple[tuple[str, float], ...] = ()


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
    return USUAL if factor == 1.0 else Lengths(prompt=factor)
