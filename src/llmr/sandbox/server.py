"""Opens the two ports and serves until told to stop."""

import asyncio
from collections.abc import Callable

import msgspec

from llmr.sandbox.control_port import ControlPort
from llmr.sandbox.data_port import DataPort
from llmr.sandbox.http1 import Connection, Handler
from llmr.sandbox.settings import Settings
from llmr.sandbox.state import State

BACKLOG = 4096


class Listening(msgspec.Struct):
    """Where a sandbox listens."""

    host: str
    port: int
    control_port: int


async def run_sandbox(
    stop: asyncio.Event,
    on_listening: Callable[[Listening], None],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    control_port: int = 0,
    settings: Settings | None = None,
) -> None:
    """Serve until `stop` is set; port 0 takes a free one, told to `on_listening`.

    Raises `OSError` where a port cannot be opened.
    """
    state = State(settings or Settings())
    controllers: set[Connection] = set()
    data = await _listen(host, port, DataPort(state).handle, state.connections, state)
    control = await _listen(host, control_port, ControlPort(state).handle, controllers)
    try:
        on_listening(Listening(host, _port_of(data), _port_of(control)))
        await stop.wait()
    finally:
        for server in (data, control):
            server.close()
        for connection in [*state.connections, *controllers]:
            connection.abandon()


async def _listen(
    host: str,
    port: int,
    handler: Handler,
    registry: set[Connection],
    counting: State | None = None,
) -> asyncio.Server:
    numbers = 0

    def accept() -> Connection:
        nonlocal numbers
        numbers += 1
        if counting:
            counting.accepted = numbers
        return Connection(numbers, handler, registry)

    loop = asyncio.get_running_loop()
    return await loop.create_server(accept, host, port, backlog=BACKLOG)


def _port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port
