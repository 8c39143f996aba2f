"""The catalogue: one immutable snapshot of every model that can be named or routed to."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from msgspec import Struct

from llmr.core.bands import Able, Bands
from llmr.core.lengths import USUAL, Lengths
from llmr.core.price import UNKNOWN, Prices
from llmr.core.quality.ability import KNOWN_SD, Ability, Skill, logit, of_probability, sigmoid
from llmr.core.sourced import Figure

# Why a row is never a candidate of `auto`. It can still be pinned by name.
ROUTER = "router"
BATCH = "batch"
ALIAS = "alias"
NOT_CHAT = "not_chat"
FAULT = "fault"

# Suffixes that change how a known row is served, not what it is or whether it is paid for.
VARIANTS = frozenset(("nitro", "floor", "exacto", "online"))

LEAST = 0.005  # qualities nearer to 0 or 1 count as this near


def figure(ability: Ability) -> Figure:
    """The mean quality of an ability; an estimate where published facts do not pin it down."""
    value, sd = ability.probability, ability.probability_sd
    known = ability.sources and sd <= KNOWN_SD
    return Figure(round(value, 4), "published" if known else "estimated", round(sd, 4))


class Model(Struct, frozen=True, kw_only=True, dict=True):
    """One row: a model as one upstream serves it.

    Latency is `ttft_s`, seconds to the first content token, and `tpot_s`, seconds per output token
    after it. `quality` is the prior probability that an answer is good, `placed` how it was found
    where it was worked out from public facts, `learned` what feedback adds to its skill;
    `uptime` is that of its providers over half an hour, 0..1, and `lengths` how it counts and
    writes. A model
    that `thinks_aloud` streams its reasoning, so the time it takes is known apart from the time to
    its first content.
    """

    id: str
    upstream: str
    ttft_s: Figure
    tpot_s: Figure
    quality: Figure
    prices: Prices = UNKNOWN
    price_source: str = "unknown"
    context_length: int | None = None
    max_output: int | None = None
    supports: int = 0
    reasoning_mandatory: bool = False
    reasoning_default: bool = False
    default_effort: str | None = None
    thinks_aloud: bool = False
    free: bool = False
    expires: str | None = None
    created: int | None = None
    barred: str | None = None
    placed: Ability | None = None
    learned: Skill | None = None
    lengths: Lengths = USUAL
    moderated: bool = False
    uptime: float | None = None

    @cached_property
    def ability(self) -> Ability:
        """What it can do by kind of task; the same on every kind where nobody told more."""
        return self.placed or of_probability(self.quality.value, self.quality.sd)

    @cached_property
    def believed(self) -> float:
        """The quality to choose by where no prompt is read, with what feedback adds to it."""
        cautious = self.quality.cautious
        if self.learned is None:
            return cautious
        return sigmoid(logit(min(max(cautious, LEAST), 1.0 - LEAST)) + self.learned[0])

    @cached_property
    def skill(self) -> Skill:
        """What it can do as far as one may count on it: the logit of its quality, and by kind."""
        overall, by_kind = self.shipped_skill
        if self.learned is None:
            return overall, by_kind
        more, by_more = self.learned
        return overall + more, tuple(a + b for a, b in zip(by_kind, by_more, strict=True))

    @cached_property
    def shipped_skill(self) -> Skill:
        """The same before anything that was learned from feedback here."""
        return logit(min(max(self.quality.cautious, LEAST), 1.0 - LEAST)), self.ability.by_kind

    @cached_property
    def target(self) -> str:
        """The name of this target in health state, logs and metrics."""
        return f"{self.upstream}/{self.id}"

    @cached_property
    def health_keys(self) -> tuple[str, ...]:
        """The names under which the target, its account and its free allowance may be cooling."""
        own = (self.target, self.upstream)
        return (*own, f"{self.upstream}:free") if self.free else own


class Snapshot(Struct, frozen=True, dict=True):
    """One version of the catalogue. `captured` says of when each upstream's rows are."""

    models: tuple[Model, ...]
    version: str
    captured: Mapping[str, str]
    citation: str = ""

    @cached_property
    def by_id(self) -> dict[str, tuple[int, ...]]:
        """Positions of the rows with an id, one per upstream that serves it."""
        found: dict[str, list[int]] = {}
        for index, model in enumerate(self.models):
            found.setdefault(model.id, []).append(index)
        return {key: tuple(value) for key, value in found.items()}

    @cached_property
    def routable(self) -> tuple[int, ...]:
        """Positions of the rows that `auto` may pick."""
        return tuple(i for i, model in enumerate(self.models) if model.barred is None)

    @cached_property
    def price_edges(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Prompt sizes, and UTC times (HHMM), at which some price changes."""
        rules = [rule for model in self.models for rule in model.prices.overrides]
        sizes = {rule.min_prompt_tokens for rule in rules}
        times = {time for rule in rules for time in (rule.utc_start, rule.utc_end)}
        times |= {0 for rule in rules if rule.utc_days is not None}
        return (
            tuple(sorted(s for s in sizes if s is not None)),
            tuple(sorted(t for t in times if t is not None)),
        )

    @cached_property
    def bands(self) -> Bands:
        """The rows that `auto` may pick, by ability."""
        rows = [(i, self.models[i]) for i in self.routable]
        return Bands([Able(i, row.believed, row.skill) for i, row in rows])

    @cached_property
    def columns(self) -> dict[Any, Any]:
        """Figures worked out from these rows alone, kept because they are asked for again."""
        return {}

    def find(self, model_id: str) -> tuple[int, ...]:
        """The rows a name stands for: itself, or the base row of a serving variant."""
        if found := self.by_id.get(model_id):
            return found
        base, _, variant = model_id.rpartition(":")
        return self.by_id.get(base, ()) if variant in VARIANTS else ()

    def nearest(self, model_id: str, count: int = 3) -> list[str]:
        """The ids most like a name that is not there."""
        name = model_id[:200].lower()
        names = [i for i, rows in self.by_id.items() if self.models[rows[0]].barred is None]
        tail = name.rsplit("/", 1)[-1]
        inside = sorted((i for i in names if tail and tail in i), key=lambda i: (len(i), i))[:count]
        tails = {i.rsplit("/", 1)[-1]: i for i in reversed(names)}
        close = difflib.get_close_matches(name, names, count, 0.5)
        close += [tails[t] for t in difflib.get_close_matches(tail, tails, count, 0.6)]
        return list(dict.fromkeys([*inside, *close]))[:count]


def merge(parts: Iterable[Snapshot]) -> Snapshot:
    """One snapshot of several upstreams' rows, in the given order."""
    parts = list(parts)
    return Snapshot(
        tuple(model for part in parts for model in part.models),
        "+".join(part.version for part in parts),
        {name: date for part in parts for name, date in part.captured.items()},
        " ".join(part.citation for part in parts if part.citation),
    )
