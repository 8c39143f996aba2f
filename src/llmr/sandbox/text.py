"""The words the sandbox answers with, and how they are cut into tokens."""

import re

CANONICAL_ANSWER = (
    "This is a simulated answer from the llmr sandbox. No language model was asked and nothing "
    "left this machine. The text is always the same, so that a reader or a test can see at once "
    "whether every word arrived, in the right order and only once. Use it to try routing, "
    "streaming, retries and fallbacks without a key and without cost."
)

REASONING = (
    "This is simulated reasoning. The sandbox pauses as a thinking model would, then gives its "
    "fixed answer."
)

_PIECE = re.compile(r"\s*\S{1,16}|\s+")


def pieces(text: str) -> list[str]:
    """Cut `text` into tokens: a word with the space before it, long words in parts.

    Joined again they are `text`, character for character.
    """
    return _PIECE.findall(text)


def answer_text(model: str, images: int) -> str:
    """The whole answer of an ordinary model to a message with `images` pictures."""
    parts = [CANONICAL_ANSWER, f"The model asked for was {model}."]
    if images:
        parts.append(f"It was given {images} image{'' if images == 1 else 's'}.")
    return " ".join(parts)


def up_to_stop(text: str, stops: list[str]) -> str:
    """`text` before the first of the stop strings, or all of it."""
    found = [at for at in (text.find(stop) for stop in stops if stop) if at >= 0]
    return text[: min(found)] if found else text
