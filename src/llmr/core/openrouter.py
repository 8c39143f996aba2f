"""Catalogue rows from OpenRouter's `GET /models`, with its traps handled.

Rows are untrusted: a row that cannot be read is left out, never guessed at.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from llmr.core import capability, price, priors
from llmr.core.catalogue import (
    ALIAS,
    BATCH,
    FAULT,
    NOT_CHAT,
    ROUTER,
    Model,
    Snapshot,
    figure,
)
from llmr.core.lengths import of_family
from llmr.core.quality.ability import Ability
from llmr.core.quality.boards import INDICES, Board
from llmr.core.quality.facts import Facts
from llmr.core.quality.placing import place
from llmr.core.scoring import usual_thinking
from llmr.core.sourced import Figure

# Chat-shaped rows that do something else than answer: moderation, code patching, routing.
NOT_CHAT_NAME = re.compile(
    r"(?:^|[-/.])(?:guard|safeguard|content-safety|moderation|apply|morph-v\d|embed\w*|rerank\w*"
    r"|lyria|classify|decisions?|decider)(?:[-/.:]|$)"
)
ROUTER_NAME = re.compile(r"^openrouter/|(?:^|[-/])router(?:[-/:]|$)")
# Recorded first-token times of these include the thinking, which they do not stream.
HIDES_THINKING = frozenset(("openai", "google", "x-ai"))
LONGEST_ID = 256
# A bare server lists names and nothing of what they can do: most take tools and JSON nowadays.
UNTOLD = (
    capability.TOOLS
    | capability.TOOL_CHOICE
    | capability.JSON_OBJECT
    | capability.JSON_SCHEMA
    | capability.MAX_TOKENS
)
FAR_FUTURE = "2090"  # sentinel dates such as 2098-12-31 mean: no end announced


def snapshot(
    rows: Iterable[Any],
    *,
    upstream: str,
    captured: str,
    recorded: Mapping[str, priors.Recorded],
    boards: Sequence[Board] = (),
    citation: str = "",
    vouched: int = 0,
) -> Snapshot:
    """A snapshot of one upstream's rows in the wire shape of `GET /models`.

    `boards` are published boards beside what the rows themselves tell. `vouched` has what the
    upstream grants for every row: privacy and region, as bits.
    """
    good = {row["id"]: row for row in rows if _readable(row)}
    unknown = Facts("")
    facts = {name: facts_of(row) for name, row in good.items() if _barred(row) is None}
    abilities = place([*facts.values(), unknown], boards)
    latency = priors.latency(facts, recorded)
    models = []
    for model_id, row in good.items():
        ttft, tpot = latency.get(model_id, priors.UNKNOWN)
        ability = abilities.get(model_id, abilities[unknown.id])
        models.append(_model(row, upstream, ttft, tpot, ability, vouched))
    digest = hashlib.blake2b(msgspec.json.encode(list(good.values())), digest_size=6).hexdigest()
    return Snapshot(tuple(models), f"{upstream}-{digest}", {upstream: captured}, citation)


def _readable(row: Any) -> bool:
    name = row.get("id") if isinstance(row, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_ID:
        return False
    return name.isprintable() and " " not in name  # it goes into headers and log lines


def _strings(value: Any) -> Sequence[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _positive(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < 1e12 else None


def _barred(row: Mapping[str, Any]) -> str | None:
    """Why this row is never a candidate, or None."""
    name = row["id"]
    outputs = _strings(_object(row.get("architecture")).get("output_modalities"))
    kind = row.get("kind", "chat")
    if kind == FAULT or name.rsplit("/", 1)[-1].startswith("fb-"):
        return FAULT
    if name.startswith("~") or row.get("alias_target"):
        return ALIAS
    if name.endswith(":batch"):
        return BATCH
    if ROUTER_NAME.search(name) or _negative(row):
        return ROUTER
    if kind != "chat" or (outputs and list(outputs) != ["text"]) or NOT_CHAT_NAME.search(name):
        return NOT_CHAT
    return None


def _negative(row: Mapping[str, Any]) -> bool:
    """The sentinel -1: the price depends on where a router sends the request."""
    pricing = _object(row.get("pricing"))
    return any(str(pricing.get(key, "")).startswith("-") for key in ("prompt", "completion"))


def facts_of(row: Mapping[str, Any]) -> Facts:
    """What a row tells of its model, unreadable figures left out."""
    prices = price.parse(_object(row.get("pricing"))).base
    usd = None
    if "prompt" in prices and "completion" in prices:
        usd = float(prices["prompt"] * 3 + prices["completion"]) / 4 * 1e6 or None
    benchmarks = _object(row.get("benchmarks"))
    return Facts(
        row["id"],
        usd,
        _positive(row.get("created")),
        bool(_object(row.get("reasoning"))),
        _indices(benchmarks),
        _arenas(benchmarks),
    )


def _indices(benchmarks: Mapping[str, Any]) -> dict[str, float]:
    published = _object(benchmarks.get("artificial_analysis"))
    read = {name: _figure(published.get(f"{name}_index")) for name in INDICES}
    return {name: figure for name, figure in read.items() if figure is not None}


def _arenas(benchmarks: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    ratings = benchmarks.get("design_arena")
    out = {}
    for entry in ratings if isinstance(ratings, list) else ():
        arena, category = _object(entry).get("arena"), _object(entry).get("category")
        if isinstance(arena, str) and isinstance(category, str):
            elo = _figure(entry.get("elo"))
            if elo is not None:
                out[arena, category] = elo
    return out


def _figure(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= 1e6:
        return None
    return float(value)


def _model(
    row: Mapping[str, Any],
    upstream: str,
    ttft: Figure,
    tpot: Figure,
    ability: Ability,
    vouched: int,
) -> Model:
    architecture = _object(row.get("architecture"))
    limits = _object(row.get("top_provider"))
    reasoning = _object(row.get("reasoning"))
    prices = price.parse(_object(row.get("pricing")))
    expires, family = row.get("expiration_date"), architecture.get("tokenizer")
    lengths = [
        _positive(row.get("context_length")),
        _positive(row.get("max_model_len")),
        _positive(limits.get("context_length")),
    ]
    supports = vouched if "supported_parameters" in row else vouched | UNTOLD
    supports |= (
        capability.mask_of(_strings(row.get("supported_parameters")), capability.PARAMETERS)
        | capability.mask_of(_strings(architecture.get("input_modalities")), capability.INPUTS)
        | capability.mask_of(_strings(architecture.get("output_modalities")), capability.OUTPUTS)
    )
    model = Model(
        id=row["id"],
        upstream=upstream,
        ttft_s=ttft,
        tpot_s=tpot,
        quality=figure(ability),
        placed=ability,
        prices=prices,
        price_source="published" if prices.known else "unknown",
        # The row's own figure is the maximum over providers; the top provider may serve less.
        context_length=min((n for n in lengths if n), default=None),
        max_output=_positive(limits.get("max_completion_tokens")),
        supports=supports,
        reasoning_mandatory=reasoning.get("mandatory") is True,
        reasoning_default=reasoning.get("default_enabled") is True,
        default_effort=effort
        if isinstance(effort := reasoning.get("default_effort"), str)
        else None,
        thinks_aloud=row["id"].split("/", 1)[0] not in HIDES_THINKING,
        free=prices.known and not prices.base["prompt"] and not prices.base["completion"],
        expires=expires if isinstance(expires, str) and "2" <= expires < FAR_FUTURE else None,
        created=_positive(row.get("created")),
        barred=_barred(row),
        moderated=limits.get("is_moderated") is True,
        lengths=of_family(row["id"], family if isinstance(family, str) else None),
    )
    first = first_content(model, ttft, tpot)
    return model if first is ttft else replace(model, ttft_s=first)


def first_content(model: Model, ttft: Figure, tpot: Figure) -> Figure:
    """Seconds to the first token of the answer, from those to the first token of any kind."""
    thought = usual_thinking(model)
    if not thought or not model.thinks_aloud:
        return ttft
    return Figure(ttft.value + thought * tpot.value, "estimated")
