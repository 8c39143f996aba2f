"""The last decisions with their inputs, so that each can be worked out again when asked for."""

import itertools
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmr.core.decide import Decision
from llmr.core.explain import explain
from llmr.core.telemetry import Telemetry
from llmr.errors import ApiError

KEPT = 1000


class Kept(Struct):
    """A decision, whose it is, and how to tell what came of it."""

    decision: Decision
    tenant: bytes
    outcome: Callable[[], dict[str, Any]] | None = None


class Decisions:
    """The newest decisions by id. An id tells whether it was ever given out by this process."""

    def __init__(self) -> None:
        self._boot = secrets.token_hex(4)
        self._counter = itertools.count(1)
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._last = 0
        self._bare: Telemetry | None = None
        self._of: Telemetry | None = None

    def add(self, decision: Decision, tenant: bytes) -> str:
        """Keep a decision and give it its id."""
        self._last = next(self._counter)
        decision_id = f"dec-{self._boot}-{self._last:x}"
        self._kept[decision_id] = Kept(self._without_memory(decision), tenant)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return decision_id

    def _without_memory(self, decision: Decision) -> Decision:
        """The decision without the rankings and columns kept beside its telemetry: large ones."""
        telemetry = decision.telemetry
        if self._bare is None or telemetry is not self._of:
            self._of, self._bare = telemetry, replace(telemetry, memo={}, columns={})
        return Decision(
            decision.chain,
            decision.first,
            decision.ranking,
            decision.request,
            decision.snapshot,
            self._bare,
            decision.policy,
            decision.now,
        )

    def close(self, decision_id: str, outcome: Callable[[], dict[str, Any]]) -> None:
        """Add how to tell what came of a decision."""
        kept = self._kept.get(decision_id)
        if kept is not None:
            kept.outcome = outcome

    def explain(self, decision_id: str, tenant: bytes) -> dict[str, Any]:
        """The whole account of a decision; raises a 404 where it is not there, or not yours."""
        kept = self._kept.get(decision_id)
        if kept is None or kept.tenant != tenant:
            raise self._absent(decision_id, known=kept is not None)
        outcome = kept.outcome() if kept.outcome is not None else None
        return {"id": decision_id, **explain(kept.decision), "outcome": outcome}

    def _absent(self, decision_id: str, known: bool) -> ApiError:
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
                param="id",
            )
        return ApiError(404, "decision_not_found", "There is no decision with this id.", param="id")
