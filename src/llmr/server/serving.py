"""One configuration in force, and how long it has to stay."""

import asyncio
from typing import Any

from llmr.gateway import Gateway
from llmr.server.access import Access


class Serving:
    """A gateway with what the server derives from its configuration.

    A request keeps the one it began with, from `enter` to `leave`, so that no two configurations
    meet in it.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.access = Access(gateway.config.server.api_keys)
        self.body_limit = int(gateway.config.limits.body_mb * 1024 * 1024)
        self.heads: dict[Any, Any] = {}  # what was made of heads that connections have in common
        self._users = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    def enter(self) -> Gateway:
        self._users += 1
        return self.gateway

    def leave(self) -> None:
        self._users -= 1
        self._close_if_unused()

    def retire(self) -> None:
        """Close the gateway with the last request that uses it."""
        self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retired and not self._users:
            self._closing = asyncio.get_running_loop().create_task(self.gateway.close())
