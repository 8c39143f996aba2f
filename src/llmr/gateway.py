"""The gateway: one request from its bytes to its record, for the server and the library alike.

It wires the pure core to the edges and owns every task that is not a caller's own.
"""

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import replace

from llmr import __version__, accounting
from llmr.cache.flight import Flight
from llmr.cache.key import cache_key, deterministic
from llmr.cache.memory import Entry, Memory
from llmr.cache.rules import CacheRules, cache_rules, storable
from llmr.calls import Direct, call_for, include_usage, within
from llmr.config import Config
from llmr.core.body import Body
from llmr.core.catalogue import Model, Snapshot
from llmr.core.decide import Decision, Now, Policy, decide
from llmr.core.forms import events
from llmr.core.learner import Learner
from llmr.core.request import Request, normalised, parse
from llmr.errors import ApiError
from llmr.execution.executor import Executor
from llmr.execution.types import Limits, Outcome
from llmr.observe.decisions import Decisions
from llmr.observe.window import Window
from llmr.refresh import Refresh, Source
from llmr.ticket import AnswerSink, Ticket
from llmr.upstreams.http import Origin
from llmr.wiring import origin

log = logging.getLogger("llmr")

PUBLISH_S = 1.0
RESTART_S = (0.1, 1.0, 5.0, 30.0)  # between the starts of a background loop that fails


