"""One attempt: one send to one target, its limits, and the reading of its answer."""

import asyncio
import time

import msgspec

from llmr.core import classify
from llmr.core.catalogue import Model
from llmr.core.chunks import ChunkStream
from llmr.core.classify import Failure
from llmr.core.forms import events
from llmr.core.learner import Learner
from llmr.core.splice import Departed, Splice
from llmr.core.sse import Event, EventReader, EventTooLarge
from llmr.execution.delivery import Delivery
from llmr.execution.failures import completion_in, of_transport
from llmr.execution.types import Attempt, Call, Limits
from llmr.upstreams.base import ReadTimeout, Response, Send, TransportError, Upstream

CHAT = "/chat/completions"
ERROR_BODY_LIMIT = 256 * 1024
ERROR_BODY_S = 10.0
ANSWER_LIMIT = 64 * 1024 * 1024
AFTER_FINISH_S = 1.0  # a usage chunk may follow; an answer that has its finish waits no longer
DRAIN_S = 0.25
FIRST_LEAST_S, FIRST_MOST_S = 5.0, 30.0
LONG_ANSWER_TOKENS = 4096
SHARE = 0.6  # of the time left, while another target could still use the rest
HEADERS = ((b"content-type", b"application/json"), (b"accept", b"*/*"))


