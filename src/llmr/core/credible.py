"""Which catalogue is believed: not one that is no list, lost half its models or went mad."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from llmr.core import price
from llmr.core.changes import Repriced

LEAST_SHARE = 0.5  # a reply with fewer of the known rows than this is not believed
JUMP = 100  # times dearer or cheaper than before
HELD_S = 86_400.0  # an odd price that stays for so long is believed
MOST_JUMPS, JUMPING_SHARE = 5, 0.2  # more of them are a mistake of the list, not of its rows
WATCHED = ("prompt", "completion")

Row = dict[str, Any]


class Judged(Struct):
    """What came of a reply. `problem`: why it is refused as a whole, None where it is not.

    `rows` by id, with the old prices where new ones are held back; `refused` are those, `held`
    since when. Ids are told apart to the letter: nobody's price is taken for another's.
    """

    problem: str | None
    rows: dict[str, Row] = {}
    refused: tuple[Repriced, ...] = ()
    held: dict[str, float] = {}


def judge(
    body: bytes,
    known: Mapping[str, Mapping[str, Any]],
    held: Mapping[str, float],
    now: float,
    *,
    accept: bool = False,
) -> Judged:
    """Whether the reply of `GET /models` can be right, beside the `pricing` of the known rows.

    `held` has since when an odd price was seen, in seconds since 1970 as `now` is. `accept`:
    whoever looks says that odd prices and lost rows are right.
    """
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Judged("it is not JSON")
    found = parsed.get("data") if isinstance(parsed, dict) else parsed
    if not isinstance(found, list):
        return Judged("it has no list of models")
    rows = {
        row["id"]: row for row in found if isinstance(row, dict) and isinstance(row.get("id"), str)
    }
    if not rows:
        return Judged("it lists no model")
    if accept or not known:
        return Judged(None, rows)
    if len(rows) < LEAST_SHARE * len(known):
        return Judged(f"it lists {len(rows)} models where {len(known)} were known")
    jumps = [
        jump for name in rows.keys() & known.keys() if (jump := _jump(rows[name], known[name]))
    ]
    jumps.sort(key=lambda jump: jump.model)
    if len(jumps) > max(MOST_JUMPS, JUMPING_SHARE * len(rows.keys() & known.keys())):
        first = jumps[0]
        return Judged(
            f"{len(jumps)} prices moved more than {JUMP} times, that of {first.model} from "
            f"{first.before} to {first.after} USD"
        )
    since = {jump.model: held.get(jump.model, now) for jump in jumps}
    refused = tuple(jump for jump in jumps if now - since[jump.model] < HELD_S)
    for jump in refused:
        rows[jump.model] = {**rows[jump.model], "pricing": known[jump.model]}
    return Judged(None, rows, refused, {jump.model: since[jump.model] for jump in refused})


def _jump(row: Row, known: Mapping[str, Any]) -> Repriced | None:
    """The first token price of a row that is not to be believed at once.

    A hundred times dearer or cheaper, or suddenly for nothing where the name does not say so.
    """
    pricing = row.get("pricing")
    old, new = price.amounts(known), price.amounts(pricing if isinstance(pricing, dict) else {})
    for field in WATCHED:
        was, now = old.get(field), new.get(field)
        if was is None or now is None or not was:
            continue
        if not now and row["id"].endswith(":free"):
            continue
        if not was / JUMP < now < was * JUMP:
            return Repriced(row["id"], field, was, now)
    return None