class Gateway:
    """Everything a running router is. Build it, `start` it, `answer` requests, `close` it."""

    def __init__(
        self,
        config: Config,
        *,
        sandbox: bool = False,
        assume_keys: bool = False,
        learner: Learner | None = None,
    ) -> None:
        """`assume_keys`: decide as if every upstream had its key, for plans that send nothing.
        `learner`: what an earlier gateway has learned."""
        self.config = config
        self.sandbox = sandbox
        self.started = time.monotonic()
        self._origins: dict[str, Origin] = {}
        self.sources: dict[str, Source] = {}
        for name, upstream in config.upstreams.items():
            if upstream is not None:
                self._origins[name] = origin(name, upstream)
                self.sources[name] = Source(name, upstream, self._origins[name])
        self._refresh = Refresh(self.sources, self._publish_snapshot)
        self.learner = learner or Learner(random.Random().random)
        self.snapshot = self._refresh.snapshot()
        self.telemetry = self.learner.publish(self.snapshot, time.monotonic())
        weights = config.routing.default_weights
        self._balanced = normalised(msgspec.to_builtins(weights))
        usable = frozenset(n for n, s in self.sources.items() if assume_keys or not s.missing_key)
        self.policy = Policy(usable, config.routing.fallback_models, config.limits.attempts)
        limits = config.limits
        self.executor = Executor(
            self._origins,
            self.learner,
            Limits(
                limits.attempts,
                limits.connect_s,
                limits.first_event_s,
                limits.idle_s,
                limits.total_s,
                limits.retry_after_wait_s,
                limits.continuation,
            ),
            [u.api_key for u in config.upstreams.values() if u is not None and u.api_key],
        )
        self.memory = Memory(int(config.cache.max_mb * 1024 * 1024), config.redis.ttl_seconds)
        self.shared: Any = None
        if config.redis.address is not None:
            from llmr.cache.shared import Shared

            self.shared = Shared(config.redis.address, config.redis.ttl_seconds)
        self._flights: dict[bytes, Flight] = {}
        # Answers of other upstreams under the same names, or simulated ones, are other answers.
        places = sorted((n, u.base_url) for n, u in config.upstreams.items() if u is not None)
        self._scope = hashlib.blake2b(
            msgspec.json.encode((sandbox, places)), digest_size=8
        ).digest()
        self.hits = self.misses = 0
        self.decisions = Decisions()
        self.window = Window()
        self.observers: list[Any] = [self.window.add]
        self.in_flight = 0
        self.draining = False
        self.restarts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- life ---

    async def start(self, first_look_s: float = 0.0) -> None:
        """Start the background work; wait up to `first_look_s` for the upstreams' catalogues."""
        if first_look_s > 0:
            try:
                async with asyncio.timeout(first_look_s):
                    await self._refresh.once()
            except TimeoutError:
                log.info("the first look at the catalogues takes long; going on with what is there")
        self._spawn("refresh", self._refresh.run)
        self._spawn("publish", self._publish_loop)
        if self.shared is not None:
            self._spawn("redis", self.shared.run)

    async def close(self) -> None:
        """Stop the background work and close every connection."""
        tasks = [*self._tasks, *(f.task for f in self._flights.values() if f.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for upstream in self._origins.values():
            await upstream.close()
        if self.shared is not None:
            await self.shared.close()

    def _spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(self._keep(name, run)))

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a loop for ever: where it fails it is told, counted, and started again."""
        self.restarts[name] = 0
        while True:
            begun = time.monotonic()
            try:
                await run()
            except Exception:
                log.exception("background work %s failed", name)
            wait = RESTART_S[min(self.restarts[name], len(RESTART_S) - 1)]
            self.restarts[name] += 1
            await asyncio.sleep(max(0.0, begun + wait - time.monotonic()))

    def _publish_snapshot(self, snapshot: Snapshot) -> None:
        if (
            snapshot.version == self.snapshot.version
            and snapshot.captured == self.snapshot.captured
        ):
            return
        self.snapshot = snapshot
        self.telemetry = self.learner.publish(snapshot, time.monotonic())

    async def _publish_loop(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_S)
            if self.learner.changed:
                self.telemetry = self.learner.publish(self.snapshot, time.monotonic())

    # --- deciding ---

    def request(self, body: Body, headers: Mapping[str, str], surface: str) -> Request:
        """The request in a body, with the configured defaults."""
        return parse(
            body,
            headers,
            priority=self.config.routing.priority,
            balanced=self._balanced,
            model_optional=surface == "route",
        )

    def decide(self, request: Request) -> Decision:
        """The decision for a request, from the state in force."""
        now = Now(time.monotonic(), time.time())
        return decide(request, self.snapshot, self.telemetry, self.policy, now)

    # --- answering ---

    async def answer(
        self,
        body: Body,
        headers: Mapping[str, str],
        ticket: Ticket,
        sink: AnswerSink,
    ) -> None:
        """Answer one request into `sink`; raises `ApiError` where nothing was sent yet.

        However it ends, it ends up in the record.
        """
        self.in_flight += 1
        error: ApiError | None = None
        gone = False
        request: Request | None = None
        try:
            request = self.request(body, headers, ticket.surface)
            ticket.decision = self.decide(request)
            ticket.decided = time.monotonic()
            ticket.decision_id = self.decisions.add(ticket.decision, ticket.tenant)
            rules = cache_rules(headers.get("cache-control"))
            if self._cacheable(body, rules, ticket.surface):
                await self._cached(body, request, rules, ticket, sink)
            else:
                outcome = await self._direct(body, request, ticket, sink)
                error = outcome.error
                if error is not None and not outcome.committed:
                    raise error
        except ApiError as caught:
            error = caught
            raise
        except asyncio.CancelledError as cancelled:
            # The caller left, or the server ends the request and says why.
            error = next((why for why in cancelled.args if isinstance(why, ApiError)), None)
            gone = error is None
            raise
        finally:
            self.in_flight -= 1
            self._finish(ticket, request, error, gone)

    def _cacheable(self, body: Body, rules: CacheRules, surface: str) -> bool:
        cache = self.config.cache
        if not cache.enabled or cache.default == "never" or not (rules.lookup or rules.store):
            return False
        if cache.default == "always" or (cache.default == "auto" and surface == "route"):
            return True
        return deterministic(body)

    async def _direct(
        self, body: Body, request: Request, ticket: Ticket, sink: AnswerSink
    ) -> Outcome:
        assert ticket.decision is not None
        total_s = self.config.limits.total_s
        deadline = request.deadline_ms
        call = call_for(body, ticket.decision, total_s=total_s, deadline_ms=deadline, keep=False)
        ticket.sent = time.monotonic()
        outcome = ticket.outcome = Outcome([])
        runner = Direct(ticket, sink)
        outcome = await self.executor.run(call, runner, outcome)
        if outcome.error is None and not request.stream:
            self._settle(ticket, outcome)
            await sink.whole(ticket, outcome.body)
        return outcome

    async def _cached(
        self, body: Body, request: Request, rules: CacheRules, ticket: Ticket, sink: AnswerSink
    ) -> None:
        key = cache_key(body, request, self._scope + ticket.tenant)
        asks = include_usage(body)
        if rules.lookup:
            entry = await self._lookup(key)
            if entry is not None and rules.max_age_s is not None:
                entry = entry if time.time() - entry.stored <= rules.max_age_s else None
            if entry is not None:
                self.hits += 1
                await self._serve_entry(entry, request, asks, ticket, sink)
                return
            self.misses += 1
        flight = self._flights.get(key) if rules.lookup else None
        if flight is not None:
            ticket.cache = "joined"
        else:
            ticket.cache = "miss" if rules.lookup else "bypass"
            flight = self._fly(key, body, request, rules, ticket)
        serving = self._serve_flight(flight, request, asks, ticket, sink)
        if request.deadline_ms is None:
            await serving
        else:
            await within(request.deadline_ms / 1000.0, serving, ticket, sink)

    async def _lookup(self, key: bytes) -> Entry | None:
        if self.shared is not None and self.shared.connected:
            entry: Entry | None = await self.shared.get(key)
            return entry
        return self.memory.get(key, time.monotonic())

    def _fly(
        self, key: bytes, body: Body, request: Request, rules: CacheRules, ticket: Ticket
    ) -> Flight:
        # A caller's deadline ends its own waiting, not the call, which others may wait for.
        assert ticket.decision is not None
        total_s = self.config.limits.total_s
        call = call_for(body, ticket.decision, total_s=total_s, deadline_ms=None, keep=True)
        ticket.sent = time.monotonic()

        def forget() -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]

        flight = Flight(request.stream, call.include_usage, forget)

        async def work() -> Outcome:
            try:
                outcome = await self.executor.run(call, flight if call.stream else None)
                if rules.store and storable(outcome, call.decision):
                    self._store(key, outcome)
                return outcome
            finally:
                forget()

        if rules.lookup:
            self._flights[key] = flight
        task = asyncio.get_running_loop().create_task(work())
        flight.start(task)
        return flight

    def _store(self, key: bytes, outcome: Outcome) -> None:
        assert outcome.model is not None
        completion = outcome.body or msgspec.json.encode(outcome.completion)
        entry = Entry(outcome.model.id, outcome.model.upstream, completion, time.time())
        if self.shared is not None and self.shared.connected:
            self.shared.put(key, entry)
        else:
            self.memory.put(key, entry, time.monotonic())

    async def _serve_entry(
        self,
        entry: Entry,
        request: Request,
        include_usage: bool,
        ticket: Ticket,
        sink: AnswerSink,
    ) -> None:
        ticket.cache, ticket.accounts = "hit", False
        ticket.cache_age_s = max(0.0, time.time() - entry.stored)
        ticket.model = self._model_named(entry.model, entry.upstream)
        ticket.cost_usd, ticket.cost_source = Decimal(0), "cache"
        if not request.stream:
            await sink.whole(ticket, entry.completion)
            return
        await sink.begin(ticket)
        await sink.write(b"".join(events(msgspec.json.decode(entry.completion), include_usage)))

    async def _serve_flight(
        self,
        flight: Flight,
        request: Request,
        include_usage: bool,
        ticket: Ticket,
        sink: AnswerSink,
    ) -> None:
        with flight:
            live = request.stream and flight.stream and include_usage == flight.include_usage
            if live and (begun := await flight.begun()) is not None:
                ticket.outcome, ticket.model = begun, begun.model
                await sink.begin(ticket)
                async for piece in flight.pieces():
                    await sink.write(piece)
                outcome = await flight.result()
                ticket.accounts, flight.accounted = not flight.accounted, True
                self._settle(ticket, outcome)
                return
            outcome = await flight.result()
        ticket.accounts, flight.accounted = not flight.accounted, True
        self._settle(ticket, outcome)
        if outcome.error is not None:
            raise outcome.error
        if not request.stream:
            await sink.whole(ticket, outcome.body or msgspec.json.encode(outcome.completion))
            return
        await sink.begin(ticket)
        completion = outcome.completion or msgspec.json.decode(outcome.body)
        await sink.write(b"".join(events(completion, include_usage)))

    def _model_named(self, model: str, upstream: str) -> Model | None:
        for index in self.snapshot.by_id.get(model, ()):
            if self.snapshot.models[index].upstream == upstream:
                return self.snapshot.models[index]
        return None

    # --- afterwards ---

    def _settle(self, ticket: Ticket, outcome: Outcome) -> None:
        """What the caller's headers and body say of cost and model."""
        ticket.outcome, ticket.model = outcome, outcome.model
        if not ticket.accounts:
            ticket.cost_usd, ticket.cost_source = Decimal(0), "joined"
        elif outcome.model is not None:
            ticket.cost_usd, ticket.cost_source = accounting.cost_of(outcome)

    def _finish(
        self, ticket: Ticket, request: Request | None, error: ApiError | None, gone: bool
    ) -> None:
        now = time.monotonic()
        outcome = ticket.outcome
        if outcome is not None and ticket.cost_source == "unknown":
            self._settle(ticket, outcome)
        attempts = outcome.attempts if outcome is not None else []
        if outcome is not None and outcome.cooled:
            self.telemetry = replace(self.telemetry, cooling=self.learner.cooling(now))
        record = accounting.record(ticket, request, error, gone, now)
        for observe in self.observers:
            observe(record)
        if ticket.decision_id is not None:
            self.decisions.close(ticket.decision_id, accounting.told(record, attempts))

    # --- for the other routes ---

    @property
    def redis_connected(self) -> bool:
        return self.shared is not None and bool(self.shared.connected)

    async def cache_stats(self) -> dict[str, Any]:
        """Entries, bytes, hits and misses of the cache in use."""
        entries, size, backend = len(self.memory), self.memory.bytes, "memory"
        if self.redis_connected and (counted := await self.shared.count_or_none()) is not None:
            (entries, size), backend = counted, "redis"
        looked = self.hits + self.misses
        return {
            "entries": entries,
            "bytes": size,
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": round(self.hits / looked, 4) if looked else 0.0,
            "backend": backend,
        }

    async def clear_cache(self) -> int:
        """Forget every cached answer; how many there were."""
        cleared = self.memory.clear()
        if self.redis_connected:
            cleared += await self.shared.clear_or_none() or 0
        return cleared

    def health(self) -> dict[str, Any]:
        """What the last background probes found. Calls nobody."""
        upstreams = {name: source.status() for name, source in self.sources.items()}
        usable = [s for s in self.sources.values() if not s.missing_key]
        well = bool(usable) and all(s.error is None for s in usable)
        if self.shared is not None and not self.shared.connected:
            well = False
        openrouter = self.sources.get("openrouter")
        now = time.monotonic()
        return {
            "status": "ok" if well else "degraded",
            "redis_connected": self.redis_connected,
            "openrouter_accessible": openrouter is not None and openrouter.accessible,
            "upstreams": upstreams,
            "sandbox": self.sandbox,
            "version": __version__,
            "routable_models": len(self.snapshot.routable),
            "in_flight": self.in_flight,
            "cooling": {
                key: {"reason": why, "seconds_left": round(until - now, 1)}
                for key, (until, why) in self.learner.cooling(now).items()
            },
            "background": {name: {"restarts": n} for name, n in self.restarts.items()},
            "uptime_seconds": round(now - self.started, 1),
        }
