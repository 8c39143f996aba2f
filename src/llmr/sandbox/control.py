"""A small synchronous client of the control port."""

import http.client
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec


class ControlError(Exception):
    """The sandbox refused a wish; the text says why."""


class Control:
    """Steers a running sandbox. Each call opens a connection of its own and closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port

    def fault(
        self,
        model: str,
        fault: dict[str, Any],
        times: int | None = None,
        until_s: float | None = None,
    ) -> None:
        """Queue a fault for a model id, for "*" (every model) or for a path such as "/models".

        It lasts for `times` requests and/or `until_s` seconds from now; by default for ever.
        Bytes in `fault` are sent in base64. Raises `ControlError` for a fault it cannot read.
        """
        order = {"model": model, "fault": fault, "times": times, "until_s": until_s}
        self._ask("POST", "/faults", order)

    def clear(self, model: str | None = None) -> None:
        """Drop the rules of one model, or all of them."""
        self._ask("DELETE", "/faults" + _query(model))

    def attempts(self, model: str | None = None) -> list[dict[str, Any]]:
        """The requests that reached the data port, oldest first."""
        listed: list[dict[str, Any]] = self._ask("GET", "/attempts" + _query(model))
        return listed

    def invoice(self) -> dict[str, Any]:
        """What was charged since the last reset, by model, by `user` and in total."""
        found: dict[str, Any] = self._ask("GET", "/invoice")
        return found

    def reset(self) -> None:
        """Forget all attempts and bills, and start every counter anew, and drop all rules."""
        self._ask("DELETE", "/attempts")
        self.clear()

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings by name; without any, only read them."""
        now: dict[str, Any] = self._ask("POST", "/settings", changes)
        return now

    def stats(self) -> dict[str, Any]:
        """Counts: connections (open), busy, accepted, requests."""
        counts: dict[str, Any] = self._ask("GET", "/stats")
        return counts

    def close_idle(self) -> int:
        """Close the idle connections of the data port; returns how many there were."""
        closed: int = self._ask("DELETE", "/connections")["closed"]
        return closed

    def _ask(self, method: str, target: str, content: object = None) -> Any:
        body = None if content is None else msgspec.json.encode(content)
        connection = http.client.HTTPConnection(self._host, self._port, timeout=10)
        try:
            connection.request(method, target, body, {"connection": "close"})
            response = connection.getresponse()
            reply = msgspec.json.decode(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ControlError(reply["error"]["message"])
        return reply


def _query(model: str | None) -> str:
    return "" if model is None else "?" + urlencode({"model": model})
