"""Keeping the catalogue current, off the request path.

Each upstream has a `Source`: the rows in force, where they are from, and what the last look at the
upstream found. A reply that cannot be right is refused; the rows in force stay, and say how old
they are.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from llmr import bundle
from llmr.config import ModelRow, UpstreamConfig
from llmr.core import capability, openrouter, priors
from llmr.core.catalogue import Figure, Model, Snapshot, merge
from llmr.core.classify import scrub
from llmr.core.lengths import of_family
from llmr.core.price import FIELDS, Prices, amount
from llmr.upstreams.base import Send, TransportError, Upstream
from llmr.upstreams.reading import ReadTimeout, send

log = logging.getLogger("llmr.catalogue")

INTERVAL_S = 3600.0
RETRY_S = (5.0, 30.0, 120.0, 600.0)
FETCH_S = 20.0
REPLY_LIMIT = 32 * 1024 * 1024
LEAST_SHARE = 0.5  # a reply with fewer of the known rows than this is not believed


class Source:
    """The rows of one upstream, and what is known of the upstream itself."""

    def __init__(self, name: str, config: UpstreamConfig, upstream: Upstream) -> None:
        self.name = name
        self.upstream = upstream
        self.missing_key = config.api_key == ""
        self.own_rows = config.models is not None
        self._vouched = vouched(name, config)
        self.accessible = False
        self.error: str | None = None
        self.checked: float | None = None
        self.origin = "none"
        self.snapshot = Snapshot((), f"{name}-empty", {name: "never"})
        if config.models is not None:
            self.snapshot, self.origin = own_rows(name, config.models, self._vouched), "configured"
        elif name == "openrouter":
            self.snapshot, self.origin = bundle.catalogue(name, self._vouched), "bundled"

    def status(self) -> dict[str, Any]:
        """What `/health` says of this upstream."""
        return {
            "accessible": self.accessible,
            "key": "missing" if self.missing_key else "ok",
            "models": len(self.snapshot.models),
            "routable": len(self.snapshot.routable),
            "catalogue": self.origin,
            "captured": self.snapshot.captured.get(self.name, "never"),
            "error": self.error,
            "checked_at": self.checked,
        }

    async def look(self) -> bool:
        """Fetch the upstream's rows once; True where they are in force afterwards."""
        try:
            status, body = await self._fetch()
        except (TransportError, ReadTimeout) as error:
            return self._failed(f"not reachable: {error}", False)
        self.checked = time.time()
        self.accessible = status < 500
        if self.own_rows:
            self.error = None
            return True
        if status != 200:
            return self._failed(f"GET /models answered {status}", self.accessible)
        # In a thread: it takes a tenth of a second, and requests go on meanwhile.
        problem, found = await asyncio.to_thread(self._read, body)
        if problem is not None or found is None:
            return self._failed(f"the catalogue was refused: {problem}", True)
        self.snapshot = found
        self.origin, self.error = "live", None
        return True

    def _read(self, body: bytes) -> tuple[str | None, Snapshot | None]:
        """(what is wrong with a catalogue reply or None, its rows)."""
        problem, rows = _believable(body, self.snapshot if self.origin != "none" else None)
        if problem is not None:
            return problem, None
        return None, openrouter.snapshot(
            rows,
            upstream=self.name,
            captured=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            recorded=bundle.latency(),
            boards=bundle.boards(),
            citation=self.snapshot.citation,
            vouched=self._vouched,
        )

    def _failed(self, text: str, accessible: bool) -> bool:
        if text != self.error:
            log.warning("upstream %s: %s", self.name, text)
        self.error, self.accessible, self.checked = scrub(text), accessible, time.time()
        return False

    async def _fetch(self) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        until = loop.time() + FETCH_S
        wish = Send("GET", "/models")
        response = await send(self.upstream, wish, connect_until=loop.time() + 5.0, until=until)
        try:
            pieces, size = [], 0
            while data := await response.read(until):
                pieces.append(data)
                size += len(data)
                if size > REPLY_LIMIT:
                    raise TransportError("too_large", "the catalogue reply is too large")
            return response.status, b"".join(pieces)
        finally:
            response.close()


def _believable(body: bytes, known: Snapshot | None) -> tuple[str | None, list[Any]]:
    """(what is wrong with a catalogue reply or None, its rows)."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "it is not JSON", []
    rows = parsed.get("data") if isinstance(parsed, dict) else parsed
    if not isinstance(rows, list):
        return "it has no list of models", []
    names = (row.get("id") for row in rows if isinstance(row, dict))
    ids = {name for name in names if isinstance(name, str)}
    if not ids:
        return "it lists no model", []
    if known is not None and known.models and len(ids) < LEAST_SHARE * len(known.models):
        return f"it lists {len(ids)} models where {len(known.models)} were known", []
    return None, rows


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
    digest = hash_of(rows)
    return Snapshot(models, f"{upstream}-{digest}", {upstream: "configured"})


def hash_of(value: Any) -> str:
    """A short digest of plain data."""
    import hashlib

    return hashlib.blake2b(msgspec.json.encode(value), digest_size=6).hexdigest()


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


class Refresh:
    """Looks at every source at start and from time to time, and publishes the merged snapshot."""

    def __init__(self, sources: Mapping[str, Source], publish: Callable[[Snapshot], None]) -> None:
        self._sources = sources
        self._publish = publish

    def snapshot(self) -> Snapshot:
        return merge(source.snapshot for source in self._sources.values())

    async def once(self) -> None:
        """Look at every source that can be looked at, together, and publish what was found."""
        sources = [s for s in self._sources.values() if not s.missing_key]
        await asyncio.gather(*(source.look() for source in sources))
        self._publish(self.snapshot())

    async def run(self) -> None:
        """Look on a timer, until cancelled; sooner again after a failure."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources.values():
                if not source.missing_key:
                    group.create_task(self._watch(source))

    async def _watch(self, source: Source) -> None:
        failed = 0
        while True:
            try:
                good = await source.look()
            except Exception:
                # The root of this source's watch. `look` knows how an upstream fails; what else is
                # raised is a mistake of ours, which must not end the looks at every other source.
                log.exception("looking at upstream %s failed", source.name)
                good = source._failed("the look at its catalogue failed; see the log", False)
            self._publish(self.snapshot())
            wait = INTERVAL_S if good else RETRY_S[min(failed, len(RETRY_S) - 1)]
            failed = 0 if good else failed + 1
            await asyncio.sleep(wait * random.uniform(0.9, 1.1))
