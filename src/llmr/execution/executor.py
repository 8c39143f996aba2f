"""The one executor: retries, fallback, continuation and the commit point, for every surface.

Before the first content reaches the caller a failure is unseen: the same target once more where
that is worth it, else the next one. After it a cut answer is continued where that is provably
right, and ends with an error event where it is not; never with a clean end.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from llmr.core import capability, classify
from llmr.core.catalogue import Model
from llmr.core.classify import Failure
from llmr.core.health import HINT_LONGEST_S
from llmr.core.learner import Learner
from llmr.core.request import REMOVED
from llmr.core.splice import Splice
from llmr.execution.attempt import Exchange
from llmr.execution.delivery import Delivery
from llmr.execution.failures import error_event, final
from llmr.execution.types import Attempt, Call, Limits, Outcome, Sink
from llmr.upstreams.base import Upstream

WAITED_FOR = (classify.RATE_LIMITED, classify.OVERLOADED)
CONTINUED_AFTER = (classify.CUT, classify.TIMEOUT)
QUICK_S = 0.1  # before the one retry of a target that answered with a 500
BACK_OFF_S = 0.5


class Executor:
    """Runs calls against upstreams and tells the learner what it saw."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        learner: Learner,
        limits: Limits,
        secrets: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`secrets` are taken out of whatever an upstream says, should it repeat them.

        `clock` is the monotonic clock that health is kept by.
        """
        self.upstreams = upstreams
        self.learner = learner
        self.limits = limits
        self.clock = clock
        self._secrets = [secret for secret in secrets if secret]

    async def run(self, call: Call, sink: Sink | None, outcome: Outcome | None = None) -> Outcome:
        """Carry the call out. Failures end up in `outcome.error`, after the last attempt.

        A streamed answer goes to `sink`; where it breaks off after the commit point, the error
        event goes there as well. `outcome`, where given, is filled as the call goes on.
        """
        run = _Run(self, call, sink, outcome or Outcome([]))
        self.learner.budget.request(self.clock())
        try:
            await run.run()
        finally:
            run.outcome.upstream_s = run.loop.time() - run.delivery.begun
        return run.outcome

    def scrub(self, failure: Failure) -> None:
        """Take the router's own keys out of what an upstream said, wherever it said it."""
        for secret in self._secrets:
            failure.message = failure.message.replace(secret, "[redacted]")
            failure.code = None if failure.code and secret in failure.code else failure.code
            failure.param = None if failure.param and secret in failure.param else failure.param


