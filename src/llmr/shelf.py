"""The last good catalogue of an upstream, on disk: what is known before the first look."""

import logging
import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

log = logging.getLogger("llmr.catalogue")

VERSION = 1


class Kept(Struct):
    """Rows as they came, and what they came with.

    `origin` is the base URL they are from, `captured` when, in UTC, `held` since when, in seconds
    since 1970, the odd new price of a model is not believed.
    """

    version: int
    origin: str
    captured: str
    rows: list[dict[str, Any]]
    etag: str | None = None
    modified: str | None = None
    held: dict[str, float] = {}


def read(path: Path, base_url: str) -> Kept | None:
    """What is kept of the upstream at this URL; None where that is nothing, or cannot be read."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("the catalogue kept in %s cannot be used: %s", path, error)
        return None
    return kept if kept.version == VERSION and kept.origin == base_url else None


def write(path: Path, kept: Kept) -> None:
    """Keep it, whole or not at all. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(kept))
    draft.replace(path)


def stamp(path: Path | None) -> int:
    """When the file was written last; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        return 0
