"""The data that ships with the package: the catalogue, recorded latencies, published boards."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from llmr.core import openrouter
from llmr.core.catalogue import Snapshot
from llmr.core.priors import Percentiles, Recorded
from llmr.core.quality.artefact import VERSION, Artefact
from llmr.core.quality.boards import Board
from llmr.core.quality.heads import Heads
from llmr.core.quality.known import Known
from llmr.core.quality.predict import curve_of
from llmr.core.request import Reader


class _Catalogue(msgspec.Struct):
    captured: str
    citation: str
    data: list[msgspec.Raw]


class _Latency(msgspec.Struct):
    rows: list[tuple[str, Percentiles, Percentiles]]


class _Boards(msgspec.Struct):
    boards: tuple[Board, ...]


@cache
def boards() -> tuple[Board, ...]:
    """Published boards, their models joined to catalogue ids."""
    raw = (files("llmr") / "data" / "boards.json").read_bytes()
    return msgspec.json.decode(raw, type=_Boards).boards


@cache
def latency() -> dict[str, Recorded]:
    """Recorded latency percentiles by model id."""
    raw = (files("llmr") / "data" / "latency.json").read_bytes()
    return {name: Recorded(t, s) for name, t, s in msgspec.json.decode(raw, type=_Latency).rows}


@cache
def _shipped() -> _Catalogue:
    raw = (files("llmr") / "data" / "catalogue.json").read_bytes()
    return msgspec.json.decode(raw, type=_Catalogue)


def captured() -> str:
    """The day that the bundled catalogue is of."""
    return _shipped().captured


def citation() -> str:
    """Whom the figures in OpenRouter's rows are owed to."""
    return _shipped().citation


def pricing() -> dict[str, Any]:
    """The `pricing` of each bundled row, as published."""
    rows = [msgspec.json.decode(row) for row in _shipped().data]
    return {row["id"]: row.get("pricing") or {} for row in rows}


@cache
def catalogue(upstream: str = "openrouter", vouched: int = 0) -> Snapshot:
    """The bundled snapshot of OpenRouter's models; `captured` says of when it is."""
    bundle = _shipped()
    return openrouter.snapshot(
        [msgspec.json.decode(row) for row in bundle.data],
        upstream=upstream,
        captured=bundle.captured,
        recorded=latency(),
        boards=boards(),
        citation=bundle.citation,
        vouched=vouched,
    )


@cache
def quality() -> Artefact:
    """What training found about prompts; read at first use."""
    raw = (files("llmr") / "data" / "quality.msgpack").read_bytes()
    artefact = msgspec.msgpack.decode(raw, type=Artefact)
    if artefact.version != VERSION:
        raise ValueError(f"quality.msgpack has version {artefact.version}, not {VERSION}")
    return artefact


@cache
def heads() -> Heads:
    """The heads of the bundled artefact."""
    return Heads(quality())


@cache
def reader() -> Reader:
    """Reads prompts by the bundled artefact."""
    layer, form = heads(), quality().form
    return lambda task: curve_of(layer.read(task), form)


@cache
def known() -> Known:
    """The predictor for models that training saw outcomes of, and all others."""
    return Known(quality())
