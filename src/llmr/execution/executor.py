"""The one executor: attempts, fallback, limits and the commit point, for every surface.

Before the first content reaches the caller a failure is unseen: the next target is tried. After it
there is no starting over: what is cut ends with an error event, never with a clean end.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from llmr.core import classify
from llmr.core.catalogue import Model
from llmr.core.chunks import ChunkStream
from llmr.core.classify import Failure
from llmr.core.decide import Decision
from llmr.core.forms import Assembler, events
from llmr.core.scoring import Terms
from llmr.core.sse import EventReader, EventTooLarge
from llmr.core.telemetry import Learner
from llmr.errors import ApiError
from llmr.execution.failures import completion_in, error_event, final, of_transport
from llmr.upstreams.base import ReadTimeout, Response, Send, TransportError, Upstream

CHAT = "/chat/completions"
ERROR_BODY_LIMIT = 256 * 1024
ANSWER_LIMIT = 64 * 1024 * 1024
AFTER_FINISH_S = (
    1.0  # a usage chunk may follow the finish; an answer that ended does not wait longer
)
DRAIN_S = 0.25
FIRST_EVENT_LEAST_S = 5.0
LONG_COOLDOWN_S = 300.0
WAITED_FOR = (classify.RATE_LIMITED, classify.OVERLOADED)
HEADERS = ((b"content-type", b"application/json"), (b"accept", b"*/*"))


class Limits(Struct, frozen=True):
    """Seconds, and sends per request. `first_event_s` None: worked out per model."""

    attempts: int = 3
    connect_s: float = 3.0
    first_event_s: float | None = None
    idle_s: float = 45.0
    total_s: float = 600.0
    retry_after_wait_s: float = 3.0


class Attempt(Struct):
    """One send to one target, as it is shown to callers and in the log."""

    model: str
    upstream: str
    started_ms: float
    outcome: str = "running"
    status: int | None = None
    message: str | None = None
    duration_ms: float | None = None


class Call(Struct, frozen=True):
    """One request to be answered: the decision, and the body in pieces around the model name."""

    decision: Decision
    pieces: tuple[bytes, ...]
    stream: bool
    include_usage: bool
    deadline: float
    keep: bool = False  # assemble a streamed answer, since somebody will want it whole


class Outcome(Struct):
    """What became of a call. `completion` is the whole answer where it was asked or kept."""

    attempts: list[Attempt]
    model: Model | None = None
    error: ApiError | None = None
    committed: bool = False
    body: bytes = b""
    completion: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    usage_estimated: bool = False
    finish: str | None = None
    ttft_s: float | None = None
    upstream_s: float = 0.0
    degraded: int = 0
    cooled: bool = False


class Sink(Protocol):
    """Where a streamed answer goes."""

    async def begin(self, outcome: Outcome) -> None:
        """The commit point: the answer of `outcome.model` starts."""

    async def write(self, data: bytes) -> None:
        """Some of its bytes. Returns when the caller has room for more."""


class Executor:
    """Runs calls against upstreams and tells the learner what it saw."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        learner: Learner,
        limits: Limits,
        secrets: Sequence[str] = (),
    ) -> None:
        """`secrets` are taken out of whatever an upstream says, should it repeat them."""
        self._upstreams = upstreams
        self._learner = learner
        self._limits = limits
        self._secrets = [secret for secret in secrets if secret]

    async def run(self, call: Call, sink: Sink | None, outcome: Outcome | None = None) -> Outcome:
        """Carry the call out. Failures end up in `outcome.error`, after the last attempt.

        A streamed answer goes to `sink`; where it breaks off after the commit point, `run` writes
        the error event itself. `outcome`, where given, is filled as the call goes on.
        """
        loop = asyncio.get_running_loop()
        outcome = outcome or Outcome([])
        begun = loop.time()
        failures: list[tuple[Model, Failure]] = []
        whole = False
        chain = list(dict.fromkeys(call.decision.chain))
        try:
            while chain and len(outcome.attempts) < self._limits.attempts:
                if loop.time() >= call.deadline:
                    break
                model = call.decision.snapshot.models[chain.pop(0)]
                failure = await _Run(self, call, sink, outcome, model, begun, bool(chain)).attempt()
                if failure is None:
                    whole = True
                    break
                failures.append((model, failure))
                if outcome.committed or not failure.kind.fallback:
                    break
                if (wait := self._worth_waiting(failure, call, chain, outcome)) is not None:
                    await asyncio.sleep(wait)
                    chain.insert(0, call.decision.snapshot.models.index(model))
                    continue
                if failure.kind is classify.CONTEXT:
                    chain = _larger(call.decision, chain, model)
        finally:
            outcome.upstream_s = loop.time() - begun
        if not whole:
            outcome.error = final(failures)
            if outcome.committed and sink is not None:
                await sink.write(error_event(outcome.error))
        return outcome

    def _worth_waiting(
        self, failure: Failure, call: Call, chain: list[int], outcome: Outcome
    ) -> float | None:
        """Seconds to wait for the same target, where it says how long and nothing else is better.

        Waited for are the only target left, and the first of a list, which is the caller's choice.
        """
        wait = failure.retry_after_s
        chosen = call.decision.request.mode == "list" and len(outcome.attempts) == 1
        if wait is None or (chain and not chosen) or failure.kind not in WAITED_FOR:
            return None
        fits = asyncio.get_running_loop().time() + wait < call.deadline
        return wait if fits and wait <= self._limits.retry_after_wait_s else None

    def note(self, model: Model, failure: Failure) -> None:
        """Let the health of a target, or of its account, know of a failure of its own."""
        kind, now = failure.kind, time.monotonic()
        if kind.cool == "account":
            self._learner.cool(model.upstream, kind.name, now, LONG_COOLDOWN_S)
        elif kind is classify.MISSING:
            self._learner.cool(model.target, kind.name, now, LONG_COOLDOWN_S)
        elif kind.cool == "target":
            key = model.target
            if model.free and "free-models" in failure.message:
                key = f"{model.upstream}:free"  # the allowance is the account's, not the model's
            self._learner.cool(key, kind.name, now, failure.retry_after_s or None)


