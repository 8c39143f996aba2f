"""The one executor: retries, fallback, continuation and the commit point, for every surface.

Before the first content reaches the caller a failure is unseen: the same target once more where
that is worth it, else the next one. After it a cut answer is continued where that is provably
right, and ends with an error event where it is not; never with a clean end.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from llmr.core import classify
from llmr.core.catalogue import Model
from llmr.core.classify import Failure
from llmr.core.health import HINT_LONGEST_S
from llmr.core.hedging import Hedges
from llmr.core.learner import Learner
from llmr.core.splice import Splice
from llmr.errors import ApiError, error_event, internal
from llmr.execution.attempt import Then, Trial
from llmr.execution.continuing import continuations
from llmr.execution.delivery import Delivery
from llmr.execution.failures import come_back, final
from llmr.execution.purse import Purse, purse_of
from llmr.execution.sending import body_for
from llmr.execution.types import Attempt, Call, Limits, Outcome, Sink
from llmr.upstreams.base import Upstream
from llmr.watch import Watch

WAITED_FOR = (classify.RATE_LIMITED, classify.OVERLOADED)
CONTINUED_AFTER = (classify.CUT, classify.TIMEOUT)
QUICK_S = 0.1  # before the one retry of a target that answered with a 500
BACK_OFF_S = 0.5

Done = Callable[[Outcome], None]


class Executor:
    """Runs calls against upstreams and tells the learner what it saw."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        learner: Learner,
        limits: Limits,
        secrets: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        hedges: Hedges | None = None,
    ) -> None:
        """`secrets` are taken out of whatever an upstream says, should it repeat them.

        `clock` is the monotonic clock that health is kept by. `hedges`: streams that priority
        `speed` asks for may ask a second target, so often.
        """
        self.upstreams = upstreams
        self.learner = learner
        self.limits = limits
        self.clock = clock
        self.hedges = hedges
        self.watch = Watch()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._secrets = [secret for secret in secrets if secret]

    def start(self, call: Call, sink: Sink | None, outcome: Outcome, done: Done) -> "Run":
        """Carry the call out, into `outcome`; `done` is told when that is over.

        Failures end up in `outcome.error`, after the last attempt. A streamed answer goes to
        `sink`; where it breaks off after the commit point, the error event goes there as well.
        `done` may be told before this returns.
        """
        loop = self._running_loop()
        delivery = Delivery(
            call, sink, outcome, loop, loop.time(), call.stream and sink is not None
        )
        decision = call.decision
        run = Run(
            self,
            call,
            outcome,
            done,
            delivery,
            self.learner,
            self.limits,
            decision.snapshot.models,
            list(decision.chain),
            _purse=purse_of(decision),
        )
        self.learner.budget.request(self.clock())
        if self.hedges is not None and sink is not None and run.may_hedge():
            self.hedges.request()
            run.hedges, delivery.on_commit = self.hedges, run.won
        run.advance()
        return run

    def deadline(self, total_s: float, deadline_ms: float | None) -> float:
        """The instant at which a call that begins now has to end, within both bounds."""
        seconds = total_s if deadline_ms is None else min(total_s, deadline_ms / 1000.0)
        return self._running_loop().time() + seconds

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = asyncio.get_running_loop()
        return loop

    async def run(self, call: Call, sink: Sink | None, outcome: Outcome | None = None) -> Outcome:
        """The same for whoever wants to wait; cancelled, it gives the call up."""
        over = asyncio.get_running_loop().create_future()
        run = self.start(call, sink, outcome or Outcome([]), lambda _: over.set_result(None))
        try:
            await over
        except asyncio.CancelledError:
            run.cancel()
            raise
        return run.outcome

    def scrub(self, failure: Failure) -> None:
        """Take the router's own keys out of what an upstream said, wherever it said it."""
        for secret in self._secrets:
            failure.message = failure.message.replace(secret, "[redacted]")
            failure.code = None if failure.code and secret in failure.code else failure.code
            failure.param = None if failure.param and secret in failure.param else failure.param


