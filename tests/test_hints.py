"""What one router finds out of a target, the others of its store know as well."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llmr.cache.hints import NAME, account_of
from llmr.core.classify import RATE_LIMITED, SERVER
from llmr.core.learner import Learner
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.builders import model
from tests.harness import Server, eventually, upstream
from tests.valkey import Valkey

DOWN = {"kind": "status", "status": 503}


@contextmanager
def router(sandbox: SandboxProcess, valkey: Valkey, key: str | None = None) -> Iterator[Server]:
    tree: dict[str, Any] = upstream(sandbox.base_url, redis={"url": valkey.url})
    tree["cache"] = {"default": "never"}
    tree["routing"] = {"explore": {"share": 0}}
    if key is not None:
        tree["upstreams"]["openrouter"]["api_key"] = key
    with Server(tree) as server:
        eventually(lambda: server.gateway.redis_connected, "joined")
        yield server


def cooling(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.request("GET", "/health").json["cooling"]
    return found


def test_what_one_router_leaves_alone_the_other_does_not_try(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    with router(sandbox_process, valkey) as one, router(sandbox_process, valkey) as two:
        chosen = one.chat(model="auto:speed").headers["x-llmr-model"]
        sandbox.fault(chosen, DOWN, times=1)
        assert one.chat(model="auto:speed").headers["x-llmr-model"] != chosen
        target = next(iter(cooling(one)))
        assert target.endswith(chosen)
        eventually(lambda: target in cooling(two), "the other was told")
        before = len(sandbox.attempts())
        assert two.chat(model="auto:speed").headers["x-llmr-model"] != chosen
        assert len(sandbox.attempts()) == before + 1, "it did not have to find out by itself"
        assert two.chat(model=chosen).status == 200, "what is named is tried all the same"


def test_routers_with_other_keys_share_nothing(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    with router(sandbox_process, valkey) as one, router(sandbox_process, valkey, "sk-b") as two:
        chosen = one.chat(model="auto:speed").headers["x-llmr-model"]
        sandbox.fault(chosen, DOWN, times=1)
        one.chat(model="auto:speed")
        eventually(lambda: b":1" in valkey.command(b"EXISTS", NAME), "written")
        assert cooling(one)
        assert two.chat(model="auto:speed").headers["x-llmr-model"] == chosen


@pytest.mark.parametrize("spoil", [(b"SET", NAME, b"no hash"), (b"HSET", NAME, b"x y", b"\xff")])
def test_k04_what_is_no_hint_is_removed_and_harms_nobody(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey, spoil: tuple[bytes, ...]
) -> None:
    valkey.command(*spoil)
    with router(sandbox_process, valkey) as one:
        eventually(lambda: b":0" in valkey.command(b"EXISTS", NAME), "removed")
        assert one.chat(model="auto:speed").status == 200
        assert one.request("GET", "/health").json["background"]["hints"]["restarts"] == 0


def test_without_the_store_hints_end_with_their_time(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    with router(sandbox_process, valkey) as one, router(sandbox_process, valkey) as two:
        chosen = one.chat(model="auto:speed").headers["x-llmr-model"]
        sandbox.fault(chosen, {**DOWN, "headers": {"retry-after": "2"}}, times=1)
        one.chat(model="auto:speed")
        eventually(lambda: bool(cooling(two)), "the other was told")
        valkey.stop()
        eventually(lambda: not cooling(two), "its time is over")
        assert two.chat(model="auto:speed").headers["x-llmr-model"] == chosen


def test_what_answers_here_is_not_given_up_on_the_word_of_others() -> None:
    learner, row = Learner(random.Random(1).random), model("a")
    learner.well(row, 100.0)
    assert not learner.hinted({row.target: (130.0, SERVER.name)}, 101.0)
    assert learner.admit(row, 101.0)
    learner.hinted({row.target: (130.0, RATE_LIMITED.name)}, 101.0)
    assert not learner.admit(row, 101.0), "a limit is one of the account they share"
    assert learner.rests_s(row, 101.0) == 29.0
    assert learner.cooling(101.0) == {row.target: (130.0, "rate_limited")}
    assert learner.resting(101.0) == {}, "what others say is not passed on"
    learner.hinted({row.target: (130.0, SERVER.name)}, 120.0)
    assert not learner.admit(row, 120.0), "long ago it answered here"
    assert learner.admit(row, 130.0)
    assert learner.hinted({}, 121.0)
    assert learner.admit(row, 121.0)


def test_an_account_is_known_by_its_address_and_key() -> None:
    assert account_of("http://a/v1/", "k") == account_of("http://a/v1", "k")
    assert account_of("http://a/v1", "k") != account_of("http://a/v1", "l")
    assert "secret" not in account_of("http://a/v1", "secret")
