"""What a caller says of an answer: read, checked against its decision, and learned from."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from llmr.core.catalogue import Snapshot
from llmr.core.quality.feedback import Feedback
from llmr.core.quality.kinds import KINDS
from llmr.errors import ApiError, bad_request
from llmr.observe.decisions import Kept

LABELS = {"good": 1.0, "up": 1.0, "positive": 1.0, "bad": 0.0, "down": 0.0, "negative": 0.0}


class Opinion(Struct):
    """The body of `POST /v1/feedback`: of which decision, and a score 0..1 or a label."""

    decision_id: str | None = None
    id: str | None = None
    score: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    label: str | None = None

    @property
    def of(self) -> str:
        """The id of the decision."""
        found = self.decision_id or self.id
        if not found:
            text = "Say which decision: 'decision_id' is the id in x-llmr-decision-id."
            raise bad_request("missing_decision", text, "decision_id")
        return found

    @property
    def worth(self) -> float:
        """The score, 0..1."""
        if self.score is not None and self.label is not None:
            text = "Say what the answer was worth once: by 'score' or by 'label', not by both."
            raise bad_request("two_scores", text, "label")
        if self.score is not None:
            return self.score
        if self.label is None:
            text = "Say what the answer was worth: 'score' from 0 to 1, or 'label'."
            raise bad_request("missing_score", text, "score")
        if self.label not in LABELS:
            text = f"'label' must be one of {', '.join(LABELS)}."
            raise bad_request("unknown_label", text, "label")
        return LABELS[self.label]


def opinion_in(data: bytes) -> Opinion:
    """The opinion in a body; a 400 that names the field where it is none."""
    try:
        return msgspec.json.decode(data, type=Opinion)
    except msgspec.ValidationError as error:
        _, found, place = str(error).rpartition("$.")
        field = place.strip("`'") if found else None
        text = "'score' must be a number from 0 to 1; 'decision_id' and 'label' are strings."
        raise bad_request("invalid_type", text, field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_request("invalid_json", "The body is not valid JSON.") from None


def learn(feedback: Feedback, kept: Kept, worth: float, now: float) -> dict[str, Any]:
    """Learn from what was said of a decision; a later word on the same one takes its place."""
    model = kept.answered
    if model is None:
        text = "This decision has no answer that could be judged: its request failed, or goes on."
        raise ApiError(409, "not_answered", text, param="decision_id")
    curve = kept.decision.request.curve
    kinds = () if curve is None else curve.kinds
    if kept.opinion is None:
        expected = model.quality.value if curve is None else curve.quality(model.shipped_skill)
        feedback.add(model.target, kinds, worth, expected, now)
    else:
        feedback.change(model.target, kinds, worth, kept.opinion, now)
    kept.opinion = worth
    kind = KINDS[kinds[0][0]] if kinds else None
    return {"id": kept.id, "model": model.id, "kind": kind, "score": worth}


def corrected(snapshot: Snapshot, feedback: Feedback, now: float) -> Snapshot:
    """The rows with what feedback says of them; the same snapshot where it says nothing."""
    shifts = {target: feedback.shift(target, now) for target in feedback.targets}
    if not shifts:
        return snapshot
    rows = tuple(
        replace(row, learned=shifts[row.target]) if row.target in shifts else row
        for row in snapshot.models
    )
    return replace(snapshot, models=rows)
