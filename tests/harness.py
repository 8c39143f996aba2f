"""A real router on a real socket, in a thread of the test process."""

import http.client
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from llmr import config
from llmr.cli.serve import uvicorn_config
from llmr.gateway import Gateway
from llmr.server.asgi import Application


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that other threads or processes bring about, at most 10 s."""
    until = time.monotonic() + 10.0
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"never came true: {what}")
        time.sleep(0.01)


def at_rest(figure: Callable[[], int], for_s: float = 0.3) -> int:
    """Wait until a figure has stood still for so long, at most 10 s; the figure."""
    last, since = figure(), time.monotonic()

    def still() -> bool:
        nonlocal last, since
        if (now := figure()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= for_s

    eventually(still, "standing still")
    return last


class Reply:
    """One HTTP answer, read whole."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found

    def events(self) -> list[Any]:
        """The data events of a stream, `[DONE]` as that text."""
        blocks = [b[6:] for b in self.body.decode().split("\n\n") if b.startswith("data: ")]
        return [b if b == "[DONE]" else json.loads(b) for b in blocks]

    def text(self) -> str:
        """The text of the first choice, of either form."""
        if self.headers.get("content-type", "").startswith("application/json"):
            content: str = self.json["choices"][0]["message"]["content"]
            return content
        deltas = [
            event["choices"][0]["delta"].get("content") or ""
            for event in self.events()
            if event != "[DONE]" and event.get("choices")
        ]
        return "".join(deltas)


class Server:
    """`llmr` serving on the loopback, on a free port or this one, configured by a plain mapping.

    What it learns is its own, unless `tree` says where it is kept.
    """

    def __init__(self, tree: Mapping[str, Any], *, sandbox: bool = False, port: int = 0) -> None:
        if not sandbox:
            path = Path(os.environ["XDG_STATE_HOME"]) / f"{secrets.token_hex(6)}.db"
            tree = {"state": {"path": str(path)}, **tree}
        self.gateway = Gateway(config.build(tree, {}), sandbox=sandbox)
        self._server = uvicorn.Server(uvicorn_config(Application(self.gateway)))
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> "Server":
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server did not start")
            self._thread.join(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own; `body` is bytes or JSON."""
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, data, dict(headers or {}))
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, fields, response.read())
        finally:
            connection.close()

    def chat(self, path: str = "/v1/chat/completions", headers: Any = None, **body: Any) -> Reply:
        """A chat request; a greeting unless it has messages of its own."""
        body.setdefault("messages", [{"role": "user", "content": "Hello there"}])
        return self.request("POST", path, body, headers)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def upstream(base_url: str, **more: Any) -> dict[str, Any]:
    """A configuration whose `openrouter` is a simulated one."""
    return {"upstreams": {"openrouter": {"base_url": base_url, "api_key": "sk-test-key"}}, **more}


def each_split(data: bytes, sizes: tuple[int, ...]) -> Iterator[list[bytes]]:
    """The bytes cut into pieces of each size in turn."""
    for size in sizes:
        yield [data[i : i + size] for i in range(0, len(data), size)]
