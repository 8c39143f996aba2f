"""A streamed answer as it is read: events to bytes for the caller, and when it is over."""

from collections.abc import Iterable

import msgspec

from llmr.core.catalogue import Model
from llmr.core.chunks import ChunkStream
from llmr.core.splice import Splice
from llmr.core.sse import Event, EventReader
from llmr.execution.delivery import Delivery
from llmr.execution.types import Attempt, Call, Limits

AFTER_FINISH_S = 1.0  # a usage chunk may follow; an answer that has its finish waits no longer


class Streamed:
    """One streamed answer of one target. Times are those of the loop's clock.

    `alive` is when the answer was last seen to grow, or could have been.
    """

    __slots__ = (
        "_call",
        "_chunks",
        "_delivery",
        "_event_bytes",
        "_finished_at",
        "_held",
        "_idle_s",
        "_model",
        "_reader",
        "_splice",
        "_started",
        "alive",
        "answer_began",
    )

    def __init__(
        self,
        call: Call,
        delivery: Delivery,
        model: Model,
        limits: Limits,
        splice: Splice | None,
        started: float,
    ) -> None:
        """`splice`: the answer goes on where another one broke off."""
        self._call = call
        self._delivery = delivery
        self._model = model
        self._splice = splice
        self._started = self.alive = started
        self._idle_s = limits.idle_s
        self._event_bytes = limits.event_bytes
        self._reader = EventReader(limits.event_bytes)
        self._chunks = ChunkStream(
            call.include_usage, call.decision.request.choices, limits.strict_events
        )
        self._held: list[bytes] = []
        self._finished_at: float | None = None
        self.answer_began: float | None = None

    @property
    def done(self) -> bool:
        """Whether its end was announced."""
        return self._chunks.done

    @property
    def finished(self) -> bool:
        """Whether every choice asked for has its finish: how the line ends matters no more."""
        return self._finished_at is not None

    def until(self, first_until: float, deadline: float) -> float:
        """Until when more has to come."""
        until = min(deadline, self.alive + self._idle_s)
        if not self._chunks.committed:
            until = min(until, first_until)
        if self._finished_at is not None:
            until = min(until, self._finished_at + AFTER_FINISH_S)
        return until

    def read(self, data: bytes, now: float) -> bool:
        """Take bytes of the stream; whether its end has come, or has come nearer.

        Raises `Failure` where the stream carries one.
        """
        chunks = self._chunks
        if (
            self._reader.between
            and self._splice is None
            and len(data) <= self._event_bytes
            and chunks.pass_on(data)
        ):
            self.alive = now
            self._delivery.send(data, self._model, chunks)
            return False
        events = self._reader.feed(data)
        for event in events:
            if event.data is not None:  # comments show that the line lives, not the answer
                self.alive = now
                break
        self.take(events)
        if self.answer_began is None and chunks.content_bytes:
            self.answer_began = now
        if chunks.finishing and self._finished_at is None and chunks.settled:
            self._finished_at = now
            return True
        return chunks.done

    def take(self, events: Iterable[Event]) -> None:
        """Give the caller what the events hold, once there is content."""
        chunks, held, splice = self._chunks, self._held, self._splice
        for event in events:
            found = splice.take(event) if splice is not None else event
            if found is not None and (piece := chunks.take(found)):
                held.append(piece)
        failure = chunks.failure
        if failure is not None:
            held.append(chunks.abandon())
        if held and chunks.committed:
            out = held[0] if len(held) == 1 else b"".join(held)
            held.clear()
            if out:
                self._delivery.send(out, self._model, chunks)
        if failure is not None:
            raise failure

    def end(self, now: float) -> None:
        """The body is at its end: raises `Failure` unless the answer is whole."""
        self.take(self._reader.flush())
        if self.answer_began is None and self._chunks.content_bytes:
            self.answer_began = now
        chunks, delivery = self._chunks, self._delivery
        outcome = delivery.outcome
        closing = chunks.end(self._call.decision.request.prompt_tokens)
        outcome.degraded += chunks.degraded
        outcome.ignored += chunks.ignored
        outcome.usage = chunks.usage
        outcome.finish = next(iter(chunks.finishes.values()), None)
        delivery.send(closing, self._model, chunks)
        outcome.model = self._model
        if delivery.assembler is not None:
            outcome.completion = {**delivery.assembler.completion(), "usage": chunks.usage}
        if not delivery.wanted:
            outcome.body = msgspec.json.encode(outcome.completion)

    def billed(self, attempt: Attempt) -> None:
        """Write down what an attempt is to be billed by, however far it came."""
        chunks = self._chunks
        attempt.received = chunks.content_bytes + chunks.thought_bytes
        attempt.usage, attempt.estimated = chunks.usage, chunks.usage_estimated
        if chunks.usage is None and attempt.received:
            tokens = self._call.decision.request.prompt_tokens
            attempt.usage, attempt.estimated = chunks.estimated_usage(tokens), True

    def observed(self, now: float) -> tuple[float, float | None]:
        """(seconds to the first content, seconds per token after it) of a whole answer."""
        began = self.answer_began if self.answer_began is not None else now
        took = now - began
        tokens = (self._chunks.usage or {}).get("completion_tokens") or 0
        return began - self._started, took / tokens if tokens > 8 and took > 0 else None
