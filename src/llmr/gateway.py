"""The gateway: the state of a running router, for the server and the library alike.

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

from llmr import __version__, accounting, bundle, learned
from llmr.cache.flight import Flight
from llmr.cache.key import deterministic
from llmr.cache.memory import Entry, Memory
from llmr.cache.rules import CacheRules
from llmr.config import Config, LimitsConfig
from llmr.core.board import Board
from llmr.core.body import Body
from llmr.core.catalogue import Model, Snapshot
from llmr.core.decide import Decision, Now, Policy, decide
from llmr.core.exploring import Explorer
from llmr.core.hedging import Hedges
from llmr.core.learner import Learner
from llmr.core.lengths import differs
from llmr.core.quality.feedback import Feedback
from llmr.core.request import Request, normalised, parse, task_of
from llmr.errors import ApiError
from llmr.execution.billing import tokens_in
from llmr.execution.executor import Executor
from llmr.execution.types import HEADERS, Limits, Outcome
from llmr.ledger.book import place
from llmr.ledger.keeper import Ledger
from llmr.ledger.settling import Settling
from llmr.listing import model_rows
from llmr.loops import Hops
from llmr.observe.decisions import Decisions
from llmr.observe.recorder import Recorder
from llmr.observe.window import Window
from llmr.opinion import corrected, learn, opinion_in
from llmr.outbox import Outbox
from llmr.refresh import Refresh
from llmr.sessions import Sessions
from llmr.source import Source
from llmr.ticket import Ticket
from llmr.upstreams.http import Origin
from llmr.wiring import origin

log = logging.getLogger("llmr")

PUBLISH_S = 1.0
SAVE_S = 3.0  # between two batches of what was learned, on its way to the file
SOON_S = 0.05  # at least, between two vectors where something was far off
CORRECT_S = 30.0  # at least, between two corrections by feedback: each is a new snapshot
FADE_S = 6 * 3600.0  # after which what was said long ago counts less again
RESTART_S = (0.1, 1.0, 5.0, 30.0)  # between the starts of a background loop that fails


class Gateway:
    """Everything a running router is. Build it, `start` it, let `Answering`s use it, `close` it."""

    def __init__(
        self,
        config: Config,
        *,
        sandbox: bool = False,
        assume_keys: bool = False,
        learner: Learner | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        """`assume_keys`: decide as if every upstream had its key, for plans that send nothing.
        `learner`: what an earlier gateway has learned; `outbox`: what it writes through."""
        self.config = config
        self.sandbox = sandbox
        self.started = time.monotonic()
        self.outbox = outbox or Outbox()
        kept = None if sandbox and config.state.path is None else place(config.state.path)
        folder = None if kept is None else kept.parent
        self._origins: dict[str, Origin] = {}
        self.sources: dict[str, Source] = {}
        for name, upstream in config.upstreams.items():
            if upstream is not None:
                self._origins[name] = origin(name, upstream, self.outbox)
                self.sources[name] = Source(name, upstream, self._origins[name], folder)
        self._refresh = Refresh(
            self.sources, self._publish_snapshot, lambda: self.telemetry.measured
        )
        self._learns_anew = learner is None
        self.learner = learner or Learner(random.Random().random)
        explore = config.routing.explore
        self.explorer = Explorer(explore.share, explore.usd_per_day)
        self.snapshot = self._refresh.snapshot()
        self._rows = self.snapshot  # without what feedback says of them
        self._corrects_at = self._published_at = self._saves_at = 0.0
        self.feedback = Feedback()
        self.sessions = Sessions()
        self._board = Board()
        self._reader = bundle.reader() if config.routing.quality == "prompt" else None
        self.telemetry = self.learner.publish(self.snapshot, time.monotonic())
        weights = config.routing.default_weights
        self._balanced = normalised(msgspec.to_builtins(weights))
        usable = frozenset(n for n, s in self.sources.items() if assume_keys or not s.missing_key)
        self.policy = Policy(usable, config.routing.fallback_models, config.limits.attempts)
        self.executor = Executor(
            self._origins,
            self.learner,
            limits_of(config.limits),
            [u.api_key for u in config.upstreams.values() if u is not None and u.api_key],
            hedges=Hedges(config.routing.hedge_share) if config.routing.hedge == "auto" else None,
        )
        self.memory = Memory(int(config.cache.max_mb * 1024 * 1024), config.redis.ttl_seconds)
        self.shared: Any = None
        if config.redis.address is not None:
            from llmr.cache.hints import Hints, account_of
            from llmr.cache.shared import Shared

            self.shared = Shared(config.redis.address, config.redis.ttl_seconds)
            configured = [(n, u) for n, u in config.upstreams.items() if u is not None]
            accounts = {n: account_of(u.base_url or "", u.api_key or None) for n, u in configured}
            own = self.learner.resting
            self._hints = Hints(self.shared, accounts, own, self._hinted, time.monotonic)
        self.flights: dict[bytes, Flight] = {}
        # Answers of other upstreams under the same names, or simulated ones, are other answers.
        places = sorted((n, u.base_url) for n, u in config.upstreams.items() if u is not None)
        self.scope = hashlib.blake2b(msgspec.json.encode((sandbox, places)), digest_size=8).digest()
        self.hits = self.misses = 0
        self.hops = Hops(HEADERS)
        self.decisions = Decisions(accounting.told)
        self.window = Window()
        self.recorder = Recorder()
        self.recorder.observers.append(self.window.add)
        self.ledger = Ledger(kept)
        self._settling = Settling(self._origins, time.monotonic)
        self.recorder.observers.append(self.ledger.add)
        self.draining = False
        self.restarts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- life ---

    async def start(self, first_look_s: float = 0.0) -> None:
        """Start the background work; wait up to `first_look_s` for the upstreams' catalogues.

        Raises `ConfigError` where what was kept is of a newer version.
        """
        self.ledger.start()
        if self._learns_anew:
            now = (time.monotonic(), time.time())
            if learned.restore(self.ledger.kept(), self.learner, self.feedback, *now):
                self._publish_rows()
        self.ledger.pending = self._settling.take
        if first_look_s > 0:
            try:
                async with asyncio.timeout(first_look_s):
                    await self._refresh.once()
            except TimeoutError:
                log.info("the first look at the catalogues takes long; going on with what is there")
        self._spawn("refresh", self._refresh.run)
        self._spawn("publish", self._publish_loop)
        self._spawn("settling", lambda: self._settling.run(self.ledger.put))
        if self.shared is not None:
            self._spawn("redis", self.shared.run)
            self._spawn("hints", self._hints.run)

    async def close(self) -> None:
        """Stop the background work and close every connection."""
        for flight in list(self.flights.values()):
            flight.fail(ApiError(503, "draining", "The router was closed before the answer came."))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.recorder.flush()
        self._settling.give_up(self.ledger.put)
        clocks = (time.monotonic(), time.time())
        self.ledger.keep(learned.fresh(self.learner, self.feedback, *clocks))
        self.ledger.close()
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
                # The root of a background loop: it is told and started again, whatever it was.
                log.exception("background work %s failed", name)
            wait = RESTART_S[min(self.restarts[name], len(RESTART_S) - 1)]
            self.restarts[name] += 1
            await asyncio.sleep(max(0.0, begun + wait - time.monotonic()))

    def _publish_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot.version == self._rows.version and snapshot.captured == self._rows.captured:
            return
        self.publish(snapshot)

    def publish(self, snapshot: Snapshot) -> None:
        """Decide from these rows from now on."""
        self._rows = snapshot
        self._publish_rows()

    def _publish_rows(self) -> None:
        """Put the rows in force, with what feedback says of them."""
        self.feedback.changed = False
        self.snapshot.columns.clear()  # kept decisions hold on to their rows
        self.snapshot = self.learner.counted(self._rows, time.monotonic())
        if self.config.routing.feedback:
            self.snapshot = corrected(self.snapshot, self.feedback, time.time())
        self.telemetry = self.learner.publish(self.snapshot, time.monotonic())

    async def _publish_loop(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_S)
            now = time.monotonic()
            if now >= self._saves_at:
                self._saves_at = now + SAVE_S
                self.ledger.keep(learned.fresh(self.learner, self.feedback, now, time.time()))
            fades = bool(self.feedback.targets) and now >= self._corrects_at + FADE_S
            if fades or (now >= self._corrects_at and self._moved(now)):
                self._corrects_at = now + CORRECT_S
                self._publish_rows()
            elif self.learner.due(now):
                self._publish_telemetry(now)

    def _publish_telemetry(self, now: float) -> None:
        self.telemetry = self.learner.publish(self.snapshot, now)
        self._published_at = now

    def _hinted(self, hints: Mapping[str, tuple[float, str]], now: float) -> None:
        if self.learner.hinted(hints, now):
            self.telemetry = replace(self.telemetry, cooling=self.learner.cooling(now))

    def _moved(self, now: float) -> bool:
        """Whether what was learned of the rows changes some of them."""
        lengths = self.learner.lengths
        if lengths.changed:
            lengths.changed = False
            moved = any(
                differs(lengths.of(row.target, row.lengths, now), row.lengths)
                for row in self.snapshot.models
            )
            return moved or self.feedback.changed
        return self.feedback.changed

    # --- deciding ---

    def request(self, body: Body, headers: Mapping[str, str], surface: str) -> Request:
        """The request in a body, with the configured defaults."""
        return parse(
            body,
            headers,
            priority=self.config.routing.priority,
            balanced=self._balanced,
            model_optional=surface == "route",
            reader=self._reader,
        )

    def telling(self, body: Body) -> dict[str, float] | None:
        """The words of a prompt that told most; for its caller alone. None where it is not read."""
        return None if self._reader is None else bundle.heads().telling(task_of(body))

    def decide(self, request: Request) -> Decision:
        """The decision for a request, from the state in force."""
        now = Now(time.monotonic(), time.time())
        return decide(request, self.snapshot, self.telemetry, self.policy, now, self._board)

    def choose(self, request: Request, tenant: bytes) -> Decision:
        """The decision for a request that will be sent.

        A conversation stays where it is unless moving pays; of others, now and then not the best
        is tried.
        """
        if request.mode != "auto":
            return self.decide(request)
        monotonic = time.monotonic()
        stay = None
        if request.continues:
            stay = self.sessions.find(tenant + request.session, monotonic)
        draw = None
        if stay is None and self.explorer.may(monotonic):
            draw = self.learner.draw()
        now = Now(monotonic, time.time(), draw)
        found = decide(request, self.snapshot, self.telemetry, self.policy, now, self._board, stay)
        if found.trying:
            tried, best = (found.look().terms(i).cost_usd or 0.0 for i in found.chain[:2])
            self.explorer.tried(tried - best)
        return found

    # --- answering ---

    def cacheable(self, body: Body, rules: CacheRules, surface: str) -> bool:
        """Whether the cache may be asked for, or given, the answer to a request."""
        cache = self.config.cache
        if not cache.enabled or cache.default == "never" or not (rules.lookup or rules.store):
            return False
        if cache.default == "always" or (cache.default == "auto" and surface == "route"):
            return True
        return deterministic(body)

    def store(self, key: bytes, outcome: Outcome) -> None:
        """Keep an answer for identical requests."""
        assert outcome.model is not None
        completion = outcome.body or msgspec.json.encode(outcome.completion)
        entry = Entry(outcome.model.id, outcome.model.upstream, completion, time.time())
        if self.shared is not None and self.shared.connected:
            self.shared.put(key, entry)
        else:
            self.memory.put(key, entry, time.monotonic())

    def model_named(self, model: str, upstream: str) -> Model | None:
        """The row a kept answer is of, if it is still in the catalogue."""
        for index in self.snapshot.by_id.get(model, ()):
            if self.snapshot.models[index].upstream == upstream:
                return self.snapshot.models[index]
        return None

    # --- afterwards ---

    def settle(self, ticket: Ticket, outcome: Outcome) -> None:
        """What the caller's headers and body say of cost and model."""
        ticket.outcome, ticket.model = outcome, outcome.model
        if not ticket.accounts:
            ticket.cost_usd, ticket.cost_source = Decimal(0), "joined"
        elif outcome.attempts:
            ticket.cost_usd, ticket.cost_source = accounting.bill(outcome, time.time())

    def record(
        self, ticket: Ticket, request: Request | None, error: ApiError | None, gone: bool
    ) -> None:
        """Put on record how a request ended; `gone`: its caller left."""
        now = time.monotonic()
        outcome = ticket.outcome
        if outcome is not None:
            if ticket.cost_source == "unknown":
                self.settle(ticket, outcome)
            if outcome.cooled:
                self.telemetry = replace(self.telemetry, cooling=self.learner.cooling(now))
        record = accounting.record(ticket, request, error, gone, now)
        self.recorder.add(record)
        if self.learner.surprised and now >= self._published_at + SOON_S:
            self._publish_telemetry(now)
        if error is None and outcome is not None and request is not None and ticket.accounts:
            self._count(request, outcome, ticket.tenant)
        if ticket.kept is not None:
            ticket.kept.record = record
            ticket.kept.attempts = outcome.attempts if outcome is not None else ()

    def _count(self, request: Request, outcome: Outcome, tenant: bytes) -> None:
        """Learn how many tokens the model counted and wrote, and that it has the conversation."""
        last = outcome.attempts[-1] if outcome.attempts else None
        if last is None:
            return
        if request.session:
            usage = last.usage or {}
            tokens = sum(tokens_in(usage, name) for name in ("prompt_tokens", "completion_tokens"))
            self.sessions.note(tenant + request.session, last.row, tokens, time.monotonic())
        if last.usage is None or last.estimated or outcome.continued:
            return
        whole = outcome.finish in ("stop", "tool_calls")
        self.learner.count_tokens(last.row, last.usage, request, whole, time.monotonic())

    def judge(self, data: bytes, tenant: bytes) -> dict[str, Any]:
        """Learn from what a caller says of an answer: the body of `POST /v1/feedback`."""
        if not self.config.routing.feedback:
            text = "This router does not learn from feedback: routing.feedback is false."
            raise ApiError(403, "feedback_off", text)
        said = opinion_in(data)
        worth = said.worth
        kept = self.decisions.find(said.of, tenant, "decision_id" if said.decision_id else "id")
        return learn(self.feedback, kept, worth, time.time())

    # --- for the other routes ---

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return self.outbox.active

    def figures(self) -> dict[str, Any]:
        """The rolling window, as `GET /metrics` gives it."""
        self.recorder.flush()
        return self.window.figures(time.monotonic())

    @property
    def redis_connected(self) -> bool:
        return self.shared is not None and bool(self.shared.connected)

    @property
    def spoilt_cache_entries(self) -> int:
        """What was found in the shared store under our keys and was no entry of ours."""
        return 0 if self.shared is None else int(self.shared.spoilt)

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

    def catalogue(self) -> dict[str, Any]:
        """Where each upstream's rows are from, and how old they are."""
        names = ("catalogue", "captured", "age_s", "refused", "error")
        found = {name: source.status() for name, source in self.sources.items()}
        return {name: {key: status[key] for key in names} for name, status in found.items()}

    def _hedging(self) -> dict[str, int] | None:
        hedges = self.executor.hedges
        if hedges is None:
            return None
        return {"requests": hedges.requests, "sends": hedges.sends, "won": hedges.won}

    def model_rows(self) -> list[dict[str, Any]]:
        """Every routable model, as `/models` shows it."""
        return model_rows(
            self.snapshot, self.telemetry, self.learner.targets, self.executor.clock()
        )

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
            "spoilt_cache_entries": self.spoilt_cache_entries,
            "openrouter_accessible": openrouter is not None and openrouter.accessible,
            "upstreams": upstreams,
            "sandbox": self.sandbox,
            "version": __version__,
            "routable_models": len(self.snapshot.routable),
            "cooling": {
                key: {"reason": why, "seconds_left": round(until - now, 1)}
                for key, (until, why) in self.learner.cooling(now).items()
            },
            "exploring": {
                "requests": self.explorer.requests,
                "tries": self.explorer.tries,
                "usd": round(self.explorer.usd, 6),
            },
            "hedging": self._hedging(),
            "ledger": {**self.ledger.status(), "unsettled": len(self._settling)},
            "background": {name: {"restarts": n} for name, n in self.restarts.items()},
            "uptime_seconds": round(now - self.started, 1),
        }


def limits_of(limits: LimitsConfig) -> Limits:
    """The bounds of a request, as the executor takes them."""
    return Limits(
        limits.attempts,
        limits.connect_s,
        limits.first_event_s,
        limits.idle_s,
        limits.total_s,
        limits.retry_after_wait_s,
        limits.continuation,
        int(limits.event_mb * 1024 * 1024),
        limits.strict_events,
        limits.first_event_by_model,
    )
