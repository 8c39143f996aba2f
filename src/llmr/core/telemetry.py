"""What decisions know of the world: expectations per row, and who is to be left alone."""

from collections.abc import Mapping

from msgspec import Struct


class Telemetry(Struct, frozen=True):
    """Expectations for each row of a snapshot, in its order, and targets that cool down.

    `tpot_s` is that of streams, `whole_tpot_s` that of answers in one piece; `efforts` has the
    first-token times by row and reasoning effort where some were measured, `doubt` the standard
    deviation of the logarithm of `ttft_s`, which counts the sends that are going to fail.
    `slow_s` is the first-token time that one in twenty answers exceeds. `cooling` maps a target or
    an account to (until, reason), on the monotonic clock. `moves` has the rows whose figures
    changed with each of the last versions, this one last.
    """

    version: int
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    slow_s: tuple[float, ...]
    measured: Mapping[str, int]
    cooling: Mapping[str, tuple[float, str]]
    moves: tuple[tuple[int, ...], ...]
    whole_tpot_s: tuple[float, ...]
    doubt: tuple[float, ...]
    efforts: Mapping[tuple[int, str], float]
