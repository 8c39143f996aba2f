"""Measured times as percentiles."""

from collections.abc import Iterable

from msgspec import Struct


class Spread(Struct, frozen=True):
    """Percentiles of `count` times, in microseconds; all 0 where nothing was measured."""

    count: int
    p50: float
    p95: float
    p99: float
    p999: float
    most: float


def spread(seconds: Iterable[float]) -> Spread:
    """The percentiles of some times, each one that was really measured: nothing is interpolated."""
    ordered = sorted(seconds)
    count = len(ordered)
    if not count:
        return Spread(0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def at(share: float) -> float:
        return round(ordered[min(count - 1, int(share * count))] * 1e6, 2)

    return Spread(count, at(0.5), at(0.95), at(0.99), at(0.999), at(1.0))
