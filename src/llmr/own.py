"""Rows that the owner of an upstream writes into the configuration, and what it vouches for."""

import hashlib

import msgspec

from llmr.config import ModelRow, UpstreamConfig
from llmr.core import capability, priors
from llmr.core.catalogue import Model, Snapshot
from llmr.core.lengths import of_family
from llmr.core.price import FIELDS, Prices, amount
from llmr.core.sourced import Figure


def vouched(name: str, config: UpstreamConfig) -> int:
    """What requests to an upstream may rely on, as bits."""
    # OpenRouter holds its providers to what `provider` in the request asks.
    own = name == "openrouter"
    bits = capability.REGIONS[config.region] if config.region else 0
    for told, bit in (
        (config.no_training, capability.NO_TRAINING),
        (config.no_retention, capability.NO_RETENTION),
    ):
        bits |= bit if (own if told is None else told) else 0
    return bits


def own_rows(upstream: str, rows: tuple[ModelRow, ...], vouched: int = 0) -> Snapshot:
    """A snapshot of the rows an upstream's owner wrote into the configuration."""
    models = tuple(_own_row(upstream, row, vouched) for row in rows)
    digest = hashlib.blake2b(msgspec.json.encode(rows), digest_size=6).hexdigest()
    return Snapshot(models, f"{upstream}-{digest}", {upstream: "configured"})


def _own_row(upstream: str, row: ModelRow, vouched: int) -> Model:
    supports = capability.mask_of(row.supports, capability.NAMES)
    if supports & capability.JSON_SCHEMA:
        supports |= capability.JSON_OBJECT
    if supports & capability.TOOLS:
        supports |= capability.TOOL_CHOICE
    supports |= capability.MAX_TOKENS | vouched
    per_1k = {"prompt": row.prompt_cost_per_1k, "completion": row.completion_cost_per_1k}
    prices = {
        name: price / 1000
        for name, value in per_1k.items()
        if name in FIELDS and (price := amount(value)) is not None
    }
    ttft = Figure(priors.TTFT_S, "estimated")
    if row.avg_latency_ms is not None:
        ttft = Figure(row.avg_latency_ms / 1000.0, "configured")
    tpot = Figure(1.0 / priors.TOKENS_PER_S, "estimated")
    if row.tokens_per_s is not None:
        tpot = Figure(1.0 / row.tokens_per_s, "configured")
    quality = Figure(0.5, "unknown", 0.2)
    if row.quality_score is not None:
        quality = Figure(row.quality_score, "configured")
    known = len(prices) == 2
    return Model(
        id=row.id,
        upstream=upstream,
        ttft_s=ttft,
        tpot_s=tpot,
        quality=quality,
        prices=Prices(prices),
        price_source="configured" if known else "unknown",
        context_length=row.context_length,
        max_output=row.max_output_tokens,
        supports=supports,
        barred=None if not row.id.startswith("fb-") else "fault",
        lengths=of_family(row.id),
    )
