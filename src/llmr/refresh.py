"""Keeping the catalogue current, off the request path: when who is looked at."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from llmr.core.catalogue import Snapshot, merge
from llmr.source import Source

log = logging.getLogger("llmr.catalogue")

INTERVAL_S = 3600.0
RETRY_S = (5.0, 30.0, 120.0, 600.0)
CLOSER_S = 300.0  # between looks at the providers of models in use; replies are cached so long
MOST_CLOSER = 20  # models at a time


class Refresh:
    """Looks at every source at start and from time to time, and publishes the merged snapshot."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        publish: Callable[[Snapshot], None],
        measured: Callable[[], Mapping[str, int]],
    ) -> None:
        """`measured`: by target, how many answers it gave so far."""
        self._sources = sources
        self._publish = publish
        self._measured = measured

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
                    if source.name == "openrouter":
                        group.create_task(self._watch_closer(source))

    async def _watch(self, source: Source) -> None:
        failed = 0
        while True:
            try:
                good = await source.look()
            except Exception:
                # The root of this source's watch. `look` knows how an upstream fails; what else is
                # raised is a mistake of ours, which must not end the looks at every other source.
                log.exception("looking at upstream %s failed", source.name)
                good = source.failed("the look at its catalogue failed; see the log", False)
            self._publish(self.snapshot())
            wait = INTERVAL_S if good else RETRY_S[min(failed, len(RETRY_S) - 1)]
            failed = 0 if good else failed + 1
            await asyncio.sleep(wait * random.uniform(0.9, 1.1))

    async def _watch_closer(self, source: Source) -> None:
        """Look at the providers of the models that gave answers since the last time."""
        before: Mapping[str, int] = {}
        while True:
            await asyncio.sleep(CLOSER_S * random.uniform(0.9, 1.1))
            now = dict(self._measured())
            used = in_use(source.name, before, now)
            before = now
            try:
                await source.look_closer(used)
            except Exception:
                # As above.
                log.exception("looking at the providers of %s failed", source.name)
            self._publish(self.snapshot())


def in_use(upstream: str, before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """The ids of an upstream's models that gave most answers between two counts, by target."""
    more = {target: count - before.get(target, 0) for target, count in now.items()}
    own = [t for t, count in more.items() if count > 0 and t.startswith(f"{upstream}/")]
    own.sort(key=lambda target: (-more[target], target))
    return [target.removeprefix(f"{upstream}/") for target in own[:MOST_CLOSER]]
