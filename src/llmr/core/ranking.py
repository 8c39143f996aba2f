"""The order of the candidates: every row that passes the filters, by score."""

from heapq import nsmallest
from itertools import pairwise
from typing import Any

from msgspec import Struct

from llmr.core.board import Board
from llmr.core.catalogue import Model
from llmr.core.figures import Loss, figures, losses
from llmr.core.look import INFINITE, MAY_NOT_FIT, SURELY_NOT, Look
from llmr.core.scoring import Terms

RANKED = 12  # candidates kept in order; attempts are far fewer
MANY = 500  # from so many on, a heap is quicker than sorting
NEAR = 1e-9  # scores closer than this are compared again, exactly


class Ranking(Struct, frozen=True):
    """The best of the rows that passed the filters, best first.

    `spread` is that of the token estimate at which they passed.
    """

    order: tuple[int, ...]
    spread: float


def rank(look: Look, board: Board) -> Ranking:
    """The rows `auto` may use, by score. Remembered for requests of the same shape.

    Leaves `look` at the spread of the token estimate that the ranking was made at.
    """
    board.forget(look)
    found: Ranking = board.result(_shape(look), lambda: _rank(look, board))
    look.spread = found.spread
    return found


def _shape(look: Look) -> tuple[Any, ...]:
    """All of a request, and of its moment, that a ranking depends on."""
    request = look.request
    return (
        int(look.now.wall // 86400),
        look.regime if look.snapshot.price_edges[1] else None,
        request.needs,
        request.prompt_tokens,
        request.output_tokens,
        request.max_tokens,
        request.effort,
        request.stream,
        request.weights,
        request.max_latency_ms,
        request.max_cost_per_1k,
        request.max_cost_usd,
        look.policy.usable,
        request.curve,
    )


def rank_well(look: Look, board: Board) -> tuple[int, ...]:
    """The best rows among those not cooling down, for when the best of all are: often none."""
    now = look.now.monotonic
    cold = tuple(sorted(key for key, (until, _) in look.telemetry.cooling.items() if until > now))

    def work_out() -> tuple[int, ...]:
        models = look.snapshot.models
        found = [pair for pair in all_losses(look) if look.resting(models[pair[1]]) is None]
        return tuple(_ordered(look, found))

    order: tuple[int, ...] = board.result((_shape(look), look.spread, cold), work_out)
    return order


def _rank(look: Look, board: Board) -> Ranking:
    look.spread = MAY_NOT_FIT
    if look.request.curve is not None:
        found = board.on_curve(look, RANKED + 1, lambda some: _within_limits(look, some))
    else:
        found, bound = board.losses(look, RANKED + 1)
        found = _within_limits(look, found)
        # Whether so many as are wanted lose less than any row outside could.
        enough = sum(loss < bound - NEAR for loss, _ in found) > RANKED
        if bound < INFINITE and not enough:
            found = all_losses(look)
    if not found:
        # Where the token estimate cannot tell, a model is used only if none surely fits.
        look.spread = SURELY_NOT
        found = all_losses(look)
    return Ranking(tuple(_ordered(look, found)), look.spread)


def all_losses(look: Look) -> list[Loss]:
    """What every row loses that passes the filters."""
    return _within_limits(look, losses(look, figures(look)))


def _within_limits(look: Look, found: list[Loss]) -> list[Loss]:
    if not look.limited:
        return found
    return [pair for pair in found if look.over_limit(pair[1], look.terms(pair[1])) is None]


def _ordered(look: Look, found: list[Loss]) -> list[int]:
    """The first rows in the documented order."""
    some = len(found) < MANY
    best = sorted(found)[: RANKED + 1] if some else nsmallest(RANKED + 1, found)
    if any(after[0] - before[0] < NEAR for before, after in pairwise(best)):
        last = best[-1][0] + NEAR
        order = _settled(look, sorted(pair for pair in found if pair[0] <= last))
    else:
        order = [index for _, index in best]
    return order[:RANKED]


def _settled(look: Look, ordered: list[Loss]) -> list[int]:
    """Rows by loss, those that lose about the same by their exact terms."""
    models = look.snapshot.models
    runs = [[ordered[0][1]]]
    for (before, _), (loss, index) in pairwise(ordered):
        if loss - before < NEAR:
            runs[-1].append(index)
        else:
            runs.append([index])
    for run in runs:
        if len(run) > 1:
            run.sort(key=lambda i: place(look.terms(i), models[i]))
    return [index for run in runs for index in run]


def place(found: Terms, model: Model) -> tuple[float, float, float, str]:
    """Sorts best first: score, then cost, then latency, then name."""
    cost = found.cost_usd if found.cost_usd is not None else INFINITE
    return -found.score, cost, found.total_s, model.target
