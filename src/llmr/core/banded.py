"""The rows that can be best for a prompt that was read, of requests of about one size.

A cell knows what every row loses by time and cost at the least, in bands of models that are about
equally able; what a band could do at best for a prompt is one figure. So the rows that open the
bands are looked at first, which gives a loss that the best cannot exceed; then, in each band, those
rows that could lose less. All prompts share a cell.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from operator import itemgetter

from msgspec import Struct

from llmr.core.bands import Bands
from llmr.core.figures import Figures, Loss, figures, losses, without_quality
from llmr.core.look import INFINITE, MAY_NOT_FIT, Look
from llmr.core.request import Request

OPENING = 2  # rows of each band that are looked at first
MANY = 3  # times as many near rows as are wanted: others would be better to begin with
SLACK = 2e-9  # what rounding could make of two equal losses, and of ties behind them

Filter = Callable[[list[Loss]], list[Loss]]
Corner = tuple[int, int, int]  # (prompt, output, longest answer) at the low corner of a cell


class _Band(Struct):
    """Rows by what they lose without quality at the low corner of their cell."""

    least: list[float]
    rows: list[Figures]


class BandedCell(Struct):
    """`bands` have the figures of telemetry `version`; `best` are rows that were best of late."""

    version: int
    bands: list[_Band]
    best: list[Figures] = []

    def losses(self, look: Look, bands: Bands, count: int, allowed: Filter) -> list[Loss]:
        """The losses of the rows that pass, the `count` best of all and perhaps some others.

        `allowed` leaves out what exceeds a limit.
        """
        by_quality = look.request.weights[2]
        first = self.best or [row for band in self.bands for row in band.rows[:OPENING]]
        opening = _of(look, first, allowed)
        most = INFINITE
        if len(opening) >= count:
            most = sorted(opening)[count - 1][0] + SLACK
        near: list[Figures] = []
        for band, best in zip(self.bands, bands.best(look.request.curve), strict=True):
            near += band.rows[: bisect_right(band.least, most + by_quality * best)]
        found = _of(look, near, allowed)
        if len(near) > MANY * count:
            known = {index for _, index in nsmallest(count, found)}
            self.best = [row for row in near if row[-1] in known]
        return found

    def move(self, look: Look, bands: Bands, moved: Sequence[Figures], corner: Corner) -> None:
        """Put rows whose figures changed where they belong now."""
        for row in moved:
            _remove(self.bands[bands.of[row[-1]]], row[-1])
        for least, row in _at(look.request, moved, corner):
            band = self.bands[bands.of[row[-1]]]
            place = bisect_left(band.least, least)
            band.least.insert(place, least)
            band.rows.insert(place, row)
        by_row = {row[-1]: row for row in moved}
        self.best = [by_row.get(row[-1], row) for row in self.best]
        self.version = look.telemetry.version


def _of(look: Look, rows: Sequence[Figures], allowed: Filter) -> list[Loss]:
    return allowed(losses(look, rows))


def banded(look: Look, bands: Bands, corner: Corner) -> BandedCell:
    """A cell of requests like this one."""
    found: list[list[tuple[float, Figures]]] = [[] for _ in range(bands.count)]
    for pair in _at(look.request, figures(look), corner):
        found[bands.of[pair[1][-1]]].append(pair)
    for band in found:
        band.sort(key=itemgetter(0))
    return BandedCell(
        look.telemetry.version,
        [_Band([least for least, _ in band], [row for _, row in band]) for band in found],
    )


def _at(request: Request, rows: Iterable[Figures], corner: Corner) -> list[tuple[float, Figures]]:
    """What the rows that fit the low corner lose there, without quality."""
    prompt, output, most = corner
    by_row = {row[-1]: row for row in rows}
    found = without_quality(by_row.values(), request, prompt, output, prompt * MAY_NOT_FIT, most)
    return [(loss, by_row[index]) for loss, index in found]


def _remove(band: _Band, index: int) -> None:
    for place, row in enumerate(band.rows):
        if row[-1] == index:
            del band.rows[place], band.least[place]
            return
