"""Tool calls in a stream, kept apart: whatever indexes and ids an upstream gives them."""

from msgspec import UNSET, Raw, Struct, UnsetType


class Function(Struct):
    """What is called. Its arguments come in pieces."""

    name: str | None = None
    arguments: Raw | UnsetType = UNSET


class Tool(Struct):
    """Some of a tool call in a chunk."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class ToolIndexes:
    """Keeps the tool calls of one choice apart: by id, then by the index the upstream gave."""

    __slots__ = ("by_id", "current", "last", "taken")

    def __init__(self) -> None:
        self.by_id: dict[str, int] = {}
        self.current: dict[int, int] = {}
        self.taken: set[int] = set()
        self.last = 0

    def place(self, tool: Tool) -> tuple[int, str | None]:
        """(the index to send on, an id to add where a new call came without one)."""
        given = tool.index
        if tool.id:
            index = self.by_id.get(tool.id)
            if index is None:
                index = self._new(given)
                self.by_id[tool.id] = index
            new_id = None
        elif given in self.current or (given is None and self.taken):
            index, new_id = (
                self.current.get(given, self.last) if given is not None else self.last,
                None,
            )
        else:
            index = self._new(given)
            new_id = f"call_llmr_{index}"
        if given is not None:
            self.current[given] = index
        self.last = index
        return index, new_id

    def _new(self, given: int | None) -> int:
        free = given is not None and given >= 0 and given not in self.taken
        index = given if free and given is not None else max(self.taken, default=-1) + 1
        self.taken.add(index)
        return index
