"""Rows of the table of faults about the cache which no other test proves."""

import asyncio
import http.client
import json
import re
import threading
from collections.abc import Iterator
from statistics import median
from typing import Any

import openai
import pytest

from llmr.cache.memory import Entry
from llmr.cache.shared import ENTRY_LIMIT, PREFIX, Shared, pack, unpack
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.fault_proxy import FaultProxy, Mode
from tests.harness import Reply, Server, upstream
from tests.test_cache import MODEL, ask, eventually, lines, shared_server, together
from tests.valkey import Valkey


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with Valkey() as running:
        yield running


def prepared_ms(reply: Reply) -> float:
    """How long the router took between its decision and the upstream call."""
    parts = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
    return float(parts["prepare"])


def answers(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether the last thing told of the store is that it answers."""
    told = lines(caplog)
    return bool(told) and "answers" in told[-1]


def connections(valkey: Valkey) -> set[bytes]:
    """The ids of the router's connections to the store."""
    listed = valkey.command(b"CLIENT", b"LIST", b"TYPE", b"normal")
    return set(re.findall(rb"(?m)^id=(\d+) .* cmd=(?!client)", listed))


def completion(finish: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": "Hi.", **message},
    }
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


@pytest.mark.parametrize("modes", [("reset", "refuse"), ("reset",), ("black_hole",), ("delay",)])
def test_k02_a_store_that_fails_in_traffic_hardly_delays_and_is_told_once(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
    modes: tuple[Mode, ...],
) -> None:
    caplog.set_level("INFO", logger="llmr.cache")
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        tree = upstream(sandbox_process.base_url, redis={"url": url})
        with Server(tree, sandbox=True) as server:
            eventually(lambda: answers(caplog), "joined")
            before = len(lines(caplog))  # more than one where a busy machine was late to join
            for mode in modes:
                proxy.set(mode, seconds=0.5)
            replies = [ask(server, seed=number) for number in range(40)]
            assert not server.gateway.redis_connected
            assert {reply.headers["x-llmr-cache"] for reply in replies} == {"miss"}
            assert median(map(prepared_ms, replies)) < 20
            assert max(map(prepared_ms, replies)) < 400
            assert ["away" in line for line in lines(caplog)[before:]] == [True]
            proxy.set("pass")
            eventually(lambda: len(lines(caplog)) == before + 2, "joined again")
            assert server.gateway.redis_connected


def test_k03_a_flushed_store_is_a_miss(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    with shared_server(sandbox_process, valkey) as server:
        eventually(lambda: server.gateway.redis_connected, "joined")
        ask(server)
        eventually(lambda: valkey.command(b"DBSIZE") == b":1\r\n", "written behind")
        assert ask(server).headers["x-llmr-cache"] == "hit"
        assert valkey.command(b"FLUSHALL") == b"+OK\r\n"
        assert ask(server).headers["x-llmr-cache"] == "miss"
        eventually(lambda: valkey.command(b"DBSIZE") == b":1\r\n", "written again")
        assert server.gateway.redis_connected


@pytest.mark.parametrize(
    ("spoil", "mend", "why"),
    [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "ReadOnlyError"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OutOfMemoryError"),
        (
            *("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
            "ResponseError",
        ),
    ],
    ids=["replica", "full", "alone"],
)
def test_k03_a_store_that_takes_no_writes_causes_no_error_and_is_told_once(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
    spoil: str,
    mend: str,
    why: str,
) -> None:
    caplog.set_level("INFO", logger="llmr.cache")
    with shared_server(sandbox_process, valkey) as server:
        eventually(lambda: answers(caplog), "joined")
        caplog.clear()
        before = connections(valkey)
        assert before
        assert valkey.command(*spoil.encode().split()) == b"+OK\r\n"
        for number in range(10):
            assert ask(server, seed=number).headers["x-llmr-cache"] == "miss"
            if number == 0:
                eventually(lambda: not server.gateway.redis_connected, "a write refused")
        assert ask(server, seed=9).headers["x-llmr-cache"] == "hit"  # from memory
        eventually(lambda: not connections(valkey) & before, "connected anew")
        assert not server.gateway.redis_connected
        assert valkey.command(b"DBSIZE") == b":0\r\n"
        assert valkey.command(*mend.encode().split()) == b"+OK\r\n"
        eventually(lambda: answers(caplog), "joined again")
        assert valkey.command(b"DBSIZE") == b":0\r\n"  # a probe leaves nothing

        def written() -> bool:
            return ask(server, seed=100).headers["x-llmr-cache"] == "hit" and (
                valkey.command(b"DBSIZE") != b":0\r\n"
            )

        eventually(written, "kept there again")
        first, second = lines(caplog)
        assert f"takes no entries ({why})" in first
        assert "answers" in second


@pytest.mark.parametrize(("spoil", "mend"), [("-set", "+set"), ("-get", "+get")])
def test_k03_a_store_that_forbids_what_the_cache_does_is_left_alone(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
    spoil: str,
    mend: str,
) -> None:
    caplog.set_level("INFO", logger="llmr.cache")
    with shared_server(sandbox_process, valkey) as server:
        eventually(lambda: answers(caplog), "joined")
        caplog.clear()
        assert valkey.command(b"ACL", b"SETUSER", b"default", spoil.encode()) == b"+OK\r\n"
        for number in range(10):
            assert ask(server, seed=number).headers["x-llmr-cache"] == "miss"
        eventually(lambda: not server.gateway.redis_connected, "refused")
        assert valkey.command(b"ACL", b"SETUSER", b"default", mend.encode()) == b"+OK\r\n"
        eventually(lambda: answers(caplog), "joined again")
        assert ["takes no" in line for line in lines(caplog)] == [True, False]


def test_k04_a_huge_entry_is_no_entry() -> None:
    for size, kept in ((1000, True), (ENTRY_LIMIT, False)):
        stored = pack(Entry(MODEL, "openrouter", b"x" * size, 0.0))
        assert (unpack(stored) is not None) is kept


def test_k04_what_would_not_be_read_is_not_written(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 100_000
    monkeypatch.setattr("llmr.cache.shared.ENTRY_LIMIT", limit)
    around = len(pack(Entry(MODEL, "openrouter", b"x" * 80_000, 0.0))) - 80_000
    sizes = limit + 1, limit - around + 1, limit - around
    entries = [Entry(MODEL, "openrouter", b"x" * size, 0.0) for size in sizes]

    def stored() -> bool:
        return valkey.command(b"DBSIZE") == b":1\r\n"

    async def play() -> None:
        shared = Shared(valkey.url, 60)
        running = asyncio.create_task(shared.run())
        await asyncio.to_thread(eventually, lambda: shared.connected, "joined")
        for number, entry in enumerate(entries):
            shared.put(b"%d" % number, entry)
        await asyncio.to_thread(eventually, stored, "written")
        found = [await shared.get(b"%d" % number) for number in range(len(entries))]
        assert found == [None, None, entries[2]]
        assert shared.spoilt == 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await shared.close()

    asyncio.run(play())


@pytest.mark.parametrize("spoil", [(b"SET", b"not ours"), (b"LPUSH", b"a list")])
def test_k04_a_spoilt_entry_is_a_miss_removed_and_counted_on_its_own(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    valkey: Valkey,
    spoil: tuple[bytes, bytes],
) -> None:
    with shared_server(sandbox_process, valkey) as server:
        eventually(lambda: server.gateway.redis_connected, "joined")
        ask(server)
        eventually(lambda: valkey.command(b"DBSIZE") == b":1\r\n", "written behind")
        name = valkey.command(b"KEYS", PREFIX + b"*").split(b"\r\n", 2)[2][:-2]
        assert valkey.command(b"DEL", name) == b":1\r\n"
        assert valkey.command(spoil[0], name, spoil[1])[:1] in b"+:"
        assert valkey.command(b"DBSIZE") == b":1\r\n"
        # What is refused is not kept, so nothing else takes the spoilt entry away.
        sandbox.fault(MODEL, {"kind": "status", "status": 400}, times=1)
        assert server.chat(model=MODEL, temperature=0).status == 400
        assert valkey.command(b"DBSIZE") == b":0\r\n"
        assert server.request("GET", "/cache/stats").json["misses"] == 2
        assert server.request("GET", "/health").json["spoilt_cache_entries"] == 1
        scraped = server.request("GET", "/metrics?format=prometheus").body
        assert b"llmr_cache_spoilt_entries 1.0" in scraped
        assert server.gateway.redis_connected


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (completion(), True),
        (completion("content_filter"), False),
        (completion(refusal="I will not."), False),
        ({"error": {"message": "no", "code": 400}}, False),
    ],
    ids=["whole", "filter", "refused", "error"],
)
def test_k08_a_filtered_or_refused_answer_is_not_kept(
    server: Server, sandbox: Control, body: dict[str, Any], kept: bool
) -> None:
    sandbox.fault(MODEL, {"kind": "json_body", "body": json.dumps(body)}, times=1)
    server.chat(model=MODEL, temperature=0)
    assert (ask(server).headers["x-llmr-cache"] == "hit") is kept


def test_k10_a_hit_has_headers_of_its_own(server: Server, sandbox: Control) -> None:
    marks = {"keep-alive": "timeout=5", "x-mark": "upstream"}
    fault = {"kind": "json_body", "body": json.dumps(completion()), "headers": marks}
    sandbox.fault(MODEL, fault, times=1)
    ids = {ask(server).headers["x-request-id"]}
    for stream in (False, True):
        hit = ask(server, stream=stream)
        assert hit.headers["x-llmr-cache"] == "hit"
        assert not marks.keys() & hit.headers.keys()
        assert hit.text() == "Hi."
        assert hit.headers["age"].isdecimal()
        assert ("content-length" in hit.headers) is not stream
        ids.add(hit.headers["x-request-id"])
    assert len(ids) == 3


def test_k11_two_hundred_identical_misses_are_one_upstream_call(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 1})
    replies = together(200, lambda n: ask(server, stream=n % 2 == 0))
    assert len(replies) == 200
    assert len({reply.text() for reply in replies}) == 1
    assert len(sandbox.attempts()) == 1
    states = [reply.headers["x-llmr-cache"] for reply in replies]
    assert states.count("miss") == 1
    assert "joined" in states


@pytest.mark.parametrize("stream", [False, True])
def test_k12_the_work_goes_on_for_others_when_the_leader_leaves(
    server: Server, sandbox: Control, stream: bool
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 2})
    leader = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    sent = {"model": MODEL, "temperature": 0, "stream": stream}
    messages = [{"role": "user", "content": "Hello there"}]
    leader.request("POST", "/v1/chat/completions", json.dumps({**sent, "messages": messages}))
    eventually(lambda: len(sandbox.attempts()) == 1, "sent upstream")
    replies: list[Reply] = []
    follower = threading.Thread(target=lambda: replies.append(ask(server, stream=stream)))
    follower.start()
    eventually(lambda: server.gateway.in_flight == 2, "joined")
    leader.close()
    eventually(lambda: server.gateway.in_flight == 1, "the leader left")
    assert not replies
    follower.join()
    assert replies[0].headers["x-llmr-cache"] == "joined"
    assert replies[0].text() == ask(server).text()
    assert len(sandbox.attempts()) == 1


