"""One attempt: one send to one target, its limits, and the reading of its answer.

Plain calls, no task and no future: the line tells what came, one timer tells what did not.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
from msgspec import Struct

from llmr.core import classify
from llmr.core.body import Pieces
from llmr.core.catalogue import Model
from llmr.core.chunks import believable
from llmr.core.classify import Failure
from llmr.core.forms import events
from llmr.core.hedging import LATE_SHARE
from llmr.core.learner import Learner
from llmr.core.retry_after import headroom
from llmr.core.splice import Departed, Splice
from llmr.core.sse import Event, EventTooLarge
from llmr.execution.delivery import Delivery
from llmr.execution.failures import of_transport, whole_in
from llmr.execution.streamed import Streamed
from llmr.execution.types import Attempt, Call, Limits
from llmr.upstreams.base import Line, Send, TransportError, Upstream
from llmr.upstreams.reading import text
from llmr.watch import Timer, Watch

log = logging.getLogger("llmr")
_encode = msgspec.json.encode

CHAT = "/chat/completions"
GENERATION = b"x-generation-id"
LONGEST_NAME = 128
ERROR_BODY_LIMIT = 256 * 1024
ERROR_BODY_S = 10.0
ANSWER_LIMIT = 64 * 1024 * 1024
REST_S = 0.25  # so long the end of a body may follow the end of its answer
FIRST_LEAST_S, FIRST_MOST_S = 5.0, 30.0
LONG_ANSWER_TOKENS = 4096
LEAST_LATE_S = 0.05
SHARE = 0.6  # of the time left, while another target could still use the rest

Done = Callable[["Trial", Failure | Exception | None], None]
Then = Callable[[int, Failure | None], None]


class Trial(Struct, eq=False):
    """Sends one request to one target and reads its answer into the delivery.

    `index` is the row of the decision's snapshot that is tried, `record` how it is shown. `splice`:
    the answer goes on where another one broke off. `done` is told once: None where the answer is
    whole, why it is not, or a fault of our own; `then` is what it goes on with.
    """

    _call: Call
    _delivery: Delivery
    index: int
    model: Model
    _limits: Limits
    _learner: Learner
    _watch: Watch
    record: Attempt
    splice: Splice | None
    _done: Done
    then: Then
    _started: float  # on the loop's clock
    _first_until: float | None = None  # worked out when it may matter
    _more: bool = False
    _paused: bool = False
    _line: Line | None = None
    _timer: Timer | None = None
    _armed: float = 0.0
    _streamed: Streamed | None = None
    _bad: tuple[int, Mapping[bytes, bytes]] | None = None  # the head of a refusal
    _pieces: list[bytes] | None = None
    _size: int = 0
    _over: bool = False
    _flying: int = 0

    def start(self, upstream: Upstream, pieces: Pieces, more: bool) -> None:
        """Send. `more`: another target is left."""
        self._more = more
        call, limits, started = self._call, self._limits, self._started
        name = call.decision.name_of(self.index)
        if len(pieces) > 1:  # the name belongs between them
            pieces = (pieces[0], _encode(name), *pieces[1:])
        left = call.deadline - started
        self._flying = self._learner.sent(self.model)
        self._line = upstream.start(
            Send("POST", CHAT, pieces, call.headers), self, min(limits.connect_s, left)
        )
        # No limit is nearer than this: what it is need not be known before.
        first = limits.first_event_of(self.model.id)
        self._wait(min(FIRST_LEAST_S if first is None else first, SHARE * left))

    def close(self) -> None:
        """Give it up; nobody is told."""
        if not self._over:
            self._end()
            self._write_down()
            self._waited_in_vain()

    def pause(self) -> None:
        """The caller is behind: read no more for now."""
        self._paused = True
        if self._line is not None:
            self._line.pause()

    def resume(self) -> None:
        self._paused = False
        if self._line is not None:
            self._line.resume()
        if self._streamed is not None:
            self._streamed.alive = self._delivery.loop.time()
        self._hasten(self._until())

    # --- limits ---

    def _until_first(self) -> float:
        """Until when the first content must have come; only while another target is left to try."""
        deadline = self._call.deadline
        wait = given = self._limits.first_event_of(self.model.id)
        if given is None and not self._more:
            return deadline
        decision, index = self._call.decision, self.index
        telemetry, request = decision.telemetry, decision.request
        if wait is None:
            expected = decision.expected_s(index)
            # The effort asked for lengthens the usual and the late first token alike.
            late = telemetry.slow_s[index] * expected / telemetry.ttft_s[index]
            wait = max(min(max(3.0 * late, FIRST_LEAST_S), FIRST_MOST_S), 3.0 * expected)
        if not self._call.stream:
            # A whole answer shows nothing before its end: it gets the time to write all it may.
            most = request.max_tokens or self.model.max_output or LONG_ANSWER_TOKENS
            most = min(most, LONG_ANSWER_TOKENS) * request.choices
            wait += 2.0 * most * telemetry.whole_tpot_s[index]
        if given is None:
            wait = min(wait, SHARE * (deadline - self._started))
        return min(self._started + wait, deadline)

    def late_s(self) -> float:
        """Seconds after which the first content is later than nine times in ten."""
        decision, index = self._call.decision, self.index
        telemetry, expected = decision.telemetry, decision.expected_s(index)
        late: float = (telemetry.slow_s[index] / telemetry.ttft_s[index]) ** LATE_SHARE
        return max(expected * late, LEAST_LATE_S)

    def _until(self) -> float:
        """The instant at which the attempt has waited too long, as things stand."""
        if self._paused:
            return self._call.deadline  # it is the caller who is late
        if self._first_until is None:
            self._first_until = self._until_first()
        if self._streamed is None:
            return self._first_until
        return self._streamed.until(self._first_until, self._call.deadline)

    def tick(self) -> None:
        """Time has passed: is it too late?"""
        until, now = self._until(), self._delivery.loop.time()
        if until > now:
            self._arm(until)
        elif self._bad is not None:
            self._refused(b"")  # the status says enough
        elif self._streamed is not None and self._streamed.finished:
            self._guarded(self._stream_ended)
        else:
            self._waited_in_vain()
            self._finish(self._timeout(now))

    def _timeout(self, now: float) -> Failure:
        """Whose limit it was: the upstream's, or the caller's own."""
        own = self._paused or self._call.decision.request.deadline_ms is not None
        if own and now >= self._call.deadline:
            return Failure(classify.DEADLINE, "the answer was not whole within the deadline")
        return Failure(classify.TIMEOUT, self._timeout_text())

    def _waited_in_vain(self) -> None:
        """Nobody waits any longer: how long it took without a first token tells something."""
        began = self._streamed is not None and self._streamed.answer_began is not None
        if self._call.stream and not began and self._bad is None and not self._paused:
            now = self._delivery.loop.time()
            effort = self._call.decision.request.effort
            self._learner.waited(self.model, now - self._started, now, effort)

    def _timeout_text(self) -> str:
        if self._delivery.outcome.committed:
            return f"nothing came for {self._limits.idle_s:g} s in the middle of the answer"
        return f"no answer began within {self._delivery.loop.time() - self._started:.1f} s"

    def _wait(self, seconds: float) -> None:
        """Look at the limits again so long after the start; an answer that came is over then."""
        self._armed = self._started + seconds
        self._timer = self._watch.after(seconds, self._started, self.tick)

    def _arm(self, until: float) -> None:
        self._armed = until
        now = self._delivery.loop.time()
        self._timer = self._watch.within(until - now, now, self.tick)

    def _hasten(self, until: float) -> None:
        """A limit may have come nearer than the timer."""
        if until < self._armed:
            self._stop_timer()
            self._arm(until)

    # --- Receiver ---

    def whole(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> None:
        if status == 200 and len(body) <= ANSWER_LIMIT and not _is_stream(headers):
            self.record.status = status
            self._named(headers)
            self._guarded(self._whole, body)
            return
        for step in (partial(self.head, status, headers), partial(self.data, body), self.ended):
            if not self._over:
                step()

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self.record.status = status
        self._named(headers)
        if status < 200 or status >= 300:
            if status < 400:
                words = f"the upstream answered with a redirect ({status}), which is not followed"
                self._finish(Failure(classify.INVALID, words, status=status))
                return
            self._bad = status, headers
            self._first_until = min(self._delivery.loop.time() + ERROR_BODY_S, self._call.deadline)
            self._hasten(self._first_until)
        elif _is_stream(headers):
            self._streamed = Streamed(
                self._call, self._delivery, self.model, self._limits, self.splice, self._started
            )
            self._streamed.alive = now = self._delivery.loop.time()
            self._hasten(now + self._limits.idle_s)

    def _named(self, headers: Mapping[bytes, bytes]) -> None:
        """Keep the name of this answer, under which its price can be asked for, and headroom."""
        if b"x-ratelimit-remaining-requests" in headers:
            asked = self._call.decision.request
            found = headroom(headers, asked.prompt_tokens + asked.output_tokens)
            if found is not None:
                self._learner.headroom(self.model, *found, self._delivery.loop.time())
        name = headers.get(GENERATION)
        if name is not None and len(name) <= LONGEST_NAME and name.isascii():
            self.record.generation = name.decode()

    def data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > (ERROR_BODY_LIMIT if self._bad is not None else ANSWER_LIMIT):
            self._finish(Failure(classify.INVALID, "the upstream's answer is too large"))
        elif self._streamed is not None:
            try:
                if self._streamed.read(data, self._delivery.loop.time()):
                    self._stream_moved(self._streamed)
            except Exception as error:
                self._wrong(error)
        else:
            if self._pieces is None:
                self._pieces = []
            self._pieces.append(data)

    def ended(self) -> None:
        if self._streamed is not None:
            self._guarded(self._stream_ended)
            return
        pieces = self._pieces or ()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._bad is not None:
            self._refused(body)
        else:
            self._guarded(self._whole, body)

    def failed(self, error: TransportError) -> None:
        if self._bad is not None:
            self._refused(b"")
        elif self._streamed is not None and self._streamed.finished:
            # The answer has its finish: how the line ends takes nothing from it.
            self._guarded(self._stream_ended)
        else:
            self._finish(of_transport(error, self._delivery.outcome.committed))

    # --- what came ---

    def _guarded(self, take: Callable[..., None], *what: bytes) -> None:
        """Take what came; what is wrong with it ends the attempt."""
        try:
            take(*what)
        except Exception as error:
            self._wrong(error)

    def _wrong(self, error: Exception) -> None:
        """What was raised while something that came was taken. To be called where it is handled."""
        if isinstance(error, Failure):
            self._finish(error)
        elif isinstance(error, EventTooLarge):
            self._finish(Failure(classify.INVALID, "one event of the stream is too large"))
        elif isinstance(error, Departed):
            text = "the second answer differs from the first"
            self._finish(Failure(classify.DEPARTED, text))
        elif self._over:
            raise error  # not of this attempt, which has told its end
        else:
            # Ours, not the upstream's: it must neither be tried again nor cool anybody down.
            log.error("an attempt failed inside the router", exc_info=error)
            self._finish(error)

    def _refused(self, body: bytes) -> None:
        assert self._bad is not None
        status, headers = self._bad
        self._finish(classify.from_reply(status, text(headers), body, time.time()))

    def _whole(self, body: bytes) -> None:
        answer = whole_in(body)
        outcome, delivery = self._delivery.outcome, self._delivery
        if self.splice is not None:
            self._streamed = Streamed(
                self._call, delivery, self.model, self._limits, self.splice, self._started
            )
            for line in events(msgspec.json.decode(body), include_usage=True):
                self._streamed.take([Event(line, line[6:-2])])
            self._stream_ended()
            return
        outcome.usage = self.record.usage = answer.usage if believable(answer.usage) else None
        outcome.model = self.model
        outcome.finish = answer.choices[0].finish_reason
        outcome.body = body
        self._observe_whole()
        if delivery.wanted:
            delivery.commit(self.model)
            delivery.write(list(events(msgspec.json.decode(body), self._call.include_usage)))
        self._finish(None)

    def _stream_moved(self, streamed: Streamed) -> None:
        """The end of the stream has come, or come nearer."""
        if streamed.done:
            self._stream_ended()
        else:
            self._hasten(self._until())

    def _stream_ended(self) -> None:
        streamed = self._streamed
        assert streamed is not None
        now = self._delivery.loop.time()
        streamed.end(now)
        if streamed.answer_began is not None:
            first, rate = streamed.observed(now)
            effort = self._call.decision.request.effort
            self._learner.observe(self.model, first, rate, now, effort=effort, flying=self._flying)
        if self._line is not None:
            self._line.leave(REST_S)  # or the connection could not be used again
        self._finish(None)

    def _observe_whole(self) -> None:
        """A whole answer tells how long its tokens took, the first token as expected."""
        usage = self._delivery.outcome.usage
        tokens = usage.get("completion_tokens") if usage else None
        if isinstance(tokens, int) and tokens > 8:
            first = self._call.decision.expected_s(self.index)
            now = self._delivery.loop.time()
            took = now - self._started - first
            rate = took / tokens if took > 0 else None
            self._learner.observe(self.model, None, rate, now, whole=True, flying=self._flying)

    # --- the end ---

    def _finish(self, how: Failure | Exception | None) -> None:
        if self._over:
            return
        if how is None:
            self._over = True
            self._learner.over(self.model)
            self._stop_timer()
            self._line = None
        else:
            self._end()
        self._write_down()
        self._done(self, how)

    def _write_down(self) -> None:
        record = self.record
        record.duration_ms = round((self._delivery.loop.time() - self._started) * 1000, 1)
        if self._streamed is not None:
            self._streamed.billed(record)

    def _end(self) -> None:
        self._over = True
        self._learner.over(self.model)
        self._stop_timer()
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_stream(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").lower().startswith(b"text/event-stream")
