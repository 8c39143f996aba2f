"""The last decisions with their inputs, so that each can be worked out again when asked for."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from llmr.core.catalogue import Model
from llmr.core.decide import Decision
from llmr.core.explain import explain
from llmr.errors import ApiError
from llmr.observe.record import Record

KEPT = 1000

Told = Callable[[Record, Sequence[Any]], dict[str, Any]]


class Kept(Struct):
    """A decision, whose it is, and what came of it: its record, and every attempt."""

    number: int
    id: str
    decision: Decision
    tenant: bytes
    record: Record | None = None
    attempts: Sequence[Any] = ()
    opinion: float | None = None  # what its caller said of the answer, 0..1

    @property
    def answered(self) -> Model | None:
        """The row that answered, if one did."""
        record, snapshot = self.record, self.decision.snapshot
        if record is None or record.outcome != "ok" or record.model is None:
            return None
        for index in snapshot.by_id.get(record.model, ()):
            if snapshot.models[index].upstream == record.upstream:
                return snapshot.models[index]
        return None


class Decisions:
    """The newest decisions by id. An id tells whether it was ever given out by this process."""

    def __init__(self, told: Told) -> None:
        """`told` says what came of a decision, from its record and its attempts."""
        self._told = told
        self._boot = secrets.token_hex(4)
        self._kept: list[Kept | None] = [None] * KEPT
        self._last = 0

    def add(self, decision: Decision, tenant: bytes) -> Kept:
        """Keep a decision. What came of it is written into what is given back."""
        number = self._last = self._last + 1
        kept = self._kept[number % KEPT] = Kept(
            number, f"dec-{self._boot}-{number:x}", decision, tenant
        )
        return kept

    def _find(self, decision_id: str) -> Kept | None:
        prefix, _, digits = decision_id.rpartition("-")
        try:
            number = int(digits, 16) if prefix == f"dec-{self._boot}" else 0
        except ValueError:
            return None
        kept = self._kept[number % KEPT]
        return kept if kept is not None and kept.number == number else None

    def find(self, decision_id: str, tenant: bytes, param: str = "id") -> Kept:
        """A kept decision; raises a 404 that names `param` where it is not there, or not yours."""
        kept = self._find(decision_id)
        if kept is None or kept.tenant != tenant:
            raise self._absent(decision_id, param, known=kept is not None)
        return kept

    def explain(self, decision_id: str, tenant: bytes) -> dict[str, Any]:
        """The whole account of a decision; raises a 404 where it is not there, or not yours."""
        kept = self.find(decision_id, tenant)
        outcome = self._told(kept.record, kept.attempts) if kept.record is not None else None
        return {"id": decision_id, **explain(kept.decision), "outcome": outcome}

    def _absent(self, decision_id: str, param: str, known: bool) -> ApiError:
        prefix, _, number = decision_id.rpartition("-")
        try:
            given_out = prefix == f"dec-{self._boot}" and 0 < int(number, 16) <= self._last
        except ValueError:
            given_out = False
        if given_out and not known:
            return ApiError(
                404,
                "decision_expired",
                f"This decision is no longer kept; the last {KEPT} are.",
                param=param,
            )
        text = "There is no decision with this id."
        return ApiError(404, "decision_not_found", text, param=param)
