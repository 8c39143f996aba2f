"""The ASGI application: hot routes go straight to their handler, the rest to FastAPI.

FastAPI is imported with the first request that needs it: a router that only routes never pays.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from llmr.errors import ApiError, internal
from llmr.gateway import Gateway
from llmr.observe.counts import Counts
from llmr.observe.workers import Together
from llmr.server.calls import MOST, Calls
from llmr.server.direct import closes
from llmr.server.fields import fields, must_be_json, wishes
from llmr.server.hot import HOT, HotCall, refuse, request_id
from llmr.server.protocol import Wire
from llmr.server.pulse import Pulse
from llmr.server.responder import (
    AsgiResponder,
    CallerLeft,
    Message,
    Receive,
    Responder,
    Send,
)
from llmr.server.serving import Serving

log = logging.getLogger("llmr.server")

App = Callable[[Any, Receive, Send], Awaitable[None]]
FIRST_LOOK_S = 2.0
PROBES = ("/livez", "/readyz")


class Application:
    """The gateway in force as an ASGI application. Another can take its place at any time."""

    def __init__(self, gateway: Gateway, most: int = MOST, figures: str | None = None) -> None:
        """`most` requests are answered at once; what comes beyond is refused.

        `figures` is a folder in which several workers add up what they count.
        """
        self.calls = Calls(gateway.outbox, most)
        self.wire = Wire(write_s=gateway.config.limits.idle_s)
        self.serving = Serving(gateway)
        counts = Counts()
        gateway.recorder.observers.append(counts.add)
        self.together = Together(counts, figures, gateway.recorder.flush)
        self.pulse = Pulse(self.together)
        self.loaded_at = time.time()
        self.config_error: str | None = None
        self._rest: App | None = None

    @property
    def gateway(self) -> Gateway:
        return self.serving.gateway

    def serve(self, gateway: Gateway) -> None:
        """Answer what comes from now on by another gateway, and close the one before when it may.

        Requests that have begun end on the gateway they began with.
        """
        before, self.serving = self.serving, Serving(gateway)
        self.wire.write_s = gateway.config.limits.idle_s
        before.retire()

    def drain(self) -> None:
        """Take no new work on; what is in flight goes on."""
        self.calls.draining = self.gateway.draining = True

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Any, receive: Receive, send: Send) -> None:
        received = time.monotonic()
        responder = AsgiResponder(receive, send)
        given = None
        serving = self.serving
        serving.enter()
        try:
            headers = fields(scope["headers"])
            given = headers.get("x-request-id")
            tenant = serving.access.tenant(scope["path"], headers)
            surface = HOT.get(scope["path"]) if scope["method"] == "POST" else None
            if surface is not None:
                await self._hot(scope, serving, surface, tenant, headers, responder, received)
            elif scope["path"] in PROBES and scope["method"] in ("GET", "HEAD"):
                self.probe(scope["path"], responder, request_id(given))
            else:
                await self._other(scope, serving, tenant, headers, responder, receive)
        except ApiError as error:
            refuse(responder, error, request_id(given), close=closes(error, scope.get("llmr.wire")))
        except CallerLeft:
            return
        except Exception:
            # The root of a request: beyond it uvicorn would answer, without an error object.
            log.exception("a request failed inside the router")
            if responder.started:
                raise
            refuse(responder, internal(), request_id(given))
        finally:
            serving.leave()
        await responder.flush()

    async def _hot(
        self,
        scope: Any,
        serving: Serving,
        surface: str,
        tenant: bytes,
        headers: dict[str, str],
        responder: AsgiResponder,
        received: float,
    ) -> None:
        crowded = getattr(scope.get("llmr.wire"), "crowded", False)
        self.calls.admit(crowded)
        must_be_json(headers)
        body = await responder.body(headers, serving.body_limit)
        self.calls.admit(crowded)  # reading may have taken long, and holds no slot
        name = request_id(headers.get("x-request-id"))
        call = HotCall(self.calls, serving, surface, name, responder)
        call.answer(body, wishes(headers), tenant, received)
        await responder.relay(call)

    def probe(self, path: str, responder: Responder, name: str) -> None:
        """Answered here, so that it needs no thread, no import and no descriptor."""
        draining = path == "/readyz" and (self.calls.draining or self.gateway.draining)
        body = b'{"status":"draining"}' if draining else b'{"status":"ok"}'
        lines = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
        responder.whole(503 if draining else 200, lines % (len(body), name.encode()), body)

    async def _other(
        self,
        scope: Any,
        serving: Serving,
        tenant: bytes,
        headers: dict[str, str],
        responder: AsgiResponder,
        receive: Receive,
    ) -> None:
        if self._rest is None:
            self._rest = await asyncio.to_thread(_build_rest, self)
        scope["llmr.tenant"] = tenant
        scope["llmr.gateway"] = serving.gateway
        read = False

        async def body_first() -> Any:
            nonlocal read
            if read:
                return await receive()
            read = True
            if scope["method"] == "POST":
                must_be_json(headers)
            body = await responder.body(headers, serving.body_limit)
            return {"type": "http.request", "body": body, "more_body": False}

        name = request_id(headers.get("x-request-id"))

        async def named(message: Message) -> None:
            await responder.pass_on(message, name)

        await self._rest(scope, body_first, named)

    def health(self, gateway: Gateway) -> dict[str, Any]:
        """What the gateway says, and what the server knows beside it."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.loaded_at))
        return {
            **gateway.health(),
            "in_flight": len(self.calls),
            "loop_lag_ms": round(self.pulse.worst_s * 1000, 3),
            "refused": dict(self.calls.refused),
            "config": {"loaded_at": when, "error": self.config_error},
        }

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The figures of all workers for Prometheus, and their content type."""
        from llmr.observe.prometheus import Gauge, exposition

        gauges = (
            Gauge("llmr_in_flight", "Requests being answered.", lambda: len(self.calls)),
            Gauge(
                "llmr_redis_connected",
                "1 while the shared store answers.",
                lambda: float(self.gateway.redis_connected),
            ),
            Gauge(
                "llmr_cache_spoilt_entries",
                "What was found in the shared store under the router's keys and was no entry.",
                lambda: self.gateway.spoilt_cache_entries,
            ),
            Gauge(
                "llmr_loop_lag_seconds",
                "The longest that the event loop was held up in the last minute.",
                lambda: self.pulse.worst_s,
            ),
        )
        return exposition(accept, self.together.counts(), gauges)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.gateway.start(FIRST_LOOK_S if self.gateway.sandbox else 0.0)
        except Exception as error:
            log.exception("start-up failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        pulse = asyncio.create_task(self.pulse.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        pulse.cancel()
        await self.pulse.leave()
        await self.gateway.close()
        await send({"type": "lifespan.shutdown.complete"})


def _build_rest(application: Application) -> App:
    from llmr.server.rest import build

    return build(application)
