"""Figures of several worker processes that add up, whichever of them is asked.

Each worker leaves its counts in a folder they share, under a name of its own; who is asked adds the
others' to its own. A worker that ended leaves what it had counted, so that nothing falls back.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from llmr.observe.counts import Counts

log = logging.getLogger("llmr")


class Together:
    """This worker's place among the others. `folder` None: there are no others."""

    def __init__(
        self, counts: Counts, folder: str | None, settle: Callable[[], None] = lambda: None
    ) -> None:
        """`settle` brings what happened so far into the counts."""
        self._counts = counts
        self._settle = settle
        self._folder = Path(folder) if folder is not None else None
        self._own = f"{os.getpid()}.json"

    def dump(self) -> bytes | None:
        """This worker's counts, to be written; None where nobody would read them."""
        if self._folder is None:
            return None
        self._settle()
        return self._counts.dump()

    def write(self, dumped: bytes) -> None:
        """Leave them for the others. May block, so not on the loop."""
        assert self._folder is not None
        fresh = self._folder / f".{self._own}"
        fresh.write_bytes(dumped)
        fresh.replace(self._folder / self._own)

    def counts(self) -> Counts:
        """The counts of all workers, the others' as they last left them."""
        self._settle()
        if self._folder is None:
            return self._counts
        every = Counts()
        every.merge(self._counts.dump())
        for file in self._folder.glob("[0-9]*.json"):
            if file.name != self._own:
                try:
                    every.merge(file.read_bytes())
                except (OSError, ValueError, KeyError):
                    log.warning("the figures of worker %s cannot be read", file.stem)
        return every
