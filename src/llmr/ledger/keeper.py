"""Keeps the ledger: sums in memory, written behind by one thread. Nothing waits for it.

Where the file cannot be written the sums stay in memory, bounded, and are written once it can be.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmr.ledger.book import open_book, read_learned, write
from llmr.ledger.sheet import Key, Line, Sheet, day_of, lines_of
from llmr.observe.record import Record, Sent

log = logging.getLogger("llmr.ledger")

WRITE_S = 1.0

Pending = Callable[[Key, Sent], bool]  # whether what a send cost will be asked for


class Ledger:
    """Adds up what finished requests cost. `path` None: in memory alone."""

    def __init__(self, path: Path | None, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self.error: str | None = None
        self.unpriced = 0  # sends whose cost nobody knows
        self.pending: Pending | None = None
        self._wall = wall
        self._sheet = Sheet()
        self._learned: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()
        self._book: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._users = 0

    def start(self) -> None:
        """Open the file and begin to write. Raises `ConfigError` for one of a newer version.

        Whoever starts it closes it; it ends with the last of them.
        """
        self._users += 1
        if self.path is None or self._users > 1:
            return
        self._open()
        self._thread = threading.Thread(target=self._run, name="llmr-ledger", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left, and end. Waits for the file no longer than a writer may."""
        self._users -= 1
        if self._users > 0:
            return
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)
            self._thread = None
        if self._book is not None:
            self._book.close()
            self._book = None

    def add(self, record: Record) -> None:
        """Take a finished request."""
        for key, line, sent in lines_of(record, day_of(self._wall())):
            if sent is not None and self.pending is not None and self.pending(key, sent):
                continue
            self.put(key, line)

    def put(self, key: Key, line: Line) -> None:
        """Add to the line of a key."""
        self.unpriced += line.unpriced
        with self._lock:
            self._sheet.add(key, line)

    def keep(self, learned: Mapping[tuple[str, str], bytes]) -> None:
        """Put what was learned into the file with the next lines; the newest of a name counts."""
        if self.path is not None:
            with self._lock:
                self._learned.update(learned)

    def kept(self) -> list[tuple[str, str, bytes]]:
        """(kind, name, data) of what was learned before; nothing where it cannot be read."""
        try:
            return [] if self._book is None else read_learned(self._book)
        except sqlite3.Error as error:
            self._failed(error)
            return []

    def unwritten(self) -> dict[Key, Line]:
        """The lines that are not in the file yet; they are taken out."""
        with self._lock:
            return self._sheet.take()

    def status(self) -> dict[str, Any]:
        """What `/health` says of it."""
        return {
            "path": None if self.path is None else str(self.path),
            "error": self.error,
            "waiting": len(self._sheet),
            "unpriced": self.unpriced,
        }

    def _open(self) -> None:
        assert self.path is not None
        try:
            self._book = open_book(self.path)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def _run(self) -> None:
        while not self._over.wait(WRITE_S):
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Write what is there; where that fails, keep it."""
        lines = self.unwritten()
        with self._lock:
            learned, self._learned = self._learned, {}
        if not lines and not learned:
            return
        try:
            if self._book is None:
                self._open()
            if self._book is None:
                raise sqlite3.OperationalError(self.error or "it is not open")
            write(self._book, lines, learned)
        except sqlite3.Error as error:
            with self._lock:
                self._sheet.put_back(lines)
                self._learned = {**learned, **self._learned}
            self._failed(error)
            if not isinstance(error, sqlite3.OperationalError) and self._book is not None:
                self._book.close()  # damaged under way: the next look sets it aside
                self._book = None
        else:
            if self.error is not None:
                log.warning("the ledger %s is written again", self.path)
            self.error = None

    def _failed(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self.error is None:
            log.warning("the ledger %s cannot be written, going on without: %s", self.path, text)
        self.error = text
