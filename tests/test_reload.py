"""The configuration read again while it serves: rows R15 and R16 of the fault list."""

import asyncio
import gc
import json
import os
import signal
import threading
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from llmr import config
from llmr.errors import ConfigError
from llmr.gateway import Gateway
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.server.reload import Reloader
from tests.harness import at_rest, eventually, upstream
from tests.test_clients import (
    CHAT,
    HEAD,
    HI,
    MODEL,
    Hardened,
    answer,
    ask,
    clean,
    dial,
    gone,
    healthy,
    open_files,
    read_all,
    request_bytes,
    settled,
)
from tests.test_process import Child, begun, handles

OPENROUTER = {"api_key": "sk-test-key"}


def told(child: Child) -> dict[str, Any]:
    found: dict[str, Any] = child.get("/health").json["config"]
    return found


BAD: dict[str, tuple[str, str]] = {
    "syntax": ("server: [\n", "llmr.yaml:2: not valid YAML"),
    "unknown key": ("limits:\n  atempts: 2\n", "llmr.yaml:2: unknown key 'atempts' in limits"),
    "wrong value": ("routing:\n\n  priority: fast\n", "llmr.yaml:3: routing.priority"),
    "missing variable": (
        "upstreams:\n  a:\n    base_url: ${NOT_SET_ANYWHERE}\n",
        "llmr.yaml:3: the environment variable NOT_SET_ANYWHERE is not set",
    ),
    "open to all": ("server:\n  host: 0.0.0.0\n", "llmr.yaml:2: server.host 0.0.0.0"),
}


@pytest.mark.parametrize("workers", [1, 2])
def test_r15_a_bad_file_leaves_the_old_configuration_serving_and_is_told(
    tmp_path: Path, sandbox_process: SandboxProcess, sandbox: Control, workers: int
) -> None:
    tree = upstream(sandbox_process.base_url, limits={"body_mb": 1})
    with Child(tmp_path, tree, "--workers", str(workers)) as child:
        eventually(lambda: child.get("/readyz").status == 200, "ready")
        if workers == 2:
            eventually(
                lambda: [handles(w, signal.SIGHUP) for w in child.workers()] == [True, True],
                "both workers are there, and have a handler",
            )
        first = told(child)
        assert first["error"] is None
        for text, error in BAD.values():
            child.write(text)
            child.signal(signal.SIGHUP)
            eventually(lambda e=error: e in (told(child)["error"] or ""), error)  # type: ignore[misc]
            assert told(child)["loaded_at"] == first["loaded_at"] or workers == 2
            assert child.ask().status == 200
            eventually(lambda e=error: e in child.lines(), "logged")  # type: ignore[misc]
        child.write(upstream(sandbox_process.base_url, limits={"body_mb": 0.01}))
        child.signal(signal.SIGHUP)
        eventually(lambda: all(told(child)["error"] is None for _ in range(5)), "the error is gone")
        eventually(lambda: refuses_large(child) and refuses_large(child), "the new limit holds")
        child.signal(signal.SIGTERM)
        assert child.ends() == 0


def refuses_large(child: Child) -> bool:
    return child.ask(body=ask(note="x" * 20_000)).status == 413


def test_r15_what_cannot_change_and_what_must_not(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url)
    with Hardened(tree) as server:
        bound = config.build({**tree, "server": {"host": "0.0.0.0", "api_keys": ["k"]}}, {})
        server.gateway.config = bound

        def load() -> config.Config:
            return config.build(tree, {})

        assert reload(server, load) is False
        error = server.request("GET", "/health").json["config"]["error"]
        assert "server.api_keys is empty" in error

        def unkind() -> config.Config:
            raise ConfigError("a.yaml:1: not 'http://me:secret-word@host' sk-abcdefghijklmnop12345")

        assert reload(server, unkind) is False
        error = server.request("GET", "/health").json["config"]["error"]
        assert "secret-word" not in error
        assert "sk-abcdef" not in error

        def broken() -> config.Config:
            raise RuntimeError("a fault of a test")

        assert reload(server, broken) is False
        healthy(server)