class Exchange:
    """Sends one request to one target and reads its answer into the delivery."""

    def __init__(
        self,
        call: Call,
        delivery: Delivery,
        index: int,
        upstream: Upstream,
        limits: Limits,
        learner: Learner,
    ) -> None:
        """`index` is the row of the decision's snapshot that is tried."""
        self.call = call
        self.delivery = delivery
        self.outcome = delivery.outcome
        self.index = index
        self.model: Model = call.decision.snapshot.models[index]
        self.upstream = upstream
        self.limits = limits
        self.learner = learner
        self.loop = asyncio.get_running_loop()
        self.started = self.loop.time()
        self.first_until = call.deadline

    async def run(
        self, record: Attempt, pieces: tuple[bytes, ...], more: bool, splice: Splice | None
    ) -> Failure | None:
        """None where the answer is whole; else why it is not. `more`: another target is left."""
        self.first_until = self._first_until(more)
        failure: Failure | None = None
        try:
            await self._exchange(record, pieces, splice)
        except Failure as error:
            failure = error
        except TransportError as error:
            failure = of_transport(error, self.outcome.committed)
        except ReadTimeout:
            failure = Failure(classify.TIMEOUT, self._timeout_text())
        except EventTooLarge:
            failure = Failure(classify.INVALID, "one event of the stream is too large")
        except Departed:
            failure = Failure(classify.DEPARTED, "the second answer differs from the first")
        finally:
            record.duration_ms = round((self.loop.time() - self.started) * 1000, 1)
        return failure

    def _first_until(self, more: bool) -> float:
        """Until when the first content must have come; only while another target is left to try."""
        deadline = self.call.deadline
        if not more and self.limits.first_event_s is None:
            return deadline
        wait = self.limits.first_event_s
        decision, index = self.call.decision, self.index
        if wait is None:
            expected = decision.look().terms(index).ttft_s
            # The effort asked for lengthens the usual and the late first token alike.
            late = decision.telemetry.slow_s[index] * expected / decision.telemetry.ttft_s[index]
            wait = min(max(3.0 * late, FIRST_LEAST_S), FIRST_MOST_S)
            wait = max(wait, 3.0 * expected)
        if not self.call.stream:
            # A whole answer shows nothing before its end: it gets the time to write all it may.
            most = decision.request.max_tokens or self.model.max_output or LONG_ANSWER_TOKENS
            most = min(most, LONG_ANSWER_TOKENS) * decision.request.choices
            wait += 2.0 * most * decision.telemetry.tpot_s[index]
        if more and self.limits.first_event_s is None:
            wait = min(wait, SHARE * (deadline - self.started))
        return min(self.started + wait, deadline)

    def _timeout_text(self) -> str:
        if self.outcome.committed:
            return f"nothing came for {self.limits.idle_s:g} s in the middle of the answer"
        return f"no answer began within {self.loop.time() - self.started:.1f} s"

    async def _exchange(
        self, record: Attempt, pieces: tuple[bytes, ...], splice: Splice | None
    ) -> None:
        name = msgspec.json.encode(self.call.decision.name_of(self.index))
        body = name.join(pieces) if len(pieces) > 1 else pieces[0]
        response = await self.upstream.send(
            Send("POST", CHAT, body, HEADERS),
            connect_until=min(self.started + self.limits.connect_s, self.call.deadline),
            until=self.first_until,
        )
        try:
            record.status = response.status
            if not 200 <= response.status < 300:
                await self._refusal(response)
            elif response.headers.get("content-type", "").startswith("text/event-stream"):
                await self._events(response, splice)
            else:
                await self._whole(response, splice)
        finally:
            response.close()

    async def _refusal(self, response: Response) -> None:
        if response.status < 400:
            text = (
                f"the upstream answered with a redirect ({response.status}), which is not followed"
            )
            raise Failure(classify.INVALID, text, status=response.status)
        try:
            body = await self._body(response, ERROR_BODY_LIMIT, self.loop.time() + ERROR_BODY_S)
        except (TransportError, ReadTimeout):
            body = b""  # the status says enough
        raise classify.from_reply(response.status, response.headers, body, time.time())

    async def _body(self, response: Response, limit: int, until: float) -> bytes:
        pieces, size = [], 0
        while data := await response.read(min(until, self.call.deadline)):
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise Failure(classify.INVALID, "the upstream's answer is too large")
        return b"".join(pieces)

    # --- whole answers ---

    async def _whole(self, response: Response, splice: Splice | None) -> None:
        body = await self._body(response, ANSWER_LIMIT, self.first_until)
        completion = completion_in(body)
        usage = completion.get("usage")
        if splice is not None:
            await self._splice_whole(completion, splice)
            return
        self.outcome.usage = usage if isinstance(usage, dict) else None
        self._succeed()
        self._observe_whole()
        self.outcome.completion = completion
        self.outcome.finish = completion["choices"][0].get("finish_reason")
        if self.delivery.wanted:
            await self.delivery.commit(self.model)
            await self.delivery.write(list(events(completion, self.call.include_usage)))
        else:
            self.outcome.body = body

    async def _splice_whole(self, completion: dict[str, object], splice: Splice) -> None:
        stream = ChunkStream(self.call.include_usage)
        for line in events(completion, include_usage=True):
            event = splice.take(Event(line, line[6:-2]))
            piece = stream.take(event) if event is not None else b""
            if piece:
                await self.delivery.send(piece, self.model, stream)
        await self._end(stream, None)

    def _succeed(self) -> None:
        self.outcome.model = self.model

    # --- streams ---

    async def _events(self, response: Response, splice: Splice | None) -> None:
        reader = EventReader()
        stream = ChunkStream(self.call.include_usage, self.call.decision.request.choices)
        size = 0
        held: list[bytes] = []
        alive = self.loop.time()
        finished: float | None = None
        answer_began: float | None = None
        while True:
            until = min(self.call.deadline, alive + self.limits.idle_s)
            if not stream.committed:
                until = min(until, self.first_until)
            if finished is not None:
                until = min(until, finished + AFTER_FINISH_S)
            try:
                data = await response.read(until)
            except (ReadTimeout, TransportError):
                if finished is None:
                    raise
                data = b""  # the answer has its finish: how the line ends takes nothing from it
            now = self.loop.time()
            size += len(data)
            if size > ANSWER_LIMIT:
                raise Failure(classify.INVALID, "the upstream's answer is too large")
            for event in reader.feed(data) if data else reader.flush():
                if event.data is not None:
                    alive = now  # comments show that the line lives, not that the answer grows
                found = splice.take(event) if splice is not None else event
                if found is not None and (piece := stream.take(found)):
                    held.append(piece)
            if stream.failure is not None:
                held.append(stream.abandon())
            if answer_began is None and stream.content_bytes:
                answer_began = now
            if held and stream.committed:
                out = b"".join(held)
                held.clear()
                if out:
                    await self.delivery.send(out, self.model, stream)
            if stream.failure is not None:
                raise stream.failure
            if stream.settled and finished is None:
                finished = now
            if stream.done or not data:
                break
        await self._end(stream, answer_began)
        if stream.done:
            await self._drain(response)

    async def _end(self, stream: ChunkStream, answer_began: float | None) -> None:
        """A whole streamed answer: give the end to whoever waits for it."""
        outcome, delivery = self.outcome, self.delivery
        closing = stream.end(self.call.decision.request.prompt_tokens)
        outcome.degraded += stream.degraded
        outcome.usage = stream.usage
        outcome.usage_estimated = stream.usage_estimated
        outcome.finish = next(iter(stream.finishes.values()), None)
        if answer_began is not None:
            self._observe(stream, answer_began)
        await delivery.send(closing, self.model, stream)
        self._succeed()
        if delivery.assembler is not None:
            outcome.completion = {**delivery.assembler.completion(), "usage": stream.usage}
        if not delivery.wanted:
            outcome.body = msgspec.json.encode(outcome.completion)

    def _observe(self, stream: ChunkStream, answer_began: float) -> None:
        took = self.loop.time() - answer_began
        tokens = (stream.usage or {}).get("completion_tokens") or 0
        self.learner.observe(
            self.model,
            answer_began - self.started,
            took / tokens if tokens > 8 and took > 0 else None,
        )

    def _observe_whole(self) -> None:
        """A whole answer tells how long its tokens took, the first token as expected."""
        tokens = (self.outcome.usage or {}).get("completion_tokens")
        if isinstance(tokens, int) and tokens > 8:
            first = self.call.decision.telemetry.ttft_s[self.index]
            took = self.loop.time() - self.started - first
            self.learner.observe(self.model, None, took / tokens if took > 0 else None)

    async def _drain(self, response: Response) -> None:
        """Let the body come to its end, so that the connection can be used again."""
        try:
            if await response.read(self.loop.time() + DRAIN_S):
                response.close()  # bytes after the end: not to be trusted with the next answer
        except (ReadTimeout, TransportError):
            response.close()
