"""Small builders for the pure core: rows, snapshots, requests from real bodies, decisions."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, settings

from llmr.core import capability
from llmr.core import request as requests
from llmr.core.body import Body
from llmr.core.catalogue import Model, Snapshot
from llmr.core.decide import Decision, Now, Policy, decide
from llmr.core.price import UNKNOWN, Override, Prices
from llmr.core.request import Request
from llmr.core.sourced import Figure
from llmr.core.telemetry import Telemetry

# Properties: the same examples on every run, and no example fails for being slow.
settings.register_profile(
    "tests",
    derandomize=True,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

NOW = Now(1000.0, 1_786_968_000.0)  # Monday 2026-08-17, 12:00 UTC
POLICY = Policy(frozenset(("lab", "openrouter")))


def prices(
    prompt: str | int | Decimal, completion: str | int | Decimal, *overrides: Override
) -> Prices:
    """Prices in USD per 1,000 tokens."""
    base = {"prompt": Decimal(prompt) / 1000, "completion": Decimal(completion) / 1000}
    return Prices(base, overrides)


def model(
    name: str = "lab/one",
    *,
    upstream: str = "lab",
    ttft: float = 1.0,
    tpot: float = 0.02,
    price: tuple[str, str] | Prices | None = ("0.001", "0.002"),
    quality: float | Figure = 0.5,
    supports: Sequence[str] = (),
    context: int | None = 128_000,
    max_output: int | None = None,
    **more: Any,
) -> Model:
    """A row with plain figures. `price` is USD per 1,000 tokens, None where it is unknown."""
    if price is None:
        price = UNKNOWN
    elif isinstance(price, tuple):
        price = prices(*price)
    known = price.known
    return Model(
        id=name,
        upstream=upstream,
        ttft_s=Figure(ttft, "configured"),
        tpot_s=Figure(tpot, "configured"),
        quality=quality if isinstance(quality, Figure) else Figure(quality, "configured"),
        prices=price,
        price_source="configured" if known else "unknown",
        context_length=context,
        max_output=max_output,
        supports=capability.mask_of((*supports, "max_tokens"), capability.NAMES),
        free=known and not price.base["prompt"] and not price.base["completion"],
        **more,
    )


def snapshot(*models: Model, version: str = "") -> Snapshot:
    """A snapshot of these rows; equal rows have an equal version."""
    digest = version or f"test-{hash(msgspec.json.encode(models)):x}"
    return Snapshot(models, digest, {"lab": "2026-08-17"})


def telemetry(of: Snapshot, cooling: Mapping[str, str] | None = None) -> Telemetry:
    """What is known before anything was measured. `cooling` maps targets to reasons."""
    ttft = tuple(row.ttft_s.value for row in of.models)
    return Telemetry(
        version=1,
        ttft_s=ttft,
        tpot_s=tuple(row.tpot_s.value for row in of.models),
        slow_s=tuple(2.5 * seconds for seconds in ttft),
        measured={},
        moves=(),
        whole_tpot_s=tuple(row.tpot_s.value for row in of.models),
        doubt=tuple(0.5 for _ in of.models),
        efforts={},
        cooling={key: (NOW.monotonic + 60.0, why) for key, why in (cooling or {}).items()},
    )


def raw(**fields: Any) -> bytes:
    """The bytes of a chat request with these fields."""
    return json.dumps({"messages": [{"role": "user", "content": "Hello."}], **fields}).encode()


def request(headers: Mapping[str, str] | None = None, **fields: Any) -> Request:
    """What routing reads in a chat request with these fields."""
    return requests.parse(Body(raw(**fields)), headers or {}, model_optional=True)


def decided(
    rows: Snapshot | Sequence[Model],
    *,
    policy: Policy = POLICY,
    now: Now = NOW,
    cooling: Mapping[str, str] | None = None,
    **fields: Any,
) -> Decision:
    """The decision for a chat request with these fields over these rows."""
    of = rows if isinstance(rows, Snapshot) else snapshot(*rows)
    return decide(request(**fields), of, telemetry(of, cooling), policy, now)


def names(decision: Decision) -> list[str]:
    """The ids that will be tried, in order."""
    return [decision.snapshot.models[i].id for i in decision.chain]


def pick(rows: Snapshot | Sequence[Model], **fields: Any) -> str:
    """The id of the first choice."""
    return decided(rows, **fields).model.id