def test_r15_a_store_that_cannot_be_reached_is_no_reason_to_refuse(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url)
    with Hardened(tree) as server:
        store = {"redis": {"url": "redis://127.0.0.1:1/0"}}
        assert reload(server, lambda: config.build({**tree, **store}, {})) is True
        healthy(server)
        health = server.request("GET", "/health").json
        assert health["config"]["error"] is None
        assert (health["redis_connected"], health["status"]) == (False, "degraded")


def reload(server: Hardened, load: Any) -> bool:
    async def once() -> bool:
        return await Reloader(server.application, load).reload()

    return asyncio.run_coroutine_threadsafe(once(), server.loop).result(10)


def models(sandbox: SandboxProcess, names: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A configuration whose every upstream has one model of its own, and its own key."""
    upstreams: dict[str, Any] = {"openrouter": None}
    for name, model in names.items():
        upstreams[name] = {
            "base_url": sandbox.base_url,
            "api_key": f"key-of-{name}",
            "models": [{"id": model, "prompt_cost_per_1k": 1, "completion_cost_per_1k": 1}],
        }
    return {"upstreams": upstreams, **more}


def test_r16_a_hundred_reloads_under_traffic_drop_nothing_and_mix_nothing(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    """Two configurations take turns: caller key, upstream, its key and model belong together."""
    trees = [
        models(sandbox_process, {"left": MODEL}, server={"api_keys": ["both", "left"]}),
        models(sandbox_process, {"right": "openai/gpt-4o"}, server={"api_keys": ["both", "right"]}),
    ]
    sandbox.fault("*", {"kind": "ok", "tokens_per_s": 2000})
    with Hardened(trees[0]) as server:
        headers = {**HEAD, "authorization": "Bearer both"}

        def ours() -> int:
            return open_files() - int(sandbox.stats()["connections"])

        server.request("GET", "/health")
        ready = reload(server, lambda: config.build(trees[0], {}))
        assert ready
        tasks, files = server.tasks, at_rest(ours)
        over = threading.Event()
        seen: list[tuple[int, str, bytes]] = []

        def call(stream: bool) -> None:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
            body = json.dumps({"model": "auto", "stream": stream, "messages": HI}).encode()
            while not over.is_set():
                connection.request("POST", CHAT, body, headers)
                response = connection.getresponse()
                data = response.read()
                seen.append((response.status, response.getheader("x-llmr-model") or "", data))
                if stream:
                    assert b"[DONE]" in data
            connection.close()

        callers = [threading.Thread(target=call, args=(n % 2 == 0,), daemon=True) for n in range(4)]
        for caller in callers:
            caller.start()
        try:
            for turn in range(1, 101):
                assert reload(server, lambda t=turn: config.build(trees[t % 2], {}))
                so_far = 2 * turn
                eventually(lambda n=so_far: len(seen) >= n, "traffic")  # type: ignore[misc]
        finally:
            over.set()
        for caller in callers:
            caller.join(10)
        assert len(seen) > 100
        assert {status for status, _, _ in seen} == {200}
        assert {model for _, model, _ in seen} == {MODEL, "openai/gpt-4o"}
        pairs = {(a["model"], a["headers"]["authorization"]) for a in sandbox.attempts()}
        assert pairs - {(None, pair[1]) for pair in pairs} == {
            (MODEL, "Bearer key-of-left"),
            ("openai/gpt-4o", "Bearer key-of-right"),
        }
        assert server.request("GET", "/metrics", headers=headers).json["total_requests"] == len(
            seen
        )
        eventually(lambda: server.tasks <= tasks, "no task is left over")
        eventually(lambda: ours() <= files, "no descriptor is left over")
        eventually(lambda: sandbox.stats()["connections"] <= 8, "the old pools are closed")
        assert gateways(server) == 1
        health = server.request("GET", "/health").json
        assert set(health["upstreams"]) == {"left"}
        # The 100th brought the left one back, with its own keys.
        for key, status in (("left", 200), ("right", 401)):
            fields = {**HEAD, "authorization": f"Bearer {key}"}
            assert server.request("POST", CHAT, ask(model="auto"), fields).status == status


def gateways(server: Hardened) -> int:
    """How many gateways of this server are alive, beside the one it began with."""
    gc.collect()
    window = server.application.gateway.window
    found = [one for one in gc.get_objects() if isinstance(one, Gateway)]
    return sum(one.window is window and one is not server.gateway for one in found)


def test_r16_a_request_ends_on_the_configuration_it_began_with(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    trees = [
        models(sandbox_process, {n: m}) for n, m in (("left", MODEL), ("right", "openai/gpt-4o"))
    ]
    sandbox.fault(MODEL, {"kind": "ok", "tokens_per_s": 100})
    with Hardened(trees[0]) as server:
        old = server.application.gateway
        with dial(server.port) as stream:
            stream.sendall(request_bytes(CHAT, ask(model="auto", stream=True), connection="close"))
            data = begun(stream)
            assert reload(server, lambda: config.build(trees[1], {}))
            assert server.application.gateway is not old
            assert server.chat(model="auto").headers["x-llmr-model"] == "openai/gpt-4o"
            both = at_rest(lambda: int(sandbox.stats()["connections"]))
            decision = answer(data).headers["x-llmr-decision-id"]
            assert server.request("GET", f"/v1/decisions/{decision}").status == 200
            data += read_all(stream)
        reply = answer(data)
        assert reply.headers["x-llmr-model"] == MODEL
        assert reply.events()[-1] == "[DONE]"
        account = server.request("GET", f"/v1/decisions/{decision}").json
        assert account["outcome"]["outcome"] == "ok"
        eventually(lambda: sandbox.stats()["connections"] < both, "the old pool is closed")


def test_r16_what_was_learned_is_kept_where_it_fits(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url)
    with Hardened(tree) as server:
        settled(server)
        sandbox.fault(MODEL, {"kind": "status", "status": 503}, times=1)
        server.chat(models=[MODEL, "openai/gpt-4o"])
        server.chat("/route", model="openai/gpt-4o", seed=1)
        before = server.request("GET", "/health").json
        assert reload(server, lambda: config.build({**tree, "limits": {"idle_s": 7}}, {}))
        assert server.application.wire.write_s == 7
        after = server.request("GET", "/health").json
        assert after["cooling"].keys() == before["cooling"].keys() != set()
        assert after["upstreams"]["openrouter"]["catalogue"] == "live"
        assert after["uptime_seconds"] >= before["uptime_seconds"]
        assert server.request("GET", "/metrics").json["total_requests"] == 2
        assert server.chat("/route", model="openai/gpt-4o", seed=1).json["cached"] is True
        text = server.request("GET", "/metrics?format=prometheus").body.decode()
        assert 'llmr_requests_total{cache="miss",outcome="ok",surface="route"} 1.0' in text
        assert 'llmr_requests_total{cache="hit",outcome="ok",surface="route"} 1.0' in text
        other = {**tree, "routing": {"priority": "cost"}}
        assert reload(server, lambda: config.build(other, {}))
        assert server.chat("/route", model="openai/gpt-4o", seed=1).json["cached"] is False
        healthy(server)


def test_r16_a_hangup_reads_the_file_again(
    tmp_path: Path, sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "tokens_per_s": 60})
    tree = upstream(sandbox_process.base_url)
    with Child(tmp_path, tree) as child:
        stream = child.open(CHAT, ask(stream=True), connection="close")
        data = begun(stream)
        child.write({**tree, "server": {"api_keys": ["a-new-key"]}})
        child.signal(signal.SIGHUP)
        eventually(lambda: child.ask().status == 401, "the new key is asked for")
        clean(child.ask(), 401, "invalid_api_key")
        assert answer(data + read_all(stream)).events()[-1] == "[DONE]"
        assert told(child)["error"] is None
        for number in range(5):
            child.write({**tree, "limits": {"attempts": number + 1}})
            os.kill(child.process.pid, signal.SIGHUP)
        eventually(lambda: child.ask().status == 200, "open again")
        assert not gone(sandbox)
        child.signal(signal.SIGTERM)
        assert child.ends() == 0
