"""`python -m llmr.sandbox`: the sandbox as a process of its own."""

import argparse
import asyncio
import os
import signal
import sys
import threading

import msgspec

from llmr.sandbox.server import Listening, run_sandbox
from llmr.sandbox.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the first line on stdout is JSON and names the ports.

    `arguments` default to those of the process. Returns 1 where a port cannot be opened.
    """
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_serve(options))
    except OSError as error:
        print(f"sandbox: cannot listen: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llmr.sandbox", description="A simulated OpenRouter provider."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--control-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--speed", type=float, default=1.0, help="factor on latencies; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of the latencies drawn")
    parser.add_argument("--require-key", metavar="KEY", help="refuse every other bearer key")
    parser.add_argument("--with-parent", action="store_true", help="exit when stdin is closed")
    return parser


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.with_parent:
        threading.Thread(target=_watch_stdin, args=(loop, stop), daemon=True).start()
    await run_sandbox(
        stop,
        _announce,
        host=options.host,
        port=options.port,
        control_port=options.control_port,
        settings=Settings(speed=options.speed, seed=options.seed, require_key=options.require_key),
    )


def _announce(listening: Listening) -> None:
    line = {"port": listening.port, "control_port": listening.control_port, "pid": os.getpid()}
    print(msgspec.json.encode(line).decode(), flush=True)


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    try:
        loop.call_soon_threadsafe(stop.set)
    except RuntimeError:
        pass  # The loop is closed: the process is on its way out already.


if __name__ == "__main__":
    sys.exit(main())
