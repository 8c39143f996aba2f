"""The sandbox as a process: how it starts, ends, and holds many streams."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxError, SandboxProcess
from llmr.sandbox.server import Listening, run_sandbox
from tests.sandbox.wire import (
    HELLO,
    ask,
    complete,
    connect,
    post,
    receive,
    until,
)


def test_start_is_quick_and_stop_is_clean() -> None:
    sandbox = SandboxProcess(require_key="k")
    began = time.monotonic()
    sandbox.start()
    assert time.monotonic() - began < 2
    assert ask(sandbox).status == 401
    assert sandbox.pid
    began = time.monotonic()
    assert sandbox.stop() == 0
    assert time.monotonic() - began < 1
    assert sandbox.pid is sandbox.stop() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_at_once_even_in_mid_answer(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "llmr.sandbox"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout
        told = json.loads(child.stdout.readline())
        assert told["pid"] == child.pid
        assert told["port"] != told["control_port"]
        with socket.create_connection(("127.0.0.1", told["port"])) as sock:
            sock.sendall(post({"model": "fb-s06", "messages": HELLO}))
            child.send_signal(number)
            assert child.wait(timeout=2) == 0
            assert receive(sock).end != "open"


def test_it_ends_with_its_parent() -> None:
    parent = (
        "import os; from llmr.sandbox.process import SandboxProcess;"
        "s = SandboxProcess().start(); print(s.pid, flush=True); os._exit(1)"
    )
    command = [sys.executable, "-c", parent]
    pid = int(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = pathlib.Path(f"/proc/{pid}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"

    assert until(gone)


def test_a_taken_port_is_an_error(sandbox: SandboxProcess) -> None:
    with pytest.raises(SandboxError):
        SandboxProcess(port=sandbox.port).start()


async def stopped_in_mid_answer() -> set[str]:
    """Runs a sandbox on this loop, stops it, and returns the tasks it left behind."""
    stop, listening = asyncio.Event(), asyncio.Queue[Listening]()
    task = asyncio.create_task(run_sandbox(stop, listening.put_nowait))
    where = await listening.get()
    reader, writer = await asyncio.open_connection(where.host, where.port)
    writer.write(post({"model": "fb-s06", "messages": HELLO}))
    await asyncio.sleep(0.05)
    stop.set()
    await task
    assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()
    await writer.wait_closed()
    return {left.get_name() for left in asyncio.all_tasks()} - {"main"}


def test_it_can_be_stopped_on_a_loop_that_goes_on() -> None:
    async def main() -> set[str]:
        task = asyncio.current_task()
        assert task
        task.set_name("main")
        return await stopped_in_mid_answer()

    assert asyncio.run(main()) == set()


def test_hundreds_of_streams_at_once(sandbox: SandboxProcess, control: Control) -> None:
    control.settings(speed=1)
    request = post(
        {"model": "fb-ok", "messages": HELLO, "stream": True}, extra="connection: close\r\n"
    )
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(sandbox)) for _ in range(200)]
        for sock in socks:
            sock.sendall(request)
        began = time.monotonic()
        assert all(complete(receive(sock)) for sock in socks)
        assert time.monotonic() - began < 4
    ended = [attempt["ended"] for attempt in control.attempts()]
    assert ended == ["complete"] * 200
