"""One request being answered, from its bytes to its record, by plain calls.

Nothing here waits: the executor, a flight or a cache tells when there is something to go on with.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from decimal import Decimal

import msgspec
from msgspec import Struct

from llmr.accounting import tag_of
from llmr.cache.flight import Flight, Reader
from llmr.cache.key import cache_key
from llmr.cache.memory import Entry
from llmr.cache.rules import NO_RULES, CacheRules, cache_rules, storable
from llmr.calls import call_for, include_usage
from llmr.core.body import Body
from llmr.core.conversation import HEADER, LONGEST_ID
from llmr.core.forms import events
from llmr.core.request import Request
from llmr.errors import ApiError, error_event, internal
from llmr.execution.executor import Run
from llmr.execution.types import Outcome
from llmr.gateway import Gateway
from llmr.ticket import AnswerSink, Ticket

log = logging.getLogger("llmr")


class Answering(Struct, eq=False):
    """A request in the hands of the gateway. The surface may pause, resume and cancel it.

    `write` takes the bytes of a stream; it is the sink's own.
    """

    _gateway: Gateway
    _ticket: Ticket
    _sink: AnswerSink
    write: Callable[[bytes], None]
    _body: Body | None = None
    _request: Request | None = None
    _run: Run | None = None
    _flight: Flight | None = None
    _reader: Reader | None = None
    _looking: asyncio.Task[None] | None = None
    _late: asyncio.TimerHandle | None = None
    _rules: CacheRules = NO_RULES
    _key: bytes = b""
    _asks: bool = False
    _began: bool = False
    _again: bool = False
    _over: bool = False

    def start(self, data: bytes, headers: Mapping[str, str]) -> None:
        """Decide, and answer. `sink.end` is called in the end, unless `cancel` is."""
        self._gateway.outbox.active += 1
        try:
            self._start(data, headers)
        except Exception as error:  # whatever it was, the caller is told and its slot comes free
            self._failed(error)

    def _start(self, data: bytes, headers: Mapping[str, str]) -> None:
        gateway, ticket = self._gateway, self._ticket
        ticket.headers = gateway.hops.onward(headers)
        if (
            (session := headers.get(HEADER, ""))
            and session.isascii()
            and len(session) <= LONGEST_ID
        ):
            ticket.headers = (*ticket.headers, (HEADER.encode(), session.encode()))
        ticket.tag = tag_of(headers)
        body = Body(data)
        request = self._request = gateway.request(body, headers, ticket.surface)
        ticket.decision = gateway.choose(request, ticket.tenant)
        ticket.decided = time.monotonic()
        ticket.kept = gateway.decisions.add(ticket.decision, ticket.tenant)
        rules = cache_rules(headers.get("cache-control"))
        if gateway.cacheable(body, rules, ticket.surface):
            self._cached(body, request, rules)
        else:
            self._direct(body, request)

    # --- for the surface ---

    def pause(self) -> None:
        """The sink has no room for more."""
        if self._reader is not None:
            self._reader.pause()
        elif self._run is not None:
            self._run.pause()

    def resume(self) -> None:
        """The sink has room again."""
        if self._reader is not None:
            self._reader.resume()
        elif self._run is not None:
            self._run.resume()

    def cancel(self, error: ApiError | None = None) -> None:
        """Nobody wants the answer any more: the caller left, or `error` is what it is told."""
        if not self._over:
            self._over = True
            self._stop()
            self._account(error, gone=error is None)

    # --- straight to an upstream ---

    def _direct(self, body: Body, request: Request) -> None:
        gateway, ticket = self._gateway, self._ticket
        assert ticket.decision is not None
        call = call_for(
            body,
            ticket.decision,
            gateway.executor.deadline(gateway.config.limits.total_s, request.deadline_ms),
            keep=False,
            headers=ticket.headers,
        )
        ticket.sent = time.monotonic()
        outcome = ticket.outcome = Outcome([])
        self._run = gateway.executor.start(call, self, outcome, self._answered)

    def begin(self, outcome: Outcome) -> None:
        """A streamed answer begins."""
        self._began = True
        self._ticket.outcome, self._ticket.model = outcome, outcome.model
        self._sink.begin(self._ticket)

    def _answered(self, outcome: Outcome) -> None:
        assert self._request is not None
        error = outcome.error
        try:
            if error is None and not self._request.stream:
                self._gateway.settle(self._ticket, outcome)
                self._sink.whole(self._ticket, outcome.body)
            self._finish(error)
        except Exception as fault:  # whatever it was, the caller is told and its slot comes free
            self._failed(fault)

    # --- by way of the cache ---

    def _cached(self, body: Body, request: Request, rules: CacheRules) -> None:
        gateway, ticket = self._gateway, self._ticket
        self._body, self._rules = body, rules
        self._asks = include_usage(body)
        self._key = cache_key(body, request, gateway.scope + ticket.tenant)
        if request.deadline_ms is not None:
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(request.deadline_ms / 1000.0, self._safely, self._too_late)
        if not rules.lookup:
            self._fly()
        elif gateway.shared is not None and gateway.shared.connected:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        else:
            self._looked(gateway.memory.get(self._key, time.monotonic()))

    async def _look(self) -> None:
        entry = await self._gateway.shared.get(self._key)
        self._looking = None
        if not self._over:
            self._safely(self._looked, entry)

    def _looked(self, entry: Entry | None) -> None:
        gateway, oldest = self._gateway, self._rules.max_age_s
        if entry is not None and oldest is not None and time.time() - entry.stored > oldest:
            entry = None
        if entry is None:
            gateway.misses += 1
            self._join()
        else:
            gateway.hits += 1
            self._hit(entry)

    def _hit(self, entry: Entry) -> None:
        ticket = self._ticket
        ticket.cache, ticket.accounts = "hit", False
        ticket.cache_age_s = max(0.0, time.time() - entry.stored)
        ticket.model = self._gateway.model_named(entry.model, entry.upstream)
        ticket.cost_usd, ticket.cost_source = Decimal(0), "cache"
        self._tell(entry.completion)
        self._finish(None)

    def _tell(self, completion: bytes) -> None:
        """Give the caller an answer that is whole already, in the form asked for."""
        assert self._request is not None
        if not self._request.stream:
            self._sink.whole(self._ticket, completion)
            return
        chunks = b"".join(events(msgspec.json.decode(completion), self._asks))
        self._began = True
        self._sink.begin(self._ticket)
        self.write(chunks)

    def _join(self) -> None:
        """Wait for the same answer as others do, or be the first to."""
        flight = self._gateway.flights.get(self._key)
        if flight is None:
            self._fly()
        else:
            self._ticket.cache = "joined"
            self._board(flight)

    def _board(self, flight: Flight) -> None:
        assert self._request is not None
        live = self._request.stream and flight.stream and self._asks == flight.include_usage
        self._flight = flight
        self._reader = flight.join(self, live)
        self._reader.begin()

    def _fly(self) -> None:
        """Make the call that others may wait for as well."""
        gateway, ticket, request, key = self._gateway, self._ticket, self._request, self._key
        assert ticket.decision is not None
        assert request is not None
        assert self._body is not None
        ticket.cache = "miss" if self._rules.lookup else "bypass"
        # A caller's deadline ends its own waiting, not the call, which others may wait for.
        call = call_for(
            self._body,
            ticket.decision,
            gateway.executor.deadline(gateway.config.limits.total_s, None),
            keep=True,
            headers=ticket.headers,
        )
        ticket.sent = time.monotonic()
        stores = self._rules.store

        def forget() -> None:
            if gateway.flights.get(key) is flight:
                del gateway.flights[key]

        def landed(outcome: Outcome) -> None:
            if stores and storable(outcome, call.decision):
                gateway.store(key, outcome)
            flight.land(outcome)

        flight = Flight(request.stream, call.include_usage, forget)
        if self._rules.lookup:
            gateway.flights[key] = flight
        self._board(flight)
        sink = flight if call.stream else None
        flight.run = gateway.executor.start(call, sink, flight.outcome, landed)

    def landed(self, outcome: Outcome, led: bool) -> None:
        """The call that was waited for is over."""
        self._safely(self._landed, outcome, led)

    def _landed(self, outcome: Outcome, led: bool) -> None:
        flight, ticket, error = self._flight, self._ticket, outcome.error
        assert flight is not None
        self._reader = self._flight = None
        if error is not None and error.retryable and not (led or self._again or self._began):
            # One of those who waited tries once more, and the others wait for it.
            self._again = True
            self._join()
            return
        ticket.accounts, flight.accounted = not flight.accounted, True
        self._gateway.settle(ticket, outcome)
        if error is None and not self._began:
            self._tell(outcome.body or msgspec.json.encode(outcome.completion))
        self._finish(error)

    def _too_late(self) -> None:
        """The caller's own deadline has passed; what began ends with an error event."""
        assert self._request is not None
        text = f"The answer did not come within the deadline of {self._request.deadline_ms:g} ms."
        error = ApiError(504, "deadline_exceeded", text, retryable=True)
        self._stop()
        if self._began:
            self.write(error_event(error))
        self._finish(error)

    # --- the end ---

    def _safely(self, step: Callable[..., None], *what: object) -> None:
        """Take a step that nobody above could answer for."""
        try:
            step(*what)
        except Exception as error:  # whatever it was, the caller is told and its slot comes free
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, ApiError):
            self._finish(error)
            return
        # A mistake of ours. Whoever called knows nothing of the request: unanswered here, it would
        # wait for ever and hold its slot.
        log.error("a request failed inside the router", exc_info=error)
        self._stop()
        if self._began:
            self.write(error_event(internal()))
        self._finish(internal())

    def _stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._reader is not None and self._flight is not None:
            if self._ticket.outcome is None and self._reader.alone:
                self._ticket.outcome = self._flight.outcome  # what was done was done for this one
            self._reader.leave()
        if self._run is not None:
            self._run.cancel()

    def _finish(self, error: ApiError | None) -> None:
        if self._over:
            return
        self._over = True
        self._account(error, gone=False)
        self._sink.end(self._ticket, None if self._began else error)

    def _account(self, error: ApiError | None, *, gone: bool) -> None:
        if self._late is not None:
            self._late.cancel()
        self._run = self._reader = self._flight = None
        self._gateway.outbox.active -= 1
        try:
            self._gateway.record(self._ticket, self._request, error, gone)
        except Exception:
            # The caller's answer does not depend on what is written down of it.
            log.exception("a request could not be put on record")
