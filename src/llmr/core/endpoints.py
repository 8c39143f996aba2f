"""What the providers behind one model do right now, from OpenRouter's `…/endpoints`.

Latency and throughput are null without a key. A first-token time under 20 is one in seconds: older
replies had those, and nobody starts within 20 ms.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmr.core import price
from llmr.core.catalogue import Model, Snapshot
from llmr.core.openrouter import first_content
from llmr.core.sourced import Figure

SECONDS_BELOW = 20.0
BAD_STATUS = -5  # from here down a provider is as good as gone
LEAST_UPTIME = 50.0  # percent of the last half hour
SLOWEST_S, FASTEST_TOKENS_PER_S = 600.0, 20_000.0


class Endpoints(Struct, frozen=True):
    """The providers of a model together, by the share of requests each is likely to get.

    `ttft_s` seconds to the first token, `tpot_s` seconds for each after it (None: not told),
    `uptime` in 0..1 over half an hour. The limits are those of the least provider that is well.
    """

    providers: int
    well: int
    ttft_s: float | None
    tpot_s: float | None
    uptime: float | None
    context_length: int | None
    max_output: int | None


def parse(reply: Any) -> Endpoints | None:
    """The endpoints in a reply, None where it is none. Providers that are down count as such."""
    data = reply.get("data") if isinstance(reply, dict) else None
    found = data.get("endpoints") if isinstance(data, dict) else None
    if not isinstance(found, list):
        return None
    usual = [one for one in found if isinstance(one, dict) and not one.get("service_tier")]
    well = [one for one in usual if _well(one)]
    shares = [_share(one) for one in well]
    rates = [_middle(one.get("throughput_last_30m"), FASTEST_TOKENS_PER_S) for one in well]
    return Endpoints(
        len(usual),
        len(well),
        _mean(zip(shares, map(_first_token_s, well), strict=True)),
        _mean((share, 1.0 / rate) for share, rate in zip(shares, rates, strict=True) if rate),
        _mean(
            (1.0, uptime / 100.0)
            for one in usual
            if (uptime := _number(one.get("uptime_last_30m"), 100.0)) is not None
        ),
        _least(one.get("context_length") for one in well),
        _least(one.get("max_completion_tokens") for one in well),
    )


def applied(snapshot: Snapshot, known: Mapping[str, Endpoints]) -> Snapshot:
    """The rows with what their providers do right now; the same snapshot where that is nothing."""
    if not known:
        return snapshot
    rows = tuple(
        _applied(row, known[row.id]) if row.id in known else row for row in snapshot.models
    )
    digest = hashlib.blake2b(msgspec.json.encode(sorted(known.items())), digest_size=3).hexdigest()
    return replace(snapshot, models=rows, version=f"{snapshot.version}.{digest}")


def _applied(row: Model, found: Endpoints) -> Model:
    tpot = row.tpot_s if found.tpot_s is None else Figure(found.tpot_s, "live")
    ttft = row.ttft_s
    if found.ttft_s is not None:
        ttft = first_content(row, Figure(found.ttft_s, "live"), tpot)
    return replace(
        row,
        ttft_s=ttft,
        tpot_s=tpot,
        context_length=_smaller(row.context_length, found.context_length),
        max_output=_smaller(row.max_output, found.max_output),
        uptime=found.uptime,
    )


def _smaller(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return min(known, default=None)


def _well(one: dict[str, Any]) -> bool:
    status = one.get("status")
    if isinstance(status, int | float) and status <= BAD_STATUS:
        return False
    uptime = _number(one.get("uptime_last_30m"), 100.0)
    return uptime is None or uptime >= LEAST_UPTIME


def _share(one: dict[str, Any]) -> float:
    """The weight of a provider: OpenRouter spreads requests by the inverse square of the price."""
    pricing = one.get("pricing")
    known = price.amounts(pricing) if isinstance(pricing, dict) else {}
    usd = float(known.get("prompt", 0) + known.get("completion", 0)) * 1e6
    return 1.0 / max(usd, 0.01) ** 2


def _first_token_s(one: dict[str, Any]) -> float | None:
    value = _middle(one.get("latency_last_30m"), SLOWEST_S * 1000.0)
    if value is None:
        return None
    return value if value < SECONDS_BELOW else value / 1000.0


def _middle(value: Any, most: float) -> float | None:
    """The median of percentiles, or the bare number that older replies had."""
    return _number(value.get("p50") if isinstance(value, dict) else value, most) or None


def _number(value: Any, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        return None
    return float(value)


def _mean(pairs: Iterable[tuple[float, float | None]]) -> float | None:
    known = [(share, value) for share, value in pairs if value is not None]
    total = sum(share for share, _ in known)
    return sum(share * value for share, value in known) / total if total else None


def _least(values: Iterable[Any]) -> int | None:
    known = [v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 < v < 1e12]
    return min(known, default=None)
