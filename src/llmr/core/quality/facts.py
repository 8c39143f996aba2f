"""What is public about a model."""

import re
from collections.abc import Mapping
from functools import cached_property

from msgspec import Struct

_SIZE = re.compile(r"(?:^|[-_/])(\d{1,5}(?:\.\d+)?)([bt])(?:[-:_]|$)")
PLAIN_SIZE_B = 70.0  # of a model whose name does not tell


class Facts(Struct, frozen=True, dict=True):
    """What is public about one row.

    `usd_per_mtok` is a blended price, `created` Unix seconds. `indices` are published composite
    indices of one snapshot by name, `arenas` Elo ratings by (arena, category).
    """

    id: str
    usd_per_mtok: float | None = None
    created: int | None = None
    reasoning: bool = False
    indices: Mapping[str, float] = {}
    arenas: Mapping[tuple[str, str], float] = {}

    @property
    def author(self) -> str:
        """Who made it."""
        return self.id.split("/", 1)[0]

    @property
    def base(self) -> str:
        """The row whose model a serving variant shares."""
        return self.id.split(":", 1)[0]

    @cached_property
    def billions(self) -> float:
        """Parameters in the name; those of a large open model where it tells none."""
        size = _SIZE.search(self.id.lower())
        if size is None:
            return PLAIN_SIZE_B
        return float(size[1]) * (1000.0 if size[2] == "t" else 1.0) or PLAIN_SIZE_B