class _Run:
    """One call on its way through the targets."""

    def __init__(self, executor: Executor, call: Call, sink: Sink | None, outcome: Outcome) -> None:
        self.executor = executor
        self.learner = executor.learner
        self.clock = executor.clock
        self.limits = executor.limits
        self.call = call
        self.outcome = outcome
        self.loop = asyncio.get_running_loop()
        self.delivery = Delivery(call, sink, outcome, self.loop.time())
        self.models = call.decision.snapshot.models
        self.chain = list(call.decision.chain)
        self.failures: list[tuple[Model, Failure]] = []
        self.retried: set[int] = set()

    async def run(self) -> None:
        whole = False
        while not whole and (index := self._next()) is not None:
            sends_left = self.limits.attempts - len(self.outcome.attempts) - 1
            failure = await self._attempt(index, bool(self.chain) and sends_left > 0)
            if failure is None:
                return
            if self.outcome.committed:
                whole = await self._continue(index, failure)
                break
            if not failure.kind.fallback:
                break
            if failure.kind is classify.CONTEXT:
                self._keep_larger(index)
            await self._perhaps_again(index, failure)
        if not whole:
            named = self.call.decision.request.mode != "auto"
            self.outcome.error = final(self.failures, named)
            if self.outcome.committed:
                await self.delivery.write([error_event(self.outcome.error)])

    # --- whom to send to ---

    def _next(self) -> int | None:
        """The next target to try: one that may be sent to now, else, before any attempt, any."""
        if len(self.outcome.attempts) >= self.limits.attempts or self._too_late():
            return None
        passed_over: int | None = None
        while self.chain:
            index = self.chain.pop(0)
            if self._admitted(index):
                return index
            passed_over = index if passed_over is None else passed_over
        # With nothing else left the least bad is tried rather than failing on principle.
        return passed_over if not self.outcome.attempts else None

    def _too_late(self) -> bool:
        """No attempt begins that cannot finish; the first one always may try."""
        left = self.call.deadline - self.loop.time()
        return left <= 0 or (bool(self.outcome.attempts) and left < 0.02)

    def _admitted(self, index: int) -> bool:
        model, now = self.models[index], self.clock()
        first = not self.outcome.attempts
        charged = (
            not first and index not in self.retried and self.learner.failing(model.upstream, now)
        )
        if charged and not self.learner.budget.spend(now):
            return False
        return index in self.retried or self.learner.admit(model, now)

    def _keep_larger(self, index: int) -> None:
        """Of the targets left, only those with a larger window than the one that was too small."""
        least = self.models[index].context_length or 0
        self.chain = [i for i in self.chain if (self.models[i].context_length or least + 1) > least]

    async def _perhaps_again(self, index: int, failure: Failure) -> None:
        """Put the same target back in front, once, where that is worth it: and wait if need be."""
        wait = self._wait_before_again(index, failure)
        if wait is None:
            return
        if self.loop.time() + wait >= self.call.deadline:
            return
        if not self.learner.budget.spend(self.clock()):
            return
        self.retried.add(index)
        self.chain.insert(0, index)
        await asyncio.sleep(wait)

    def _wait_before_again(self, index: int, failure: Failure) -> float | None:
        """Seconds before the same target is tried again, None where another one is better.

        Once, quickly, after a reset or a 500. After a rate limit for as long as it asks, where it
        is the only target left, or the first of a list, which is the caller's choice.
        """
        kind = failure.kind
        if _quick(failure) and index not in self.retried:
            return QUICK_S * self.learner.draw() if kind is classify.SERVER else 0.0
        chosen = self.call.decision.request.mode == "list" and len(self.outcome.attempts) == 1
        if kind not in WAITED_FOR or (self.chain and not chosen):
            return None
        wait = failure.retry_after_s
        if wait is None:
            if kind is not classify.RATE_LIMITED or self.chain:
                return None
            tries = len(self.outcome.attempts)
            wait = BACK_OFF_S * 2.0 ** (tries - 1) * (0.5 + 0.5 * self.learner.draw())
        return wait if wait <= self.limits.retry_after_wait_s else None

    # --- one attempt ---

    async def _attempt(
        self,
        index: int,
        more: bool,
        pieces: tuple[bytes, ...] | None = None,
        splice: Splice | None = None,
    ) -> Failure | None:
        model, started = self.models[index], self.loop.time()
        record = Attempt(model.id, model.upstream, round((started - self.delivery.begun) * 1000, 1))
        self.outcome.attempts.append(record)
        if model.free:
            self.outcome.cooled |= self.learner.sent_free(model.upstream, self.clock())
        if splice is None:
            self.delivery.restart()
        if pieces is not None:
            record.added = "assistant prefill"
        elif self.call.asking is not None and model.upstream != "openrouter":
            pieces, record.added = self.call.asking, "stream_options.include_usage"
        else:
            pieces = self.call.pieces
        upstream = self.executor.upstreams[model.upstream]
        exchange = Exchange(self.call, self.delivery, index, upstream, self.limits, self.learner)
        try:
            failure = await exchange.run(record, pieces, more, splice)
        except BaseException:
            record.outcome = "client_closed"
            self.learner.let_go(model)
            raise
        if failure is None:
            record.outcome = "ok"
            self.learner.well(model, self.clock())
            return None
        self.executor.scrub(failure)
        record.outcome = failure.kind.name
        record.message = failure.message
        record.status = failure.status or record.status
        self._note(index, failure)
        if splice is None:
            self.failures.append((model, failure))
        return failure

    def _note(self, index: int, failure: Failure) -> None:
        """Let the health of the target, or of its account, know of a fault of its own."""
        kind, hint, model = failure.kind, failure.retry_after_s, self.models[index]
        if kind is classify.MISSING:
            hint = HINT_LONGEST_S
        first = _quick(failure) and index not in self.retried
        self.learner.fault(model, kind, self.clock(), hint, hard=kind.hard and not first)
        self.outcome.cooled = True

    # --- after the commit point ---

    async def _continue(self, index: int, failure: Failure) -> bool:
        """Finish an answer that broke off; True where the caller got the whole of it.

        The first failure is what is reported where it cannot be done, not what came of trying.
        """
        setting = self.limits.continuation
        delivered = self.delivery.delivered()
        if setting == "never" or failure.kind not in CONTINUED_AFTER or delivered is None:
            return False
        for target, prefilled in self._continuations(index, setting, bool(delivered)):
            if len(self.outcome.attempts) >= self.limits.attempts or self._too_late():
                return False
            now = self.clock()
            if not self.learner.budget.spend(now) or not self.learner.admit(
                self.models[target], now
            ):
                continue
            splice = Splice(delivered, self.delivery.identity, prefilled=prefilled)
            pieces = self._prefilled(delivered) if prefilled else None
            second = await self._attempt(target, False, pieces, splice)
            if second is None:
                self.outcome.continued = True
                return True
            if not (prefilled and second.kind is classify.CALLER):
                return False  # one continuation an answer; a refused prefill was none
        return False

    def _continuations(self, index: int, setting: str, some: bool) -> list[tuple[int, bool]]:
        """(target, whether by prefill) in the order in which they are worth trying."""
        same = [i for i in self.call.decision.snapshot.by_id[self.models[index].id] if i != index]
        usable = self.call.decision.policy.usable
        others = [
            i for i in dict.fromkeys([*same, *self.chain]) if self.models[i].upstream in usable
        ]
        takers = [
            i for i in [*others, index] if some and self.models[i].supports & capability.PREFILL
        ]
        if setting == "prefill":
            return [(i, True) for i in takers[:1]]
        again = [*others, index]
        if takers:
            return [(takers[0], True), (takers[0], False)]
        return [(i, False) for i in again[:2]]

    def _prefilled(self, delivered: str) -> tuple[bytes, ...]:
        """The request with what was delivered as the beginning of the assistant's answer."""
        message = msgspec.json.encode({"role": "assistant", "content": delivered})
        messages = bytes(self.call.body.fields["messages"]).rstrip()[:-1] + b"," + message + b"]"
        return self.call.body.splice(REMOVED, {"model": None, "messages": messages})


def _quick(failure: Failure) -> bool:
    """Whether one quick retry on the same target is worth it: a reset, or a plain 500."""
    return failure.kind is classify.RESET or (
        failure.kind is classify.SERVER and failure.status == 500
    )
