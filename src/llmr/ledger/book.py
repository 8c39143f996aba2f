"""The ledger as it is kept: one SQLite file, which several processes may write to.

Migrations are numbered by `user_version`. A file that is damaged is set aside, never deleted; one
that a newer version wrote is refused.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

from llmr.errors import ConfigError
from llmr.ledger.sheet import Key, Line

BUSY_S = 5.0  # so long a writer waits for another process
MIGRATIONS = (
    """
    CREATE TABLE spend (
        day TEXT NOT NULL, tenant TEXT NOT NULL, tag TEXT NOT NULL,
        upstream TEXT NOT NULL, model TEXT NOT NULL, source TEXT NOT NULL,
        answers INTEGER NOT NULL, attempts INTEGER NOT NULL, unpriced INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
        written_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL, usd TEXT NOT NULL,
        PRIMARY KEY (day, tenant, tag, upstream, model, source)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE learned (
        kind TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (kind, name)
    ) WITHOUT ROWID
    """,
)
NOTHING_LEARNED: Mapping[tuple[str, str], bytes] = MappingProxyType({})
_SUMS = [name for name in Line.__struct_fields__ if name != "usd"]
_COLUMNS = [*Key._fields, *_SUMS, "usd"]
_ADD = (
    f"INSERT INTO spend ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {', '.join(f'{n} = {n} + excluded.{n}' for n in _SUMS)}, "
    "usd = usd_sum(usd, excluded.usd)"
)


def place(configured: str | None) -> Path:
    """Where state is kept: as configured, else in the user's state folder."""
    if configured:
        return Path(configured).expanduser()
    folder = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(folder).expanduser() / "llmr" / "state.sqlite"


def open_book(path: Path) -> sqlite3.Connection:
    """The file, made and brought up to date where it has to be.

    One that is no database is set aside under another name. Raises `ConfigError` for one of a newer
    version, and `sqlite3.Error` or `OSError` where it cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) or not path.exists():
            raise
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        path.rename(aside)
        for more in ("-wal", "-shm"):
            path.with_name(path.name + more).unlink(missing_ok=True)
        return _opened(path)


def check(path: Path) -> None:
    """Refuse a file of a newer version (`ConfigError`); whatever else is wrong shows later."""
    with suppress(sqlite3.Error, OSError):
        open_book(path).close()


def _opened(path: Path) -> sqlite3.Connection:
    book = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        version = book.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise ConfigError(
                f"{path} was written by a newer llmr (its version is {version}, this one knows "
                f"{len(MIGRATIONS)}): use that llmr, or another file for state.path."
            )
        book.execute("PRAGMA journal_mode = WAL")
        book.execute("PRAGMA synchronous = NORMAL")
        if version < len(MIGRATIONS):
            _migrate(book)
        book.execute("SELECT count(*) FROM (SELECT 1 FROM spend LIMIT 1)").fetchone()
    except BaseException:
        book.close()
        raise
    book.create_function("usd_sum", 2, _usd_sum, deterministic=True)
    return book


def _migrate(book: sqlite3.Connection) -> None:
    """Every step that is missing, or none of them."""
    book.execute("BEGIN IMMEDIATE")
    try:
        version = book.execute("PRAGMA user_version").fetchone()[0]  # another process may have
        for statement in MIGRATIONS[version:]:
            book.execute(statement)
        book.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        book.execute("COMMIT")
    except BaseException:
        book.execute("ROLLBACK")
        raise


def _usd_sum(one: str, other: str) -> str:
    return format(Decimal(one) + Decimal(other), "f")


def write(
    book: sqlite3.Connection,
    lines: Mapping[Key, Line],
    learned: Mapping[tuple[str, str], bytes] = NOTHING_LEARNED,
) -> None:
    """Add lines to those in the file, and put what was learned: all or, where it raises, none."""
    book.execute("BEGIN IMMEDIATE")
    try:
        book.executemany(_ADD, (_values(key, line) for key, line in lines.items()))
        rows = ((kind, name, data) for (kind, name), data in learned.items())
        book.executemany("INSERT OR REPLACE INTO learned VALUES (?, ?, ?)", rows)
        book.execute("COMMIT")
    except BaseException:
        if book.in_transaction:
            book.execute("ROLLBACK")
        raise


def read_learned(book: sqlite3.Connection) -> list[tuple[str, str, bytes]]:
    """(kind, name, data) of all that was learned."""
    found = book.execute("SELECT kind, name, data FROM learned").fetchall()
    return [row for row in found if isinstance(row[2], bytes)]


def _values(key: Key, line: Line) -> tuple[str | int, ...]:
    return (*key, *(getattr(line, name) for name in _SUMS), format(line.usd, "f"))


def read(path: Path, since: str = "", until: str = "9999") -> Iterator[tuple[Key, Line]]:
    """The lines of the days from `since` to `until`, both inclusive, without changing the file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_S)) as book:
        rows = book.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM spend WHERE day BETWEEN ? AND ? ORDER BY day",  # noqa: S608
            (since, until),
        )
        width = len(Key._fields)
        for row in rows:
            sums = dict(zip(_SUMS, row[width:-1], strict=True))
            yield Key(*row[:width]), Line(**sums, usd=Decimal(row[-1]))
