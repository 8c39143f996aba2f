"""What no ceiling in USD can bound: what providers do besides answering, at a price of its own."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from llmr.core.body import Body
from llmr.errors import bad_request

AT_A_PRICE, NOTHING = ("plugins", "web_search_options"), (b"null", b"[]")
CALLERS_TOOLS = ("function", "custom")


class _Tool(Struct):
    type: str = "function"


def bounded(body: Body, models: Sequence[str], tools: Sequence[Raw]) -> bool:
    """Whether the request writes the prompt cache; a 400 where no ceiling can bound its cost."""
    if (
        any(name.endswith(":online") for name in models)
        or any(bytes(body.fields.get(key, b"null")) not in NOTHING for key in AT_A_PRICE)
        or any(_kind_of(tool) not in CALLERS_TOOLS for tool in tools)
    ):
        text = (
            "'max_cost_usd' cannot bound plugins, web search or tools that the provider runs: what "
            "they cost is known afterwards only. Leave one or the other out."
        )
        raise bad_request("no_candidates", text, "max_cost_usd")
    return b'"cache_control"' in body.data or b'"prompt_cache_breakpoint"' in body.data


def _kind_of(tool: Raw) -> str:
    try:
        return msgspec.json.decode(tool, type=_Tool).type
    except msgspec.DecodeError:
        return "function"  # whatever it is, it is for the upstream to refuse
