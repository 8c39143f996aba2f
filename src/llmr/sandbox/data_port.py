"""The provider's own face: models, endpoints, chat, key."""

import time
import zlib
from typing import Any
from urllib.parse import parse_qs

from llmr.sandbox import chat, pace, player, replies
from llmr.sandbox.attempts import Attempt
from llmr.sandbox.catalogue import Latency, Percentiles, Row
from llmr.sandbox.faults import shown_kind
from llmr.sandbox.http1 import Connection, Request
from llmr.sandbox.script import Script, error_reply, json_reply, whole
from llmr.sandbox.state import State


class DataPort:
    """Answers requests and logs them, except for the catalogue reads of a well-meaning client."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def handle(self, request: Request, connection: Connection) -> None:
        state = self._state
        state.requests += 1
        attempt = Attempt(
            n=0,
            model_n=0,
            connection=connection.number,
            t=time.monotonic(),
            model=None,
            method=request.method,
            path=request.path,
            headers=request.headers,
            body=request.body,
        )
        script = self._route(attempt, request.target)
        if attempt.method != "GET" or attempt.fault or script.status not in (200, 304):
            attempt.n = state.attempts.next_number()
            state.attempts.add(attempt)
        try:
            await player.play(script, connection, attempt)
        finally:
            attempt.finish(connection.peer_gone_t)
            if attempt.generation is not None:
                state.books.close(attempt.generation, attempt)

    def _route(self, attempt: Attempt, target: str) -> Script:
        path = _without_prefix(attempt.path)
        if (attempt.method, path) == ("POST", "/chat/completions"):
            return chat.reply(self._state, attempt)
        if attempt.method == "GET":
            return self._read_or_fail(attempt, path, target)
        return error_reply(404, "Not Found")

    def _read_or_fail(self, attempt: Attempt, path: str, target: str) -> Script:
        """A rule may name a path, such as `/models`, where others name a model."""
        fault = self._state.rules.take(path)
        attempt.fault = shown_kind(fault)
        if fault is None:
            return self._read(attempt, path, target)
        instead = replies.instead(fault, stream=False, headers={})
        return replies.delayed(instead or self._read(attempt, path, target), fault)

    def _read(self, attempt: Attempt, path: str, target: str) -> Script:
        if path == "/models":
            return self._listing(attempt)
        if path == "/key":
            return chat.key_refusal(self._state, attempt, {}) or json_reply(200, _KEY)
        if path == "/generation":
            return self._generation(attempt, target)
        if path.startswith("/models/") and path.endswith("/endpoints"):
            model = path.removeprefix("/models/").removesuffix("/endpoints")
            return self._endpoints(model, "authorization" in attempt.headers)
        return error_reply(404, "Not Found")

    def _listing(self, attempt: Attempt) -> Script:
        listing = self._state.catalogue.listing()
        tag = f'W/"{zlib.crc32(listing):08x}"'
        if attempt.headers.get("if-none-match") == tag:
            return whole(304, b"", {"etag": tag})
        return whole(200, listing, {"content-type": "application/json", "etag": tag})

    def _generation(self, attempt: Attempt, target: str) -> Script:
        if refusal := chat.key_refusal(self._state, attempt, {}):
            return refusal
        asked = parse_qs(target.partition("?")[2]).get("id", [""])[0]
        found = self._state.books.generation(asked)
        if found is None:
            return error_reply(404, f"Generation {asked} not found")
        return json_reply(200, {"data": found})

    def _endpoints(self, model: str, with_latency: bool) -> Script:
        row = self._state.catalogue.find(model)
        if row is None:
            return error_reply(404, f"Model {model} not found")
        latency = self._state.catalogue.latency(model) if with_latency else None
        shared = ("id", "name", "created", "architecture")
        described: dict[str, Any] = {key: row.get(key) for key in shared}
        described |= {"description": "Simulated.", "endpoints": [_endpoint(row, latency)]}
        return json_reply(200, {"data": described})


_KEY = {
    "data": {
        "label": "sandbox",
        "limit": None,
        "limit_remaining": None,
        "limit_reset": None,
        "usage": 0,
        "usage_daily": 0,
        "usage_weekly": 0,
        "usage_monthly": 0,
        "is_free_tier": False,
        "rate_limit": {"requests": -1, "interval": "10s"},
    }
}


def _without_prefix(path: str) -> str:
    for prefix in ("/api/v1/", "/v1/"):
        if path.startswith(prefix):
            return path[len(prefix) - 1 :]
    return path


def _endpoint(row: Row, latency: Latency | None) -> dict[str, Any]:
    top = row.get("top_provider") or {}
    supported = row["supported_parameters"]
    chooses = "tool_choice" in supported
    return {
        "name": f"Sandbox | {row['id']}",
        "model_id": row["id"],
        "model_name": row["name"],
        "provider_name": "Sandbox",
        "tag": "sandbox",
        "quantization": "unknown",
        "context_length": row["context_length"],
        "max_prompt_tokens": None,
        "max_completion_tokens": top.get("max_completion_tokens"),
        "pricing": {**row["pricing"], "discount": 0},
        "supported_parameters": supported,
        "supports_tool_choice": dict.fromkeys(("auto", "none", "required", "function"), chooses),
        "supports_implicit_caching": False,
        "status": 0,
        "uptime_last_5m": 100.0,
        "uptime_last_30m": 100.0,
        "uptime_last_1d": 100.0,
        "latency_last_30m": _percentiles(latency.first_token_s, 1000) if latency else None,
        "throughput_last_30m": _percentiles(latency.tokens_per_s, 1) if latency else None,
    }


def _percentiles(known: Percentiles, unit: int) -> dict[str, float]:
    """p99 stays at the highest recorded point, p90."""
    shares = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99}
    return {name: round(pace.quantile(known, at) * unit, 3) for name, at in shares.items()}
