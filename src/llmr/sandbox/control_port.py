"""The port tests steer the sandbox by. It is never reachable through the data port."""

import os
from typing import Any
from urllib.parse import parse_qs

import msgspec

from llmr.sandbox.http1 import Connection, Request
from llmr.sandbox.rules import Order
from llmr.sandbox.script import error_reply, json_reply
from llmr.sandbox.state import State


class ControlPort:
    """Answers every request with JSON at once; a wish it cannot read gets a 400 that says why."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._routes = {
            "GET /health": self._health,
            "GET /stats": self._stats,
            "GET /attempts": self._list_attempts,
            "DELETE /attempts": self._reset_attempts,
            "GET /invoice": self._invoice,
            "POST /faults": self._add_fault,
            "DELETE /faults": self._clear_faults,
            "GET /settings": self._show_settings,
            "POST /settings": self._change_settings,
            "DELETE /connections": self._close_idle,
        }

    async def handle(self, request: Request, connection: Connection) -> None:
        route = self._routes.get(f"{request.method} {request.path}")
        if route is None:
            script = error_reply(404, f"no {request.method} {request.path}")
        else:
            try:
                script = json_reply(200, route(request))
            except (msgspec.DecodeError, TypeError) as error:
                script = error_reply(400, str(error))
        connection.write(script.head + b"".join(step.data for step in script.steps))
        await connection.drain()

    def _health(self, _: Request) -> dict[str, Any]:
        return {"status": "ok", "pid": os.getpid()}

    def _stats(self, _: Request) -> dict[str, Any]:
        state = self._state
        return {
            "connections": len(state.connections),
            "busy": sum(connection.busy for connection in state.connections),
            "accepted": state.accepted,
            "requests": state.requests,
        }

    def _list_attempts(self, request: Request) -> list[dict[str, Any]]:
        return self._state.attempts.listing(_asked(request, "model"))

    def _invoice(self, _: Request) -> dict[str, Any]:
        return self._state.books.invoice()

    def _reset_attempts(self, _: Request) -> dict[str, Any]:
        self._state.attempts.reset()
        self._state.books.reset()
        return {}

    def _add_fault(self, request: Request) -> dict[str, Any]:
        self._state.rules.add(msgspec.json.decode(request.body, type=Order))
        return {}

    def _clear_faults(self, request: Request) -> dict[str, Any]:
        self._state.rules.clear(_asked(request, "model"))
        return {}

    def _show_settings(self, _: Request) -> dict[str, Any]:
        return msgspec.structs.asdict(self._state.settings)

    def _change_settings(self, request: Request) -> dict[str, Any]:
        patch = msgspec.json.decode(request.body, type=dict[str, Any])
        self._state.settings = self._state.settings.changed(patch)
        return msgspec.structs.asdict(self._state.settings)

    def _close_idle(self, _: Request) -> dict[str, Any]:
        """Close the idle connections of the data port, as a provider's timeout would."""
        idle = [connection for connection in self._state.connections if not connection.busy]
        for connection in idle:
            connection.abandon()
        return {"closed": len(idle)}


def _asked(request: Request, name: str) -> str | None:
    values = parse_qs(request.target.partition("?")[2]).get(name)
    return values[0] if values else None
