"""Reading the configuration again while requests are in flight: whole, or not at all."""

import asyncio
import logging
import re
import time
from collections.abc import Callable

from msgspec.structs import replace

from llmr.config import LOOPBACK, Config
from llmr.core.catalogue import merge
from llmr.core.classify import scrub
from llmr.errors import ConfigError
from llmr.gateway import Gateway
from llmr.server.asgi import FIRST_LOOK_S, Application

log = logging.getLogger("llmr.server")

_USER = re.compile(r"//[^@/\s]*@")


class Reloader:
    """Puts a freshly read configuration in the place of the one in force."""

    def __init__(self, application: Application, load: Callable[[], Config]) -> None:
        """`load` reads and checks the configuration, or raises `ConfigError`."""
        self._application = application
        self._load = load
        self._lock = asyncio.Lock()

    async def reload(self) -> bool:
        """True where the new configuration is in force; else the old one still is, and says why."""
        async with self._lock:
            application = self._application
            try:
                gateway = self._gateway(application.gateway)
                await gateway.start(0.0 if _known(gateway) else FIRST_LOOK_S)
            except Exception as error:
                if not isinstance(error, ConfigError):
                    log.exception("reading the configuration failed")
                text = scrub(_USER.sub("//***@", str(error)))
                application.config_error = text
                log.error("the configuration was not changed: %s", text)
                return False
            application.serve(gateway)
            application.loaded_at, application.config_error = time.time(), None
            log.info("the configuration was read again")
            return True

    def _gateway(self, before: Gateway) -> Gateway:
        config, bound = self._load(), before.config.server
        if bound.host not in LOOPBACK and not config.server.api_keys:
            raise ConfigError(
                f"server.api_keys is empty, but the router listens on {bound.host}, "
                "where other machines reach it. Add a key, or start it anew on 127.0.0.1."
            )
        if (config.server.host, config.server.port) != (bound.host, bound.port):
            log.warning("server.host and server.port change with the next start")
        if config.state != before.config.state:
            log.warning("state.path changes with the next start")
        server = replace(config.server, host=bound.host, port=bound.port)
        gateway = Gateway(
            replace(config, server=server),
            sandbox=before.sandbox,
            learner=before.learner,
            outbox=before.outbox,
        )
        inherit(gateway, before)
        return gateway


def inherit(gateway: Gateway, before: Gateway) -> None:
    """Hand over what still fits: figures, decisions, counts, catalogues, and cached answers."""
    old, new = before.config, gateway.config
    gateway.started, gateway.draining = before.started, before.draining
    gateway.decisions, gateway.window = before.decisions, before.window
    gateway.recorder, gateway.hops = before.recorder, before.hops
    gateway.sessions = before.sessions
    gateway.feedback, gateway.ledger = before.feedback, before.ledger
    if old.routing.explore == new.routing.explore:
        gateway.explorer = before.explorer
    if (old.cache, old.redis, old.routing, old.upstreams) == (
        *(new.cache, new.redis, new.routing, new.upstreams),
    ):
        gateway.memory = before.memory
        gateway.hits, gateway.misses = before.hits, before.misses
    for name, source in gateway.sources.items():
        known = before.sources.get(name)
        if known is None or _rows(old, name) != _rows(new, name):
            continue
        source.inherit(known)
    gateway.publish(merge(source.snapshot for source in gateway.sources.values()))


def _rows(config: Config, name: str) -> object:
    """What the rows of an upstream depend on."""
    upstream = config.upstreams.get(name)
    if upstream is None:
        return None
    return (
        *(upstream.base_url, upstream.models),
        *(upstream.no_training, upstream.no_retention, upstream.region),
    )


def _known(gateway: Gateway) -> bool:
    """Whether every upstream has rows already."""
    return all(source.origin != "none" for source in gateway.sources.values())
