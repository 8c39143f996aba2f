"""What a conversation asks for: the last turns, capped, without the data they carry."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

HEAD = 1500
TAIL = 500
SYSTEM = 300
SHORTEST_STATEMENT = 12  # fewer characters outside the data state no task

_FENCE = re.compile(r"```([A-Za-z+#]{0,12})[^\n`]*\n?.*?(?:```|\Z)", re.DOTALL)
_QUOTED = re.compile(r'"""(?!\s*$).*?(?:"""|\Z)', re.DOTALL)
_TAGGED = re.compile(r"<([A-Za-z_]{3,20})>.{40,}?(?:</\1>|\Z)", re.DOTALL)


class Task(msgspec.Struct, frozen=True, gc=False):
    """What is asked, capped: `text` is the last user turn, `before` the one before it."""

    text: str
    before: str = ""
    system: str = ""
    turns: int = 1
    tools: int = 0
    images: int = 0
    characters: int = 0  # of the whole conversation


def capped(text: str) -> str:
    """The head of 1,500 and the tail of 500 characters; short text as it is."""
    if len(text) <= HEAD + TAIL:
        return text
    return f"{text[:HEAD]}\n{text[-TAIL:]}"


def stated(text: str) -> str:
    """The capped text without its data blocks; whole where nothing else states a task."""
    if "```" in text:
        text = _or_whole(_FENCE.sub(r" \1 ", text), text)
    if "</" in text:
        text = _or_whole(_TAGGED.sub(" ", text), text)
    if '"""' in text and "def " not in text:
        text = _or_whole(_QUOTED.sub(" ", text), text)
    return text


def _or_whole(rest: str, text: str) -> str:
    return rest if len(rest.strip()) >= SHORTEST_STATEMENT else text


def task_of(messages: Sequence[Mapping[str, Any]], tools: int = 0) -> Task:
    """The task of a `messages` list of the OpenAI form; what is malformed counts as empty."""
    users: list[str] = []
    system = ""
    images = characters = 0
    for message in reversed(messages):
        content = message.get("content")
        role = message.get("role")
        text, pictures, size = _content(content)
        characters += size
        if role == "user":
            images += pictures
            if len(users) < 2:
                users.append(text)
        elif role in ("system", "developer"):
            system = text[:SYSTEM]
    return Task(
        text=stated(users[0]) if users else "",
        before=stated(users[1]) if len(users) > 1 else "",
        system=system,
        turns=len(messages),
        tools=tools,
        images=images,
        characters=characters,
    )


def _content(content: object) -> tuple[str, int, int]:
    """(capped text, images, characters) of one message's content."""
    if isinstance(content, str):
        return capped(content), 0, len(content)
    if not isinstance(content, list):
        return "", 0, 0
    texts: list[str] = []
    images = 0
    for part in content:
        if not isinstance(part, Mapping):
            continue
        text = part.get("text")
        if isinstance(text, str):
            texts.append(text)
        elif part.get("type") in ("image_url", "input_image"):
            images += 1
    return capped("\n".join(map(capped, texts))), images, sum(map(len, texts))
