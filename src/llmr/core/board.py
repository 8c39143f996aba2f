"""What is remembered from one decision to the next. Without it each decision is the same, later.

For requests of about one size most rows are out of the question. A `_Cell` has those that are not,
for prompts and answers between one size and the next. Every row loses least at the cell's low
corner, and what is kept is every row that loses no more than `bound` there. So, whenever enough of
the kept rows lose less than `bound` at the request's own size, no other row can be among the best.
When the figures of a row change, it is that row which is looked at again.
"""

from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest
from typing import Any

from msgspec import Struct

from llmr.core.banded import BandedCell, Corner, Filter, banded
from llmr.core.catalogue import Snapshot
from llmr.core.figures import (
    Figures,
    Loss,
    figures,
    figures_of,
    losses,
    static,
    thought_cap,
)
from llmr.core.look import INFINITE, MAY_NOT_FIT, Look
from llmr.core.quality.ability import EVEN
from llmr.core.request import Request
from llmr.core.scoring import roomy_limit

CELLS_KEPT = 2048  # some 5 KB each
RESULTS_KEPT = 2048
BANDED_KEPT = 256  # some 60 KB each
UNKNOWN: tuple[Figures, ...] = ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.0, EVEN), 0.0, 0.0, -1),)
SLACK = 1e-9  # what rounding could make of two equal losses


Awake = tuple[Mapping[str, tuple[float, str]], float, float, tuple[int, ...]]


class _Cell(Struct):
    """`rows` have the figures of telemetry `version`."""

    version: int
    bound: float
    rows: dict[int, Figures]


class Board:
    """Remembers what was worked out over one snapshot and the telemetry of one learner."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._version = 0
        self._cells: dict[tuple[Any, ...], _Cell] = {}
        self._banded: dict[tuple[Any, ...], BandedCell] = {}
        self._results: dict[Any, Any] = {}
        # By order: the cooling rows it was seen with, from when until when, and what is left.
        self.awake: dict[tuple[int, ...], Awake] = {}

    def forget(self, look: Look) -> None:
        """Forget what does not hold for this look."""
        if look.snapshot is not self._snapshot:
            self._snapshot = look.snapshot
            self._cells.clear()
            self._banded.clear()
            self._results.clear()
            self.awake.clear()
        elif look.telemetry.version != self._version:
            self._results.clear()
        self._version = look.telemetry.version

    def result(self, key: Any, work_out: Callable[[], Any]) -> Any:
        """What was worked out under this key from the telemetry in force."""
        found = self._results.get(key)
        if found is None:
            if len(self._results) >= RESULTS_KEPT:
                self._results.clear()
            found = self._results[key] = work_out()
        return found

    def losses(self, look: Look, count: int) -> tuple[list[Loss], float]:
        """The losses of some rows, and the bound below which no other row can be.

        Of the rows that pass at the usual spread, but for the caller's limits. `count` is how many
        of the best are wanted.
        """
        request = look.request
        corner = _corner(request)
        key = (_alike(look), corner, count)
        cell = self._cells.get(key)
        if cell is None or not self._brought_up(cell, look, corner):
            if cell is None and len(self._cells) >= CELLS_KEPT:
                del self._cells[next(iter(self._cells))]
            cell = self._cells[key] = _cell(look, corner, count)
        return losses(look, cell.rows.values()), cell.bound

    def on_curve(self, look: Look, count: int, allowed: Filter) -> list[Loss]:
        """The same for a prompt that was read; every row outside loses more than `count` inside."""
        corner = _octaves(look.request)
        key = (_alike(look), corner)
        cell, bands = self._banded.get(key), look.snapshot.bands
        moved: Sequence[Figures] = ()
        if cell is not None and cell.version != look.telemetry.version:
            moved = self._moved(look, cell.version)
            if moved is UNKNOWN:
                cell = None
            else:
                cell.move(look, bands, moved, corner)
        if cell is None:
            if len(self._banded) >= BANDED_KEPT:
                del self._banded[next(iter(self._banded))]
            cell = self._banded[key] = banded(look, bands, corner)
        return cell.losses(look, bands, count, allowed)

    def _moved(self, look: Look, since: int) -> tuple[Figures, ...]:
        moved: tuple[Figures, ...] = self.result(
            (since, *_alike(look)), lambda: _moved(look, since)
        )
        return moved

    def _brought_up(self, cell: _Cell, look: Look, corner: tuple[int, int, int]) -> bool:
        """Bring a cell up to the telemetry in force; False where it is too far behind."""
        since = cell.version
        if since == look.telemetry.version:
            return True
        moved = self._moved(look, since)
        if moved is UNKNOWN:
            return False
        prompt, output, most = corner
        need = prompt * MAY_NOT_FIT
        found = {i: loss for loss, i in static(moved, look.request, prompt, output, need, most)}
        for row in moved:
            index = row[-1]
            if found.get(index, INFINITE) <= cell.bound:
                cell.rows[index] = row
            else:
                cell.rows.pop(index, None)
        cell.version = look.telemetry.version
        return True


def _alike(look: Look) -> tuple[Any, ...]:
    """What requests of one cell have in common besides their size."""
    request = look.request
    return (
        int(look.now.wall // 86400),
        look.regime,
        request.needs,
        request.effort,
        thought_cap(request),
        roomy_limit(request),
        request.stream,
        request.weights,
        look.policy.usable,
    )


def _corner(request: Request) -> tuple[int, int, int]:
    """(prompt, output, longest answer) at the low corner."""
    most = request.max_tokens or 0
    return _low(request.prompt_tokens), _low(request.output_tokens), _low(most)


def _low(tokens: int) -> int:
    """The largest of 1, 1 + 1/2, 2, 3, 4, 6, 8, … that is no larger."""
    power = 1 << tokens.bit_length() >> 1
    return power + (power >> 1) if tokens >= power + (power >> 1) else power


def _high(low: int) -> int:
    """The next of them."""
    power = 1 << low.bit_length() >> 1
    return 2 * power if low > power else power + (power >> 1) or 1


def _octaves(request: Request) -> Corner:
    """The same, by octaves."""
    most = request.max_tokens or 0
    sizes = (request.prompt_tokens, request.output_tokens, most)
    prompt, output, most = (1 << size.bit_length() >> 1 for size in sizes)
    return prompt, output, most


def _cell(look: Look, corner: tuple[int, int, int], count: int) -> _Cell:
    request, rows = look.request, figures(look)
    prompt, output, most = corner
    highest = _high(most)
    need = _high(prompt) * MAY_NOT_FIT + highest
    surely = static(rows, request, _high(prompt), _high(output), need, highest)
    best = nsmallest(count, surely)
    bound = best[-1][0] + SLACK if len(best) == count else INFINITE
    by_row = {row[-1]: row for row in rows}
    perhaps = static(rows, request, prompt, output, prompt * MAY_NOT_FIT, most)
    return _Cell(
        look.telemetry.version, bound, {i: by_row[i] for loss, i in perhaps if loss <= bound}
    )


def _moved(look: Look, since: int) -> tuple[Figures, ...]:
    """The figures that changed since a version, `UNKNOWN` where that is not remembered."""
    telemetry = look.telemetry
    behind = telemetry.version - since
    if not 0 < behind <= len(telemetry.moves):
        return UNKNOWN
    moved = {index for step in telemetry.moves[-behind:] for index in step}
    return tuple(row for index in moved if (row := figures_of(look, index)) is not None)