def test_k12_after_a_failure_there_is_one_new_leader(server: Server, sandbox: Control) -> None:
    sandbox.fault(MODEL, {"kind": "status", "status": 400, "delay_s": 1}, times=1)
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 1})

    def stubborn(_: int) -> Reply:
        reply = server.chat(model=MODEL, seed=3)
        return reply if reply.status == 200 else server.chat(model=MODEL, seed=3)

    replies = together(20, stubborn)
    assert {reply.status for reply in replies} == {200}
    assert len(sandbox.attempts()) == 2


def test_k14_the_store_expires_entries_by_its_own_clock(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    redis = {"url": valkey.url, "ttl_seconds": 1000}
    with Server(upstream(sandbox_process.base_url, redis=redis), sandbox=True) as server:
        eventually(lambda: server.gateway.redis_connected, "joined")
        ask(server)
        eventually(lambda: valkey.command(b"DBSIZE") == b":1\r\n", "written behind")
        name = valkey.command(b"KEYS", PREFIX + b"*").split(b"\r\n", 2)[2][:-2]
        assert 900 < int(valkey.command(b"TTL", name)[1:-2]) <= 1000


def test_k14_a_full_cache_stays_within_its_limit(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    tree = upstream(sandbox_process.base_url, cache={"max_mb": 0.01})
    with Server(tree, sandbox=True) as server:
        for number in range(40):
            assert ask(server, seed=number).headers["x-llmr-cache"] == "miss"
        stats = server.request("GET", "/cache/stats").json
        assert stats["bytes"] <= 0.01 * 1024 * 1024
        assert 0 < stats["entries"] < 40
        assert ask(server, seed=39).headers["x-llmr-cache"] == "hit"
        assert ask(server, seed=0).headers["x-llmr-cache"] == "miss"


def test_c14_a_client_that_retries_multiplies_within_bounds(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault("*", {"kind": "status", "status": 503})
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=1) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Hello there"}]
        )
    last = caught.value.response
    assert last.request.headers["x-stainless-retry-count"] == "1"
    assert last.headers["x-should-retry"] == "true"
    shown = int(last.headers["x-llmr-attempts"])
    assert 0 <= shown <= 3
    assert 3 <= len(sandbox.attempts()) == 3 + shown
    assert server.request("GET", "/metrics").json["total_requests"] == 2
