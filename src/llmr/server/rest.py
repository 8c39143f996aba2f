"""Everything that is not hot, by FastAPI, which also documents the whole surface."""

from importlib.resources import files
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Header, Query, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from llmr import __version__
from llmr.core.body import Body
from llmr.core.explain import explain
from llmr.errors import ApiError
from llmr.gateway import Gateway
from llmr.server import schemas
from llmr.server.hot import error_answer, request_id
from llmr.server.responder import Receive, Send, split

DESCRIPTION = """\
An OpenAI-compatible router. `model: "auto"` picks the best model for each request by priority;
`auto:speed`, `auto:cost`, `auto:quality` and `auto:balanced` set it; any id of `/v1/models` pins
one.
"""
ASSETS = "/docs/assets"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'"
)


class Fast(JSONResponse):
    """JSON by msgspec."""

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


class _Hot(Response):
    """Hands the request, unread, to the ASGI application that serves the hot routes."""

    def __init__(self, application: Any) -> None:
        super().__init__()
        self._application = application

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


def _gateway(request: Request) -> Gateway:
    """The gateway that was in force when the request came."""
    gateway: Gateway = request.scope["llmr.gateway"]
    return gateway


def build(application: Any) -> FastAPI:
    """The application for every route that is not hot."""
    app = FastAPI(
        title="llmr",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        default_response_class=Fast,
    )
    _errors(app)
    _documentation(app)
    _chat(app, application)
    _decisions(app)
    _feedback(app)
    _catalogue(app)
    _state(app, application)
    _cache(app)
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        fields, body = error_answer(error, request_id(request.headers.get("x-request-id")))
        headers = {name.decode(): value.decode() for name, value in split(fields)}
        return Response(body, error.status, headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        text = {
            404: f"There is nothing at {request.url.path[:200]!r}. GET /docs lists what there is.",
            405: f"{request.method} is not allowed here. GET /docs lists what is.",
        }.get(error.status_code, str(error.detail))
        own = ApiError(error.status_code, codes.get(error.status_code, "http_error"), text)
        response = await api_error(request, own)
        response.headers.update(error.headers or {})
        return response


def _documentation(app: FastAPI) -> None:
    assets = files("fastapi_offline") / "static"
    app.mount(ASSETS, StaticFiles(directory=str(assets)), name="assets")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="llmr API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
        )
        page.headers["content-security-policy"] = CONTENT_POLICY
        return page


def _chat(app: FastAPI, hot: Any) -> None:
    @app.post(
        "/v1/chat/completions",
        tags=["chat"],
        summary="Chat completion, OpenAI wire format, JSON or SSE",
        openapi_extra=schemas.CHAT,
    )
    async def chat_completions() -> Response:
        return _Hot(hot)

    @app.post(
        "/route",
        tags=["chat"],
        summary="Chat completion with its routing decision",
        openapi_extra=schemas.ROUTE,
    )
    async def route() -> Response:
        return _Hot(hot)


def _decisions(app: FastAPI) -> None:
    @app.post(
        "/v1/decisions",
        tags=["decisions"],
        summary="The decision for a request body; nothing is sent upstream",
        openapi_extra=schemas.DECISION,
    )
    async def decide(request: Request) -> Any:
        gateway, body = _gateway(request), Body(await request.body())
        headers = {k: v for k, v in request.headers.items() if k.startswith("x-llmr-")}
        decision = gateway.decide(gateway.request(body, headers, "route"))
        kept = gateway.decisions.add(decision, request.scope["llmr.tenant"])
        told = gateway.telling(body) if decision.request.curve is not None else None
        return {"id": kept.id, **explain(decision), "telling_words": told}

    @app.get(
        "/v1/decisions/{decision_id}",
        tags=["decisions"],
        summary="A past decision, whole: every candidate, every exclusion, and what came of it",
    )
    async def decision(request: Request, decision_id: str) -> Any:
        return _gateway(request).decisions.explain(decision_id, request.scope["llmr.tenant"])


def _feedback(app: FastAPI) -> None:
    @app.post(
        "/v1/feedback",
        tags=["decisions"],
        summary="What an answer was worth; the router learns from it",
        openapi_extra=schemas.FEEDBACK,
    )
    async def feedback(request: Request) -> Any:
        return _gateway(request).judge(await request.body(), request.scope["llmr.tenant"])


def _catalogue(app: FastAPI) -> None:
    @app.get("/models", tags=["catalogue"], summary="Every routable model, with its figures")
    async def models(request: Request) -> Any:
        gateway = _gateway(request)
        return {
            "models": gateway.model_rows(),
            "catalogue": gateway.catalogue(),
        }

    @app.get("/v1/models", tags=["catalogue"], summary="OpenAI's list of models")
    async def openai_models(request: Request) -> Any:
        snapshot = _gateway(request).snapshot
        rows = [snapshot.models[i] for i in snapshot.routable]
        names = ["auto", "auto:speed", "auto:cost", "auto:quality", "auto:balanced"]
        data = [{"id": n, "object": "model", "created": 0, "owned_by": "llmr"} for n in names]
        for model in rows:
            owner = model.id.split("/", 1)[0] if "/" in model.id else model.upstream
            created = model.created or 0
            data.append({"id": model.id, "object": "model", "created": created, "owned_by": owner})
        return {"object": "list", "data": data}


def _state(app: FastAPI, application: Any) -> None:
    @app.get("/metrics", tags=["operations"], summary="The rolling window, or Prometheus text")
    async def metrics(
        request: Request,
        accept: Annotated[str, Header()] = "",
        form: Annotated[
            str, Query(alias="format", description="`prometheus` for the text format")
        ] = "",
    ) -> Any:
        text = "text/plain" in accept or "openmetrics" in accept
        if form == "prometheus" or (form != "json" and text):
            body, kind = application.exposition(accept)
            return Response(body, media_type=kind)
        return _gateway(request).figures()

    @app.get("/health", tags=["operations"], summary="What the last background probes found")
    async def health(request: Request) -> Any:
        return application.health(_gateway(request))

    @app.get("/livez", tags=["operations"], summary="The process answers")
    async def livez() -> Any:
        """Answered before it comes here, as is /readyz; this is their documentation."""

    @app.get("/readyz", tags=["operations"], summary="Configured and not draining")
    async def readyz() -> Any:
        """503 with the status `draining` while the process ends."""


def _cache(app: FastAPI) -> None:
    @app.get("/cache/stats", tags=["cache"], summary="Entries, bytes and hits")
    async def cache_stats(request: Request) -> Any:
        return await _gateway(request).cache_stats()

    @app.delete("/cache", tags=["cache"], summary="Forget every cached answer")
    async def clear_cache(request: Request) -> Any:
        cleared = await _gateway(request).clear_cache()
        return {"message": f"Cleared {cleared} cached answers.", "cleared": cleared}
