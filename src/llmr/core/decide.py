"""The decision: which models, in which order.

`decide` is a pure function of its arguments. What it returns is small; the account of every
candidate and every exclusion is worked out by `explain` from the same arguments, when asked for.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from llmr.core.board import Board
from llmr.core.catalogue import Model, Snapshot
from llmr.core.exploring import by_draw
from llmr.core.look import INFINITE, Look, Now, Policy
from llmr.core.ranking import RANKED, Ranking, place, rank, rank_well
from llmr.core.refusal import forbidden, no_key, nothing_passed, unknown_model
from llmr.core.request import Request
from llmr.core.staying import Stay, staying
from llmr.core.telemetry import Telemetry

ORDERS_KEPT = 512

__all__ = ["Decision", "Now", "Policy", "decide"]


class Decision(Struct, frozen=True):
    """Rows to try, in order, and what they were chosen by.

    `chain` is what will be tried; `first` would be tried first if it were well; `ranking` is the
    order by score, None for a pinned model. `trying`: the first is tried to learn of it, and the
    second is what would have been chosen. `stay`: where the conversation was answered last.
    The rest are the inputs, from which the decision can be worked out again to the bit.
    """

    chain: tuple[int, ...]
    first: int
    ranking: Ranking | None
    request: Request
    snapshot: Snapshot
    telemetry: Telemetry
    policy: Policy
    now: Now
    trying: bool = False
    stay: Stay | None = None

    @property
    def model(self) -> Model:
        """The first choice."""
        return self.snapshot.models[self.chain[0]]

    @property
    def targets(self) -> tuple[int, ...]:
        """Every row the request could go to, those left alone just now among them.

        Empty where there are more than were ranked: of so many, one is always well.
        """
        if self.ranking is None:
            rows = (i for name in self.request.models for i in self.snapshot.find(name))
            known = [i for i in rows if self.snapshot.models[i].upstream in self.policy.usable]
        elif len(self.ranking.order) >= RANKED and len(self.chain) > 1:
            return ()
        else:
            known = list(self.ranking.order)
        return tuple(dict.fromkeys([*self.chain, *known]))

    def name_of(self, index: int) -> str:
        """The id to send for a row of the chain: as the caller wrote it, where they named it."""
        for name in self.request.models:
            if index in self.snapshot.find(name):
                return name
        return self.snapshot.models[index].id

    def expected_s(self, index: int) -> float:
        """Seconds until the first token of a row is expected, for this request."""
        return self.look().terms(index).ttft_s

    def look(self) -> Look:
        """The look at the catalogue that this decision was made by."""
        look = Look(self.request, self.snapshot, self.telemetry, self.policy, self.now)
        if self.ranking is not None:
            look.spread = self.ranking.spread
        return look


def decide(
    request: Request,
    snapshot: Snapshot,
    telemetry: Telemetry,
    policy: Policy,
    now: Now,
    board: Board | None = None,
    stay: Stay | None = None,
) -> Decision:
    """The models to try for `request`, best first. A `board` makes it quick, and changes nothing.

    `stay`: where the conversation was answered last.

    Raises an `ApiError` that says which name, filter or key is in the way where none can be tried.
    """
    look = Look(request, snapshot, telemetry, policy, now)
    ranking = None
    if request.mode == "auto":
        board = board or Board()
        ranking = rank(look, board)
        if not ranking.order:
            raise nothing_passed(look)
        first, chain = _auto_chain(look, ranking, board)
    else:
        first, chain = _named_chain(look)
    trying = False
    if stay is not None and ranking is not None and not request.preferred:
        held = staying(look, chain, stay)
        if held is not None:
            chain = tuple(dict.fromkeys([held, *chain]))
    elif now.draw is not None and ranking is not None and not request.preferred:
        drawn = by_draw(look, chain, now.draw)
        trying, chain = drawn != chain[0], tuple(dict.fromkeys([drawn, *chain]))
    return Decision(chain, first, ranking, request, snapshot, telemetry, policy, now, trying, stay)


def _auto_chain(look: Look, ranking: Ranking, board: Board) -> tuple[int, tuple[int, ...]]:
    """The ranked rows, preferred ones first; after the first of all, the configured fallbacks."""
    models, order = look.snapshot.models, ranking.order
    if look.request.preferred:
        order = tuple(dict.fromkeys([*_preferred(look), *order]))
    first = order[0]
    if look.telemetry.cooling:
        well = _awake(look, order, board)
        # With everything cooling down, trying the best beats refusing on principle.
        order = well or rank_well(look, board) or _least_bad(look, order)
    if look.policy.fallback_models:
        fit = _fit(look, look.policy.fallback_models)
        fit = [i for i in fit if look.resting(models[i]) is None]
        order = tuple(dict.fromkeys([order[0], *fit, *order[1:]]))
    return first, order


def _awake(look: Look, order: tuple[int, ...], board: Board) -> tuple[int, ...]:
    """The rows that do not cool down, kept until the first of all that do may be tried again."""
    cooling, now = look.telemetry.cooling, look.now.monotonic
    known = board.awake.get(order)
    if known is not None and known[0] is cooling and known[1] <= now < known[2]:
        return known[3]
    models = look.snapshot.models
    awake = tuple(i for i in order if look.resting(models[i]) is None)
    if len(board.awake) >= ORDERS_KEPT:
        board.awake.clear()
    over = [until for until, _ in cooling.values() if until <= now]
    ahead = [until for until, _ in cooling.values() if until > now]
    since, until = max(over, default=-INFINITE), min(ahead, default=INFINITE)
    board.awake[order] = cooling, since, until, awake
    return awake


def _least_bad(look: Look, order: Sequence[int]) -> tuple[int, ...]:
    """Of targets that all cool down, the one that may be tried soonest, alone."""
    models = look.snapshot.models
    return (min(order, key=lambda i: look.rests_until(models[i])),)


def _preferred(look: Look) -> list[int]:
    """The preferred models that pass the filters, by score."""
    models = look.snapshot.models
    fit = _fit(look, look.request.preferred)
    return sorted(fit, key=lambda i: place(look.terms(i), models[i]))


def _fit(look: Look, names: Iterable[str]) -> list[int]:
    """The routable rows of these names that pass the filters."""
    rows = [i for name in names for i in look.snapshot.find(name)]
    models = look.snapshot.models
    return [i for i in rows if models[i].barred is None and look.why_not(i) is None]


def _named_chain(look: Look) -> tuple[int, tuple[int, ...]]:
    """The rows of the names asked for, in the caller's order, whatever the catalogue says.

    But for what the caller may rely on: privacy, region and ceiling.
    """
    models, usable = look.snapshot.models, look.policy.usable
    reachable: list[int] = []
    keyless: set[str] = set()
    missing: list[str] = []
    for name in look.request.models:
        rows = look.snapshot.find(name)
        if not rows:
            missing.append(name)
        keyless |= {models[i].upstream for i in rows} - usable
        reachable += [i for i in rows if models[i].upstream in usable]
    chain = [i for i in reachable if look.forbidden(i) is None]
    if chain:
        well = [i for i in chain if look.resting(models[i]) is None]
        return chain[0], tuple(dict.fromkeys(well or _least_bad(look, chain)))
    if reachable:
        raise forbidden(look, reachable)
    if keyless:
        raise no_key(sorted(keyless))
    param = "models" if len(look.request.models) > 1 else "model"
    raise unknown_model(look, missing[0], param)
