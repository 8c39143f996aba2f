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
TOOL_CHOICE = 1 << 11
PARALLEL_TOOLS = 1 << 12
MAX_TOKENS = 1 << 13
NO_TRAINING = 1 << 14
NO_RETENTION = 1 << 15
REGIONS = {
    name: 1 << place
    for place, name in enumerate(
        ("eu", "us", "uk", "ch", "ca", "br", "in", "jp", "kr", "sg", "au"), start=16
    )
}
# What a caller may rely on wherever a request goes, for models asked for by name as well.
BINDING = NO_TRAINING | NO_RETENTION | sum(REGIONS.values())

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
    "tool_choice": TOOL_CHOICE,
    "parallel_tools": PARALLEL_TOOLS,
    "max_tokens": MAX_TOKENS,
    "no_training": NO_TRAINING,
    "no_retention": NO_RETENTION,
    **{f"region_{name}": bit for name, bit in REGIONS.items()},
}

PARAMETERS = {
    "tools": TOOLS,
    "structured_outputs": JSON_SCHEMA,
    "response_format": JSON_OBJECT,
    "reasoning": REASONING,
    "reasoning_effort": REASONING,
    "tool_choice": TOOL_CHOICE,
    "parallel_tool_calls": PARALLEL_TOOLS,
    "max_tokens": MAX_TOKENS,
    "max_completion_tokens": MAX_TOKENS,
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