class Run(Struct, eq=False):
    """One call on its way through the targets: a step after each attempt, and nothing between."""

    _executor: Executor
    _call: Call
    outcome: Outcome
    _done: Done
    _delivery: Delivery
    _learner: Learner
    _limits: Limits
    _models: Sequence[Model]
    _chain: list[int]
    _failures: list[tuple[Model, Failure]] = []
    _retried: tuple[int, ...] = ()
    _trial: Trial | None = None
    _later: asyncio.TimerHandle | None = None
    _splices: Iterator[tuple[int, bool]] = iter(())
    _over: bool = False
    _paused: bool = False
    _purse: Purse | None = None
    hedges: Hedges | None = None
    _rival: Trial | None = None
    _hedging: asyncio.TimerHandle | None = None

    # --- for the caller ---

    def cancel(self) -> None:
        """Nobody waits any more. `done` is not told."""
        if self._over:
            return
        for trial in self._running():
            self._give_up(trial, "client_closed")
        self._close()

    def pause(self) -> None:
        """The sink has no room."""
        self._paused = True
        for trial in self._running():
            trial.pause()

    def resume(self) -> None:
        """The sink has room again."""
        if self._paused:
            self._paused = False
            for trial in self._running():
                trial.resume()

    # --- the steps ---

    def advance(self) -> None:
        """Try the next target, if there is one."""
        index = self._next()
        if index is None:
            self._failed()
        else:
            self._attempt(index, self._attempted, more=True)

    def _attempted(self, index: int, failure: Failure | None) -> None:
        if failure is None:
            self._end()
        elif self.outcome.committed:
            self._continue(index, failure)
        elif not failure.kind.fallback:
            self._failed()
        else:
            if failure.kind is classify.CONTEXT:
                self._keep_larger(index)
            if failure.kind is classify.LOOP:
                self._leave(self._models[index].upstream)
            wait = self._before_again(index, failure)
            if wait:
                self._later = self._delivery.loop.call_later(wait, self.advance)
            else:
                self.advance()

    def _failed(self) -> None:
        named = self._call.decision.request.mode != "auto"
        error, targets = final(self._failures, named), self._call.decision.targets
        come_back(error, self._soonest(targets), len(targets))
        if self._purse is not None and self._purse.refused:
            error.message += " max_cost_usd leaves nothing for another attempt."
        self._end(error)

    def _end(self, error: ApiError | None = None) -> None:
        if error is not None:
            self.outcome.error = error
            if self.outcome.committed:
                self._delivery.write([error_event(error)])
        self._close()
        self._done(self.outcome)

    def _close(self) -> None:
        self._over = True
        for timer in (self._later, self._hedging):
            if timer is not None:
                timer.cancel()

    def _running(self) -> list[Trial]:
        return [trial for trial in (self._trial, self._rival) if trial is not None]

    def _give_up(self, trial: Trial, why: str) -> None:
        trial.close()
        trial.record.outcome = why
        self._learner.let_go(trial.model)

    # --- whom to send to ---

    def _next(self) -> int | None:
        """The next target to try: one that may be sent to now, else, before any attempt, any."""
        if len(self.outcome.attempts) >= self._limits.attempts or self._too_late():
            return None
        passed_over: int | None = None
        while self._chain:
            index = self._chain.pop(0)
            if self._purse is not None and not self._purse.affords(index):
                continue
            if self._admitted(index):
                return index
            passed_over = index if passed_over is None else passed_over
        # With nothing else left the least bad is tried rather than failing on principle.
        return passed_over if not self.outcome.attempts else None

    def _too_late(self) -> bool:
        """No attempt begins that cannot finish; the first one always may try."""
        left = self._call.deadline - self._delivery.loop.time()
        return left <= 0 or (bool(self.outcome.attempts) and left < 0.02)

    def _admitted(self, index: int) -> bool:
        model, now = self._models[index], self._executor.clock()
        first = not self.outcome.attempts
        charged = (
            not first and index not in self._retried and self._learner.failing(model.upstream, now)
        )
        if charged and not self._learner.budget.spend(now):
            return False
        return index in self._retried or self._learner.admit(model, now)

    def _keep_larger(self, index: int) -> None:
        """Of the targets left, only those with a larger window than the one that was too small."""
        least = self._models[index].context_length or 0
        self._chain = [
            i for i in self._chain if (self._models[i].context_length or least + 1) > least
        ]

    def _soonest(self, targets: Sequence[int]) -> float:
        """Seconds until one of the targets may be tried again; 0 where one may now."""
        now = self._executor.clock()
        hints = {model.target: f.retry_after_s or 0.0 for model, f in self._failures}
        rows = (self._models[index] for index in targets)
        waits = (max(self._learner.rests_s(m, now), hints.get(m.target, 0.0)) for m in rows)
        return min(waits, default=0.0)

    def _leave(self, upstream: str) -> None:
        """No target of an upstream that leads back here: each of them does."""
        self._chain = [i for i in self._chain if self._models[i].upstream != upstream]

    def _before_again(self, index: int, failure: Failure) -> float:
        """Put the same target back in front, once, where that is worth it; seconds to wait first.

        0 where the next target, whichever it is, is tried at once.
        """
        wait = self._wait_before_again(index, failure)
        if wait is None or self._delivery.loop.time() + wait >= self._call.deadline:
            return 0.0
        if not self._learner.budget.spend(self._executor.clock()):
            return 0.0
        self._retried += (index,)
        self._chain.insert(0, index)
        return wait

    def _wait_before_again(self, index: int, failure: Failure) -> float | None:
        """Seconds before the same target is tried again, None where another one is better.

        Once, quickly, after a reset or a 500. After a rate limit for as long as it asks, where it
        is the only target left, or the first of a list, which is the caller's choice.
        """
        kind = failure.kind
        if _quick(failure) and index not in self._retried:
            return QUICK_S * self._learner.draw() if kind is classify.SERVER else 0.0
        chosen = self._call.decision.request.mode == "list" and len(self.outcome.attempts) == 1
        if kind not in WAITED_FOR or (self._chain and not chosen):
            return None
        wait = failure.retry_after_s
        if wait is None:
            if kind is not classify.RATE_LIMITED or self._chain:
                return None
            tries = len(self.outcome.attempts)
            wait = BACK_OFF_S * 2.0 ** (tries - 1) * (0.5 + 0.5 * self._learner.draw())
        return wait if wait <= self._limits.retry_after_wait_s else None

    # --- one attempt ---

    def _attempt(
        self,
        index: int,
        then: Then,
        *,
        more: bool = False,
        splice: Splice | None = None,
        rival: bool = False,
    ) -> None:
        executor, call, delivery = self._executor, self._call, self._delivery
        model = self._models[index]
        now = delivery.loop.time()
        record = Attempt(model, round((now - delivery.begun) * 1000, 1))
        self.outcome.attempts.append(record)
        if model.free:
            self.outcome.cooled |= self._learner.sent_free(model.upstream, executor.clock())
        if splice is None and not rival:
            delivery.restart()
        tokens = None
        if self._purse is not None:
            tokens = self._purse.take(index, 0 if splice is None else splice.prompt_tokens)
        prefill = None if splice is None else splice.prefill
        pieces, record.added = body_for(call, model, tokens, prefill)
        trial = Trial(
            call,
            delivery,
            index,
            model,
            self._limits,
            self._learner,
            executor.watch,
            record,
            splice,
            self._tried,
            then,
            now,
        )
        if rival:
            self._rival = trial
        else:
            self._trial = trial
        trial.start(executor.upstreams[model.upstream], pieces, more and self._more())
        if self._paused:
            trial.pause()
        if self.hedges is not None and splice is None and not rival:
            self._hedging = delivery.loop.call_later(trial.late_s(), self._hedge, trial)

    def _more(self) -> bool:
        """Whether another target is left, were the attempt that begins now to fail."""
        if not self._chain or len(self.outcome.attempts) >= self._limits.attempts:
            return False
        return self._purse is None or any(map(self._purse.leaves_some, self._chain))

    def _tried(self, trial: Trial, how: Failure | Exception | None) -> None:
        """The attempt is over."""
        rival = self._rival
        other = self._trial if trial is rival else rival
        self._trial, self._rival = other, None
        if other is not None and self.hedges is not None:
            self.hedges.ended(won=(trial is rival) == (how is None))
        record, index = trial.record, trial.index
        if isinstance(how, Failure):
            how.__traceback__ = None  # it leads back here, and nobody looks at it
            self._executor.scrub(how)
            record.outcome, record.status = how.kind.name, how.status or record.status
        else:
            record.outcome = "ok" if how is None else "internal_error"
        if self._purse is not None:
            self._purse.charge(record)
        if other is not None and not isinstance(how, Failure):
            self._give_up(other, "outrun")
            self._trial = other = None
        if how is None:
            self._learner.well(trial.model, self._executor.clock())
            trial.then(index, None)
        elif isinstance(how, Failure):
            record.message = how.message
            self._note(index, how)
            if trial.splice is None:
                self._failures.append((trial.model, how))
            if other is None:  # else there is still one to wait for
                trial.then(index, how)
        else:
            self._learner.let_go(trial.model)
            self._end(internal())

    def _note(self, index: int, failure: Failure) -> None:
        """Let the health of the target, or of its account, know of a fault of its own."""
        kind, hint, model = failure.kind, failure.retry_after_s, self._models[index]
        if kind is classify.MISSING:
            hint = HINT_LONGEST_S
        first = _quick(failure) and index not in self._retried
        self._learner.fault(model, kind, self._executor.clock(), hint, hard=kind.hard and not first)
        self.outcome.cooled = True

    # --- two at a time ---

    def may_hedge(self) -> bool:
        """Whether a second target may be asked while the first is silent.

        Not where a ceiling is to be kept, and only where the first token is what counts most.
        """
        request = self._call.decision.request
        return self._call.stream and request.priority == "speed" and self._purse is None

    def _hedge(self, late: Trial) -> None:
        """The first token is late: ask the next target as well, where that may be."""
        hedges = self.hedges
        if hedges is None or self._trial is not late or self._rival or self._paused:
            return
        if self.outcome.committed or not self._chain or not hedges.may():
            return
        if (index := self._next()) is not None:
            hedges.sent()
            self._attempt(index, self._attempted, rival=True)

    def won(self, model: Model) -> None:
        """The first content has come, from this target: whoever else was asked is left."""
        first, rival = self._trial, self._rival
        if first is None or rival is None:
            return
        won = rival.model is model
        self._trial, self._rival = (rival if won else first), None
        self._give_up(first if won else rival, "outrun")
        if self.hedges is not None:
            self.hedges.ended(won=won)

    # --- after the commit point ---

    def _continue(self, index: int, failure: Failure) -> None:
        """Finish an answer that broke off, where that is provably right.

        The first failure is what is reported where it cannot be done, not what came of trying.
        """
        setting = self._limits.continuation
        delivered = self._delivery.delivered()
        if setting == "never" or failure.kind not in CONTINUED_AFTER or delivered is None:
            self._failed()
        else:
            decision, some = self._call.decision, bool(delivered)
            self._splices = continuations(decision, self._chain, index, setting, some)
            self._splice(delivered)

    def _splice(self, delivered: str) -> None:
        """Try the next way to go on from what was delivered."""
        for target, prefilled in self._splices:
            if len(self.outcome.attempts) >= self._limits.attempts or self._too_late():
                break
            now = self._executor.clock()
            splice = Splice(delivered, self._delivery.identity, prefilled=prefilled)
            if self._purse is not None and not self._purse.affords(target, splice.prompt_tokens):
                continue
            if not self._learner.budget.spend(now) or not self._learner.admit(
                self._models[target], now
            ):
                continue

            def spliced(_: int, failure: Failure | None, prefilled: bool = prefilled) -> None:
                if failure is None:
                    self.outcome.continued = True
                    self._end()
                elif prefilled and failure.kind is classify.CALLER:
                    self._splice(delivered)  # a refused prefill was no continuation
                else:
                    self._failed()  # one continuation an answer

            self._attempt(target, spliced, splice=splice)
            return
        self._failed()


def _quick(failure: Failure) -> bool:
    """Whether one quick retry on the same target is worth it: a reset, or a plain 500."""
    return failure.kind is classify.RESET or (
        failure.kind is classify.SERVER and failure.status == 500
    )
