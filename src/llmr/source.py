"""One upstream's catalogue: the rows in force, where they are from, and what the last look found.

A reply that cannot be right is refused; the rows in force stay, and say how old they are. The last
good list is kept on disk.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from llmr import bundle, shelf
from llmr.config import UpstreamConfig
from llmr.core import credible, endpoints, openrouter
from llmr.core.catalogue import Snapshot
from llmr.core.changes import Changes, Repriced, changes
from llmr.core.classify import scrub
from llmr.core.credible import Judged
from llmr.core.endpoints import Endpoints
from llmr.own import own_rows, vouched
from llmr.upstreams.base import Send, TransportError, Upstream
from llmr.upstreams.reading import ReadTimeout, send

log = logging.getLogger("llmr.catalogue")

CONNECT_S, FETCH_S = 5.0, 20.0
REPLY_LIMIT = 32 * 1024 * 1024
STAMP = "%Y-%m-%dT%H:%M:%SZ"


class _Listed(Struct, frozen=True):
    """The list that the rows in force are from: what a later one is held against."""

    pricing: Mapping[str, Any]
    etag: str | None = None
    modified: str | None = None
    held: Mapping[str, float] = {}
    refused: tuple[Repriced, ...] = ()


class _Reply(Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Source:
    """The rows of one upstream, and what is known of the upstream itself."""

    def __init__(
        self, name: str, config: UpstreamConfig, upstream: Upstream, folder: Path | None = None
    ) -> None:
        """`folder`: where the last good list is kept; None: nowhere."""
        self.name = name
        self.upstream = upstream
        self.missing_key = config.api_key == ""
        self.own_rows = config.models is not None
        self.accessible = False
        self.error: str | None = None
        self.checked: float | None = None
        self.origin = "none"
        self.changes: Changes | None = None
        self._base_url = config.base_url or ""
        self._vouched = vouched(name, config)
        self._path = folder / f"catalogue-{name}.json" if folder and not self.own_rows else None
        self._stamp = shelf.stamp(self._path)
        self._confirmed: float | None = None
        self._closer: dict[str, Endpoints] = {}
        self._listed = _Listed({})
        self._list = Snapshot((), f"{name}-empty", {name: "never"})
        if config.models is not None:
            self._list, self.origin = own_rows(name, config.models, self._vouched), "configured"
        elif kept := self._kept():
            self._list, self._listed, self.origin = self._of(kept), _listed(kept), "kept"
        elif name == "openrouter":
            self._list, self.origin = bundle.catalogue(name, self._vouched), "bundled"
        self.snapshot = self._list

    def status(self) -> dict[str, Any]:
        """What `/health` says of this upstream."""
        return {
            "accessible": self.accessible,
            "key": "missing" if self.missing_key else "ok",
            "models": len(self.snapshot.models),
            "routable": len(self.snapshot.routable),
            "catalogue": self.origin,
            "captured": self.snapshot.captured.get(self.name, "never"),
            "age_s": self.age_s(time.time()),
            "refused": [told(jump) for jump in self._listed.refused],
            "error": self.error,
            "checked_at": self.checked,
        }

    @property
    def path(self) -> Path | None:
        """The file in which the last good list is kept."""
        return self._path

    def age_s(self, now: float) -> float | None:
        """Seconds since the upstream was known to list these rows; None for rows of one's own."""
        since = self._confirmed
        if since is None:
            try:
                moment = datetime.fromisoformat(self.snapshot.captured.get(self.name, ""))
            except ValueError:
                return None
            since = moment.replace(tzinfo=UTC).timestamp()
        return round(max(0.0, now - since), 1)

    def inherit(self, before: "Source") -> None:
        """Take over what another source of the same upstream has found."""
        self.accessible, self.error, self.checked = before.accessible, before.error, before.checked
        self.origin, self._list, self._listed = before.origin, before._list, before._listed
        self._confirmed, self._closer, self._stamp = (
            before._confirmed,
            before._closer,
            before._stamp,
        )
        self.snapshot = before.snapshot

    # --- the list ---

    async def look(self, *, accept: bool = False, keep: bool = True) -> bool:
        """Fetch the upstream's rows once; True where they are in force afterwards.

        `accept`: odd prices and lost rows are right. `keep`: a good list goes into the file. What
        others have put there since counts as known.
        """
        if not self.own_rows and shelf.stamp(self._path) != self._stamp:
            await asyncio.to_thread(self._look_at_shelf)
        try:
            reply = await self._fetch("/models", self._conditions(accept))
        except (TransportError, ReadTimeout) as error:
            return self.failed(f"not reachable: {error}", False)
        self.checked = time.time()
        self.accessible = reply.status < 500
        if self.own_rows:
            self.error = None
            return True
        if reply.status == 304:
            self.error, self._confirmed, self.origin = None, self.checked, "live"
            return True
        if reply.status != 200:
            return self.failed(f"GET /models answered {reply.status}", self.accessible)
        # In a thread: it takes a tenth of a second, and requests go on meanwhile.
        problem = await asyncio.to_thread(self._take, reply, accept, keep, self.checked)
        if problem is not None:
            return self.failed(f"the catalogue was refused: {problem}", True)
        self.error, self._confirmed = None, self.checked
        return True

    def _conditions(self, accept: bool) -> tuple[tuple[bytes, bytes], ...]:
        listed = self._listed
        if accept or listed.held:  # it is the prices that are looked at again
            return ()
        if listed.etag is not None:
            return ((b"if-none-match", listed.etag.encode("latin-1")),)
        if listed.modified is not None:
            return ((b"if-modified-since", listed.modified.encode("latin-1")),)
        return ()

    def _take(self, reply: _Reply, accept: bool, keep: bool, now: float) -> str | None:
        """Put a list in force and keep it; what is wrong with it, or None."""
        listed = self._listed
        pricing = listed.pricing or (bundle.pricing() if self.origin == "bundled" else {})
        judged = credible.judge(reply.body, pricing, listed.held, now, accept=accept)
        if judged.problem is not None:
            return judged.problem
        kept = shelf.Kept(
            shelf.VERSION,
            self._base_url,
            time.strftime(STAMP, time.gmtime(now)),
            list(judged.rows.values()),
            reply.headers.get("etag"),
            reply.headers.get("last-modified"),
            judged.held,
        )
        found = self._of(kept)
        self.changes = changes(self._list.models, found.models)
        if found.version != self._list.version or self.origin != "live":
            self._list = found
        self._listed, self.origin = _listed(kept, judged), "live"
        self.snapshot = endpoints.applied(self._list, self._closer)
        if keep and self._path is not None:
            try:
                shelf.write(self._path, kept)
            except OSError as error:
                log.warning("the catalogue cannot be kept in %s: %s", self._path, error)
            self._stamp = shelf.stamp(self._path)
        for jump in judged.refused:
            if jump.model not in listed.held:
                log.warning("upstream %s: a price is not believed yet: %s", self.name, told(jump))
        return None

    def _kept(self) -> shelf.Kept | None:
        """What the file has, where it is newer than what ships."""
        kept = None if self._path is None else shelf.read(self._path, self._base_url)
        if kept is None or (self.name == "openrouter" and kept.captured < bundle.captured()):
            return None
        return kept

    def _look_at_shelf(self) -> None:
        """Another process has found a list, or `llmr catalogue refresh` was told to accept one."""
        self._stamp = shelf.stamp(self._path)
        if kept := self._kept():
            self._list, self._listed, self.origin = self._of(kept), _listed(kept), "kept"
            self.snapshot = endpoints.applied(self._list, self._closer)

    def _of(self, kept: shelf.Kept) -> Snapshot:
        """The rows of a list as a snapshot."""
        return openrouter.snapshot(
            kept.rows,
            upstream=self.name,
            captured=kept.captured,
            recorded=bundle.latency(),
            boards=bundle.boards(),
            citation=bundle.citation() if self.name == "openrouter" else "",
            vouched=self._vouched,
        )

    def failed(self, text: str, accessible: bool) -> bool:
        """Say why the last look found nothing; False."""
        if text != self.error:
            log.warning("upstream %s: %s", self.name, text)
        self.error, self.accessible, self.checked = scrub(text), accessible, time.time()
        return False

    # --- the providers behind single models ---

    async def look_closer(self, names: Iterable[str]) -> None:
        """Ask what the providers of these models do right now. What cannot be had is left as it is.

        For OpenRouter and what speaks like it.
        """
        found = dict(self._closer)
        for name in names:
            try:
                reply = await self._fetch(f"/models/{quote(name, safe='/:')}/endpoints")
                known = msgspec.json.decode(reply.body) if reply.status == 200 else None
            except (TransportError, ReadTimeout):
                return
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if (parsed := endpoints.parse(known)) is not None:
                found[name] = parsed
        if found != self._closer:
            self._closer = found
            self.snapshot = endpoints.applied(self._list, found)

    # --- the wire ---

    async def _fetch(self, path: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> _Reply:
        loop = asyncio.get_running_loop()
        until = loop.time() + FETCH_S
        wish = Send("GET", path, (), headers)
        response = await send(
            self.upstream, wish, connect_until=loop.time() + CONNECT_S, until=until
        )
        try:
            pieces, size = [], 0
            while data := await response.read(until):
                pieces.append(data)
                size += len(data)
                if size > REPLY_LIMIT:
                    raise TransportError("too_large", "the catalogue reply is too large")
            return _Reply(response.status, response.headers, b"".join(pieces))
        finally:
            response.close()


def _listed(kept: shelf.Kept, judged: Judged | None = None) -> _Listed:
    pricing = {row["id"]: row.get("pricing") or {} for row in kept.rows if "id" in row}
    refused = () if judged is None else judged.refused
    return _Listed(pricing, kept.etag, kept.modified, kept.held, refused)


def told(jump: Repriced) -> str:
    """A refused price in words."""
    return f"{jump.model} {jump.field}: {jump.before} to {jump.after} USD"
