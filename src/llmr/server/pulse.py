"""What the server does by the clock: how late its loop runs, and its figures for other workers."""

import asyncio
import logging
from collections import deque

from llmr.observe.workers import Together

log = logging.getLogger("llmr.server")

BEAT_S = 0.25
SPAN = 240  # beats that the figures of lateness cover
LEAVE = 4  # every so many beats the figures are left for the others


class Pulse:
    """Beats for as long as it runs. `lateness`: seconds by which the last beats were late."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self.lateness: deque[float] = deque([0.0], maxlen=SPAN)

    @property
    def worst_s(self) -> float:
        """The longest that the loop held up a beat of the last minute."""
        return max(self.lateness)

    async def run(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        beats = 0
        while True:
            due = loop.time() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.lateness.append(max(0.0, loop.time() - due))
            beats += 1
            if beats % LEAVE == 0:
                await self.leave()

    async def leave(self) -> None:
        """Leave the figures for the other workers, where there are some."""
        if (dumped := self._together.dump()) is not None:
            try:
                await asyncio.to_thread(self._together.write, dumped)
            except OSError as error:
                log.warning("figures cannot be left for the other workers: %s", error.strerror)
