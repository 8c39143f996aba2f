"""What a model can do, and what a request needs, as bits of one integer."""

from collections.abc import Iterable

TOOLS = 1 << 0
VISION = 1 << 1
JSON_SCHEMA = 1 << 2
REASONING = 1 << 3
PREFILL = 1 << 4
JSON_OBJECT = 1 << 5
AUDIO = 1 << 6
FILE = 1 << 7
VIDEO = 1 << 8
AUDIO_OUT = 1 << 9
IMAGE_OUT = 1 << 10

NAMES: dict[str, int] = {
    "tools": TOOLS,
    "vision": VISION,
    "json_schema": JSON_SCHEMA,
    "reasoning": REASONING,
    "prefill": PREFILL,
    "json_object": JSON_OBJECT,
    "audio": AUDIO,
    "file": FILE,
    "video": VIDEO,
    "audio_output": AUDIO_OUT,
    "image_output": IMAGE_OUT,
}

PARAMETERS = {
    "tools": TOOLS,
    "structured_outputs": JSON_SCHEMA,
    "response_format": JSON_OBJECT,
    "reasoning": REASONING,
    "reasoning_effort": REASONING,
}
INPUTS = {"image": VISION, "audio": AUDIO, "file": FILE, "video": VIDEO}
OUTPUTS = {"image": IMAGE_OUT, "audio": AUDIO_OUT}


def names(mask: int) -> list[str]:
    """The names of the set bits."""
    return [name for name, bit in NAMES.items() if mask & bit]


def mask_of(words: Iterable[str], table: dict[str, int]) -> int:
    """The bits that `table` knows for `words`; unknown words count nothing."""
    mask = 0
    for word in words:
        mask |= table.get(word, 0)
    return mask