class _Run:
    """One attempt."""

    def __init__(
        self,
        executor: Executor,
        call: Call,
        sink: Sink | None,
        outcome: Outcome,
        model: Model,
        begun: float,
        more: bool,
    ) -> None:
        self.executor = executor
        self.call = call
        self.sink = sink
        self.outcome = outcome
        self.model = model
        self.loop = asyncio.get_running_loop()
        self.begun = begun
        self.limits = executor._limits
        self.started = self.loop.time()
        self.first_until = self._first_until(more)

    async def attempt(self) -> Failure | None:
        """None where the answer is whole; else why it is not."""
        record = Attempt(
            self.model.id, self.model.upstream, round((self.started - self.begun) * 1000, 1)
        )
        self.outcome.attempts.append(record)
        if self.model.free:
            learner = self.executor._learner
            self.outcome.cooled |= learner.sent_free(self.model.upstream, time.monotonic())
        failure: Failure | None = None
        try:
            await self._exchange(record)
        except Failure as error:
            failure = error
        except TransportError as error:
            failure = of_transport(error, self.outcome.committed)
        except ReadTimeout:
            failure = Failure(classify.TIMEOUT, self._timeout_text())
        except EventTooLarge:
            failure = Failure(classify.INVALID, "one event of the stream is too large")
        except asyncio.CancelledError:
            record.outcome = "client_closed"
            raise
        finally:
            record.duration_ms = round((self.loop.time() - self.started) * 1000, 1)
        if failure is None:
            record.outcome = "ok"
            return None
        for secret in self.executor._secrets:
            failure.message = failure.message.replace(secret, "[redacted]")
        record.outcome = failure.kind.name
        record.message = failure.message
        record.status = failure.status or record.status
        self.executor.note(self.model, failure)
        self.outcome.cooled = True
        return failure

    # --- limits ---

    def _first_until(self, more: bool) -> float:
        """Until when the first content must have come, while another target is left to try."""
        if self.limits.first_event_s is not None:
            return min(self.started + self.limits.first_event_s, self.call.deadline)
        if not more:
            return self.call.deadline
        found = self._expected()
        wait = 3.0 * (found.ttft_s if self.call.stream else found.total_s)
        return min(self.started + max(FIRST_EVENT_LEAST_S, wait), self.call.deadline)

    def _expected(self) -> Terms:
        decision = self.call.decision
        return decision.look().terms(decision.snapshot.models.index(self.model))

    def _timeout_text(self) -> str:
        waited = self.loop.time() - self.started
        if self.outcome.committed:
            return f"nothing came for {self.limits.idle_s:g} s in the middle of the answer"
        return f"no answer began within {waited:.1f} s"

    # --- one exchange ---

    async def _exchange(self, record: Attempt) -> None:
        name = msgspec.json.encode(self.model.id)
        body = name.join(self.call.pieces) if len(self.call.pieces) > 1 else self.call.pieces[0]
        upstream = self.executor._upstreams[self.model.upstream]
        connect_until = min(self.started + self.limits.connect_s, self.call.deadline)
        response = await upstream.send(
            Send("POST", CHAT, body, HEADERS),
            connect_until=connect_until,
            until=self.first_until,
        )
        try:
            record.status = response.status
            kind = response.headers.get("content-type", "")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Failure(classify.INVALID, "the upstream sent an encoding nobody asked for")
            if not 200 <= response.status < 300:
                await self._refusal(response)
            if kind.startswith("text/event-stream"):
                await self._events(response)
            else:
                await self._whole(response)
        finally:
            response.close()

    async def _refusal(self, response: Response) -> None:
        if response.status < 400:
            raise Failure(
                classify.INVALID,
                f"the upstream answered with a redirect ({response.status}), which is not followed",
                status=response.status,
            )
        body = await self._body(response, ERROR_BODY_LIMIT, self.loop.time() + 10.0)
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

    async def _whole(self, response: Response) -> None:
        body = await self._body(response, ANSWER_LIMIT, self.first_until)
        completion = completion_in(body)
        self.outcome.ttft_s = self.loop.time() - self.begun
        usage = completion.get("usage")
        self._succeed(usage if isinstance(usage, dict) else None, completion)
        if self.call.stream and self.sink is not None:
            await self._commit()
            for event in events(completion, self.call.include_usage):
                await self.sink.write(event)
        else:
            self.outcome.body = body

    # --- streams ---

    async def _events(self, response: Response) -> None:
        reader = EventReader()
        stream = ChunkStream(self.call.include_usage)
        assembler = Assembler() if self.call.keep or not self.call.stream else None
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
            except ReadTimeout:
                if finished is None:
                    raise
                data = b""
            now = self.loop.time()
            out = []
            for event in reader.feed(data) if data else reader.flush():
                piece = stream.take(event)
                if event.data is not None:
                    alive = now  # comments show that the line lives, not that the answer grows
                if piece:
                    out.append(piece)
            if answer_began is None and stream.content_bytes:
                answer_began = now
            if stream.failure is not None:
                out.append(stream.abandon())
                if stream.committed and any(out):
                    await self._forward(held, out, assembler)
                raise stream.failure
            if stream.finished and finished is None:
                finished = now
            held += out
            if held and stream.committed:
                await self._forward(held, [], assembler)
            if stream.done or not data:
                break
        self.outcome.degraded = stream.degraded
        closing = stream.end(self.call.decision.request.prompt_tokens)
        await self._close(stream, closing, assembler, answer_began or finished)
        if stream.done:
            await self._drain(response)

    async def _forward(
        self, held: list[bytes], out: list[bytes], assembler: Assembler | None
    ) -> None:
        data = b"".join([*held, *out])
        held.clear()
        if assembler is not None:
            assembler.add(data)
        if self.call.stream and self.sink is not None:
            if not self.outcome.committed:
                self.outcome.ttft_s = self.loop.time() - self.begun
                await self._commit()
            await self.sink.write(data)

    async def _commit(self) -> None:
        self.outcome.committed = True
        self.outcome.model = self.model
        if self.sink is not None:
            await self.sink.begin(self.outcome)

    async def _close(
        self,
        stream: ChunkStream,
        closing: bytes,
        assembler: Assembler | None,
        answer_began: float | None,
    ) -> None:
        """A whole streamed answer: give the end to whoever waits for it."""
        completion = None
        if assembler is not None:
            assembler.add(closing)
            completion = assembler.completion()
            completion["usage"] = stream.usage
        took = self.loop.time() - (answer_began or self.started)
        tokens = (stream.usage or {}).get("completion_tokens") or 0
        self.outcome.usage_estimated = stream.usage_estimated
        self.outcome.finish = next(iter(stream.finishes.values()), None)
        if answer_began is not None:
            self.executor._learner.observe(
                self.model.target,
                answer_began - self.started,
                took / tokens if tokens > 8 and took > 0 else None,
            )
        self._succeed(stream.usage, completion)
        if self.call.stream and self.sink is not None:
            if not self.outcome.committed:
                await self._commit()
            await self.sink.write(closing)
        elif completion is not None:
            self.outcome.ttft_s = self.outcome.ttft_s or self.loop.time() - self.begun
            self.outcome.body = msgspec.json.encode(completion)

    def _succeed(self, usage: dict[str, Any] | None, completion: dict[str, Any] | None) -> None:
        self.outcome.model = self.model
        self.outcome.usage = usage
        self.outcome.completion = completion
        if completion is not None and self.outcome.finish is None:
            self.outcome.finish = completion["choices"][0].get("finish_reason")

    async def _drain(self, response: Response) -> None:
        """Let the body come to its end, so that the connection can be used again."""
        try:
            if await response.read(self.loop.time() + DRAIN_S):
                response.close()  # bytes after the end: not to be trusted with the next answer
        except (ReadTimeout, TransportError):
            response.close()


def _larger(decision: Decision, chain: list[int], model: Model) -> list[int]:
    """The targets left whose context window is larger than the one that was too small."""
    models = decision.snapshot.models
    least = model.context_length or 0  # unknown: any known window may be larger
    return [i for i in chain if (models[i].context_length or least + 1) > least]
