"""The ASGI application: hot routes go straight to their handler, the rest to FastAPI.

FastAPI is imported with the first request that needs it: a router that only routes never pays.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from llmr.errors import ApiError
from llmr.gateway import Gateway
from llmr.observe.prometheus import Prometheus
from llmr.server.access import Access
from llmr.server.hot import HOT, handle, refuse, request_id
from llmr.server.responder import AsgiResponder, Receive, Send

log = logging.getLogger("llmr.server")

App = Callable[[Any, Receive, Send], Awaitable[None]]
FIRST_LOOK_S = 2.0


class Application:
    """One gateway as an ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._access = Access(gateway.config.server.api_keys)
        self._limit = int(gateway.config.limits.body_mb * 1024 * 1024)
        self._rest: App | None = None
        self.prometheus = Prometheus(
            lambda: gateway.in_flight, lambda: float(gateway.redis_connected)
        )
        gateway.observers.append(self.prometheus.add)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Any, receive: Receive, send: Send) -> None:
        received = time.monotonic()
        path: str = scope["path"]
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        responder = AsgiResponder(receive, send)
        try:
            tenant = self._access.tenant(path, headers)
            surface = HOT.get(path) if scope["method"] == "POST" else None
            if surface is None:
                scope["llmr.tenant"] = tenant
                await (await self._other())(scope, receive, send)
                return
            declared = headers.get("content-length")
            body = await responder.body(declared.encode() if declared else None, self._limit)
            responder.watch()
            await handle(self.gateway, surface, tenant, headers, body, responder, received)
        except ApiError as error:
            await refuse(responder, error, request_id(headers.get("x-request-id")))
        except asyncio.CancelledError:
            if not responder.closed:
                raise
        except Exception:
            log.exception("a request failed inside the router")
            if responder.started:
                raise
            own = ApiError(500, "internal_error", "The router failed; its log says where.")
            await refuse(responder, own, request_id(headers.get("x-request-id")))
        finally:
            responder.unwatch()

    async def _other(self) -> App:
        if self._rest is None:
            self._rest = await asyncio.to_thread(_build_rest, self)
        return self._rest

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.gateway.start(FIRST_LOOK_S if self.gateway.sandbox else 0.0)
        except Exception as error:
            log.exception("start-up failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.gateway.close()
        await send({"type": "lifespan.shutdown.complete"})


def _build_rest(application: Application) -> App:
    from llmr.server.rest import build

    return build(application.gateway, application.prometheus, application)
