"""What a conversation asks for: the last turns, capped, without data they carry and courtesy."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

HEAD, TAIL = 1000, 350
FIRST, LAST = 24_000, 8_000  # where blocks are looked for; what is between is not read at all
SYSTEM = 300
SHORTEST_STATEMENT = 12  # fewer characters outside the data state no task

_FENCE, _QUOTES = "```", '"""'
_LONGEST_LANGUAGE = 12
_TAGGED = re.compile(r"<([A-Za-z_]{3,20})>.{40,}?</\1>", re.DOTALL)
# Words of courtesy around a task, which say nothing of it.
_GREETING = re.compile(
    r"\s*(?:(?:hi|hello|hey|good (?:morning|afternoon|evening))\b(?: there)?[\s,.!]*)?"
    r"(?:(?:could|can|would|will) you (?:please |kindly )?(?:help|assist) me"
    r"(?: with (?:this|that|it|the following)\b)?(?: please)?[\s?.!:,]+)?"
    r"(?:(?:please|kindly)\b[\s,:]*)?",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"[\s.!,]*\b(?:(?:many )?thanks|thank you|please)"
    r"(?: (?:so|very) much| in advance| a lot)?[\s.!]*\Z",
    re.IGNORECASE,
)
_LONGEST_THANKS = 32


class Task(msgspec.Struct, frozen=True, gc=False):
    """What is asked, capped: `text` is the last user turn, `before` the one before it."""

    text: str
    before: str = ""
    system: str = ""
    tools: int = 0


def stated(text: str) -> str:
    """The task in a text, capped: without data blocks and courtesy, whole where nothing is left.

    Blocks go first, so that a long one does not take the place of what is asked for behind it.
    """
    text = _capped(text, FIRST, LAST)
    if "`" in text and _FENCE in text:  # one character is found ten times as quickly as three
        text = _or_whole(_outside(text, _FENCE), text)
    if '"' in text and _QUOTES in text and "def " not in text:
        text = _or_whole(_outside(text, _QUOTES), text)
    text = _capped(text, HEAD, TAIL)
    if "</" in text:
        text = _or_whole(_TAGGED.sub(" ", text), text)
    return _or_whole(_plain(text), text)


def _capped(text: str, head: int, tail: int) -> str:
    """The head and the tail of a long text; a short one as it is."""
    return text if len(text) <= head + tail else f"{text[:head]}\n{text[-tail:]}"


def _outside(text: str, mark: str) -> str:
    """What stands outside of blocks between two marks; one that is not closed is no block."""
    parts = text.split(mark)
    if len(parts) % 2 == 0:
        parts[-2:] = [parts[-2], "", parts[-1]]
    return " ".join(
        part if number % 2 == 0 else _language(part, mark) for number, part in enumerate(parts)
    )


def _language(block: str, mark: str) -> str:
    """The name of its language, where a fenced block says one."""
    end = block.find("\n", 0, _LONGEST_LANGUAGE + 1)
    return block[:end].strip() if mark == _FENCE and end > 0 else ""


def _plain(text: str) -> str:
    """A text without its words of courtesy, which come first and last."""
    begun = _GREETING.match(text)
    start = begun.end() if begun is not None else 0
    tail = text[-_LONGEST_THANKS:]
    if "hank" in tail or "lease" in tail:
        thanks = _THANKS.search(text, max(start, len(text) - _LONGEST_THANKS))
        if thanks is not None:
            return text[start : thanks.start()]
    return text[start:]


def _or_whole(rest: str, text: str) -> str:
    return rest if len(rest.strip()) >= SHORTEST_STATEMENT else text


def task_of_turns(turns: Sequence[tuple[str, Iterable[str]]], tools: int = 0) -> Task:
    """The task of a conversation: (role, its texts) by turn, the first one first."""
    asked: list[str] = []
    for role, texts in reversed(turns):
        if role == "user":
            asked.append(stated("\n".join(texts)))
            if len(asked) == 2:
                break
    system = next((texts for role, texts in turns if role in ("system", "developer")), ())
    return Task(
        text=asked[0] if asked else "",
        before=asked[1] if len(asked) > 1 else "",
        system="\n".join(texts[:SYSTEM] for texts in system)[:SYSTEM],
        tools=tools,
    )


def task_of(messages: Sequence[Mapping[str, Any]], tools: int = 0) -> Task:
    """The task of a `messages` list of the OpenAI form; what is malformed counts as empty."""
    turns = [
        (str(message.get("role")), _texts(message.get("content")))
        for message in messages
        if isinstance(message, Mapping)
    ]
    return task_of_turns(turns, tools)


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else ()
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return [text for text in texts if isinstance(text, str)]
