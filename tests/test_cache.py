"""The response cache: in memory, in a real Valkey server, and when that goes away."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llmr.cache.memory import OVERHEAD, Entry, Memory
from llmr.cache.shared import MAGIC, PREFIX, pack, unpack
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import Reply, Server, upstream
from tests.harness import eventually as eventually
from tests.valkey import Valkey

MODEL = "openai/gpt-5.4-mini"


def shared_server(sandbox: SandboxProcess, valkey: Valkey) -> Server:
    return Server(upstream(sandbox.base_url, redis={"url": valkey.url}), sandbox=True)


@contextmanager
def joined(sandbox: SandboxProcess, valkey: Valkey) -> Iterator[Server]:
    """A router that has found the shared store."""
    with shared_server(sandbox, valkey) as server:
        eventually(lambda: server.gateway.redis_connected, "joined")
        yield server


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the cache wrote to the log."""
    return [r.getMessage() for r in caplog.records if r.name == "llmr.cache"]


def ask(server: Server, path: str = "/v1/chat/completions", **body: Any) -> Reply:
    reply = server.chat(path, model=MODEL, temperature=0, **body)
    assert reply.status == 200
    return reply


# --- memory ---


def entry(size: int) -> Entry:
    return Entry("m", "u", b"x" * size, 0.0)


def test_k14_memory_is_bounded_by_bytes_and_the_least_recently_used_goes() -> None:
    memory = Memory(3 * (100 + OVERHEAD), 60)
    for name in (b"a", b"b", b"c"):
        memory.put(name, entry(100), 0.0)
    assert memory.get(b"a", 1.0) is not None
    memory.put(b"d", entry(100), 1.0)
    assert [memory.get(k, 1.0) is not None for k in (b"a", b"b", b"c", b"d")] == [1, 0, 1, 1]
    assert memory.bytes == 3 * (100 + OVERHEAD)


def test_k14_an_entry_larger_than_the_cache_is_not_kept_and_evicts_nothing() -> None:
    memory = Memory(1000, 60)
    memory.put(b"a", entry(100), 0.0)
    assert not memory.put(b"b", entry(5000), 0.0)
    assert memory.get(b"a", 0.0) is not None


def test_k14_memory_expires_by_the_given_clock_and_counts_its_bytes() -> None:
    memory = Memory(10_000, 60)
    memory.put(b"a", entry(10), 100.0)
    assert memory.get(b"a", 159.9) is not None
    assert memory.get(b"a", 160.0) is None
    assert memory.bytes == 0
    memory.put(b"a", entry(10), 0.0)
    memory.put(b"a", entry(20), 0.0)
    assert memory.bytes == 20 + OVERHEAD
    assert memory.clear() == 1
    assert memory.bytes == 0


# --- what is served ---


def test_a_deterministic_request_is_answered_from_the_cache(
    server: Server, sandbox: Control
) -> None:
    first, second = ask(server), ask(server)
    assert first.headers["x-llmr-cache"] == "miss"
    assert second.headers["x-llmr-cache"] == "hit"
    assert second.body == first.body
    assert second.headers["x-llmr-model"] == MODEL
    assert second.headers["x-llmr-attempts"] == "0"
    assert second.headers["x-llmr-cost-usd"] == "0"
    assert len(sandbox.attempts()) == 1


def test_a_hit_costs_less_than_a_millisecond_of_router_time(server: Server) -> None:
    ask(server)
    took = []
    for _ in range(20):
        timing = dict(
            part.split(";dur=") for part in ask(server).headers["server-timing"].split(", ")
        )
        took.append(float(timing["total"]))
    assert sorted(took)[0] < 1.0


def test_k10_one_entry_serves_both_forms(server: Server, sandbox: Control) -> None:
    whole = ask(server)
    stream = ask(server, stream=True, stream_options={"include_usage": True})
    assert stream.headers["x-llmr-cache"] == "hit"
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text() == whole.text()
    assert stream.events()[-2]["usage"] == whole.json["usage"]
    assert stream.events()[-2]["choices"] == []
    assert len(sandbox.attempts()) == 1


def test_k10_a_streamed_answer_is_kept_and_served_whole(server: Server, sandbox: Control) -> None:
    stream = ask(server, stream=True)
    whole = ask(server)
    assert whole.headers["x-llmr-cache"] == "hit"
    assert whole.text() == stream.text()
    assert whole.json["choices"][0]["finish_reason"] == "stop"
    assert whole.json["object"] == "chat.completion"
    assert len(sandbox.attempts()) == 1


def test_k10_tool_calls_survive_the_change_of_form(server: Server) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    whole = ask(server, tools=tools)
    events = ask(server, tools=tools, stream=True).events()
    calls = [c for e in events[:-1] for c in e["choices"][0]["delta"].get("tool_calls") or ()]
    wanted = whole.json["choices"][0]["message"]["tool_calls"]
    assert calls == [{**call, "index": index} for index, call in enumerate(wanted)]


def test_k13_what_is_meant_to_vary_is_not_cached_on_v1_but_is_on_route(
    server: Server, sandbox: Control
) -> None:
    for _ in range(2):
        assert server.chat(model=MODEL).headers["x-llmr-cache"] == "bypass"
    assert len(sandbox.attempts()) == 2
    first = server.chat("/route", model=MODEL)
    second = server.chat("/route", model=MODEL)
    assert (first.json["cached"], second.json["cached"]) == (False, True)
    assert second.json["choices"] == first.json["choices"]
    assert second.json["routing_decision"]["attempts"] == []


def test_a_seed_makes_a_request_deterministic(server: Server) -> None:
    replies = [server.chat(model=MODEL, seed=7).headers["x-llmr-cache"] for _ in range(2)]
    assert replies == ["miss", "hit"]


@pytest.mark.parametrize(
    ("directive", "seen"),
    [
        ("no-cache", ["bypass", "bypass", "hit"]),
        ("no-store", ["bypass", "bypass", "miss"]),
        ("max-age=0", ["bypass", "bypass", "hit"]),
        ("max-age=100", ["miss", "hit", "hit"]),
        ("private, No-Store", ["bypass", "bypass", "miss"]),
    ],
)
def test_k13_the_callers_cache_control_is_obeyed(
    server: Server, directive: str, seen: list[str]
) -> None:
    said = {"cache-control": directive}
    states = [ask(server, headers=said).headers["x-llmr-cache"] for _ in range(2)]
    assert [*states, ask(server).headers["x-llmr-cache"]] == seen


@pytest.mark.parametrize(
    ("setting", "body", "cached"),
    [
        ("always", {}, True),
        ("never", {"temperature": 0}, False),
        ("deterministic", {"temperature": 0}, True),
        ("deterministic", {"temperature": 0.5}, False),
    ],
)
def test_k13_the_configured_default(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    setting: str,
    body: dict[str, Any],
    cached: bool,
) -> None:
    tree = upstream(sandbox_process.base_url, cache={"default": setting})
    with Server(tree, sandbox=True) as server:
        server.chat(model=MODEL, **body)
        assert (server.chat(model=MODEL, **body).headers["x-llmr-cache"] == "hit") is cached


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503},
        {"kind": "cut", "after_tokens": 5, "how": "close"},
        {"kind": "malformed", "at_token": 3},
    ],
)
def test_k08_what_is_not_a_whole_regular_answer_is_not_kept(
    server: Server, sandbox: Control, fault: dict[str, Any]
) -> None:
    sandbox.fault(MODEL, fault, times=1)
    server.chat(model=MODEL, temperature=0, stream=True)
    assert ask(server).headers["x-llmr-cache"] == "miss"


def test_k08_an_answer_stopped_by_length_is_not_kept(server: Server) -> None:
    assert ask(server, max_tokens=3).json["choices"][0]["finish_reason"] == "length"
    assert ask(server, max_tokens=3).headers["x-llmr-cache"] == "miss"


def test_k09_the_answer_of_a_fallback_is_not_kept_as_the_first_choices(
    server: Server, sandbox: Control
) -> None:
    models = [MODEL, "openai/gpt-5.4"]
    sandbox.fault(MODEL, {"kind": "status", "status": 503}, times=1)
    assert server.chat(models=models, model=MODEL, seed=1).headers["x-llmr-model"] == models[1]
    while_it_cools = server.chat(models=models, model=MODEL, seed=1)
    assert while_it_cools.headers["x-llmr-model"] == models[1]
    again = server.chat(models=models, model=MODEL, seed=1)
    assert [r.headers["x-llmr-cache"] for r in (while_it_cools, again)] == ["miss", "miss"]


def test_what_the_router_chose_in_place_of_a_resting_model_is_kept(
    server: Server, sandbox: Control
) -> None:
    best = server.chat(model="auto", seed=1).headers["x-llmr-model"]
    sandbox.fault(best, {"kind": "status", "status": 503}, times=1)
    after = [server.chat(model="auto", seed=2).headers for _ in range(3)]
    assert best not in {headers["x-llmr-model"] for headers in after}
    # The first fell back within the request, the second was decided while the best one rests.
    assert [headers["x-llmr-cache"] for headers in after] == ["miss", "miss", "hit"]


def test_k07_callers_with_different_keys_never_share(sandbox_process: SandboxProcess) -> None:
    tree = upstream(sandbox_process.base_url, server={"api_keys": ["key-one", "key-two"]})
    with Server(tree, sandbox=True) as server:
        seen = [
            ask(server, headers={"authorization": f"Bearer {key}"}).headers["x-llmr-cache"]
            for key in ("key-one", "key-two", "key-one")
        ]
    assert seen == ["miss", "miss", "hit"]


# --- one call for identical requests in flight ---


def together(count: int, call: Callable[[int], Reply]) -> list[Reply]:
    replies: list[Reply | None] = [None] * count

    def one(number: int) -> None:
        replies[number] = call(number)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [reply for reply in replies if reply is not None]


def test_k11_identical_requests_in_flight_share_one_upstream_call(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 0.5})
    replies = together(30, lambda n: ask(server, stream=n % 2 == 0))
    assert len({reply.text() for reply in replies}) == 1
    assert len(sandbox.attempts()) == 1
    states = sorted(reply.headers["x-llmr-cache"] for reply in replies)
    assert states == ["joined"] * 29 + ["miss"]


def test_k11_one_call_is_paid_for_once_whoever_waits_for_it(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 0.5})
    together(6, lambda n: ask(server, stream=n % 2 == 0))
    sandbox.clear()
    alone = float(ask(server, seed=1).headers["x-llmr-cost-usd"])
    figures = server.request("GET", "/metrics").json
    assert figures["total_requests"] == 7
    assert figures["cost_usd"] == pytest.approx(2 * alone)


def test_k11_streams_in_flight_each_have_the_usage_they_asked_for(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 0.5})
    replies = together(
        6, lambda n: ask(server, stream=True, stream_options={"include_usage": n % 2 == 0})
    )
    assert len(sandbox.attempts()) == 1
    for number, reply in enumerate(replies):
        *events, done = reply.events()
        assert done == "[DONE]"
        assert (events[-1]["choices"] == []) is (number % 2 == 0)


@pytest.mark.parametrize("first", ["no-cache", "max-age=9"])
def test_k13_who_wants_a_fresh_answer_neither_joins_nor_is_joined(
    server: Server, sandbox: Control, first: str
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 0.5})
    second = "max-age=9" if first == "no-cache" else "no-cache"
    said = [{"cache-control": first}, {"cache-control": second}]

    def one(number: int) -> Reply:
        if number:
            eventually(lambda: len(sandbox.attempts()) == 1, "the first is under way")
        return ask(server, headers=said[number])

    together(2, one)
    assert len(sandbox.attempts()) == 2


def test_k12_the_deadline_of_one_who_waits_does_not_end_the_others(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "ok", "delay_s": 1.0})

    def one(number: int) -> Reply:
        if number:
            eventually(lambda: len(sandbox.attempts()) == 1, "the first is under way")
            return server.chat(model=MODEL, seed=5)
        return server.chat(model=MODEL, seed=5, deadline_ms=400)

    hurried, patient = together(2, one)
    assert (hurried.status, patient.status) == (504, 200)
    assert patient.headers["x-llmr-cache"] == "joined"
    assert len(sandbox.attempts()) == 1


def test_k12_a_failure_in_flight_reaches_everyone_who_waited(
    server: Server, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "status", "status": 400, "delay_s": 0.3})
    replies = together(5, lambda _: server.chat(model=MODEL, seed=3))
    assert {reply.status for reply in replies} == {400}
    assert len(sandbox.attempts()) == 1


# --- the shared store ---


def test_answers_are_kept_in_valkey_and_shared_between_routers(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    with joined(sandbox_process, valkey) as one, joined(sandbox_process, valkey) as two:
        first = ask(one)
        eventually(lambda: valkey.command(b"DBSIZE") == b":1\r\n", "written behind")
        second = ask(two)
        assert second.headers["x-llmr-cache"] == "hit"
        assert second.body == first.body
        stats = two.request("GET", "/cache/stats").json
        assert (stats["backend"], stats["entries"], stats["hits"]) == ("redis", 1, 1)
        assert stats["bytes"] > len(first.body)
        assert one.request("GET", "/health").json["redis_connected"] is True
        assert one.request("DELETE", "/cache").json["cleared"] == 1
        assert valkey.command(b"DBSIZE") == b":0\r\n"
    assert len(sandbox.attempts()) == 1


def test_routers_with_other_upstreams_share_no_answers(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    elsewhere = upstream(sandbox_process.base_url.replace("127.0.0.1", "localhost"))
    with joined(sandbox_process, valkey) as one:
        ask(one)
        eventually(lambda: valkey.command(b"DBSIZE") == b":1\r\n", "written behind")
        with Server({**elsewhere, "redis": {"url": valkey.url}}, sandbox=True) as two:
            eventually(lambda: two.gateway.redis_connected, "joined")
            assert ask(two).headers["x-llmr-cache"] == "miss"
        assert ask(one).headers["x-llmr-cache"] == "hit"


def test_k02_k03_valkey_going_away_and_coming_back_causes_no_error(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="llmr.cache")
    with joined(sandbox_process, valkey) as server:
        ask(server)
        for number in range(60):
            if number == 20:
                valkey.stop()
            assert ask(server, seed=number // 3).status == 200
        assert not server.gateway.redis_connected
        assert server.request("GET", "/health").json["status"] == "degraded"
        assert server.request("GET", "/cache/stats").json["backend"] == "memory"
        assert ask(server, seed=1000).headers["x-llmr-cache"] == "miss"
        assert ask(server, seed=1000).headers["x-llmr-cache"] == "hit"
        valkey.start()
        eventually(lambda: server.gateway.redis_connected, "joined again")
        assert ask(server, seed=2000).headers["x-llmr-cache"] == "miss"
    told = lines(caplog)
    assert [("answers" in line, "away" in line) for line in told] == [(1, 0), (0, 1), (1, 0)]


def test_k02_a_frozen_valkey_delays_one_request_by_the_operation_limit_at_most(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    with joined(sandbox_process, valkey) as server:
        valkey.freeze()
        try:
            replies = [ask(server, seed=n) for n in range(10)]
        finally:
            valkey.thaw()
        assert all(reply.status == 200 for reply in replies)
        assert not server.gateway.redis_connected
        slow = [r for r in replies if "prepare;dur=5" in r.headers["server-timing"]]
        assert len(slow) <= 1


def test_k01_valkey_away_at_the_start_is_joined_later(
    sandbox_process: SandboxProcess,
    sandbox: Control,
    valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="llmr.cache")
    valkey.stop()
    with shared_server(sandbox_process, valkey) as server:
        assert ask(server).headers["x-llmr-cache"] == "miss"
        assert ask(server).headers["x-llmr-cache"] == "hit"
        assert server.request("GET", "/readyz").status == 200
        eventually(lambda: len(lines(caplog)) == 1, "said so")
        valkey.start()
        eventually(lambda: len(lines(caplog)) >= 2, "joined")
        assert server.gateway.redis_connected
    assert ["away" in line for line in lines(caplog)] == [True, False]


BODY = pack(Entry(MODEL, "openrouter", b"{}", 0.0))


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"hello",
        BODY[:-1],
        BODY + b"x",
        b"\x80\x04K\x01.",
        MAGIC + bytes(16) + BODY[len(MAGIC) + 16 :],
        BODY.replace(MAGIC, b"LLMR\x00"),
        MAGIC + hashlib.blake2b(b"\xff\xff", digest_size=16).digest() + b"\xff\xff",
    ],
)
def test_k04_an_entry_that_is_not_exactly_ours_is_no_entry(stored: bytes) -> None:
    assert unpack(stored) is None


def test_k04_a_spoilt_entry_is_a_miss_and_is_removed(
    sandbox_process: SandboxProcess, sandbox: Control, valkey: Valkey
) -> None:
    with joined(sandbox_process, valkey) as server:
        ask(server)
        eventually(lambda: valkey.command(b"DBSIZE") == b":1\r\n", "written behind")
        keys = valkey.command(b"KEYS", PREFIX + b"*")
        name = keys.split(b"\r\n", 2)[2][:-2]
        assert valkey.command(b"SET", name, b"not ours") == b"+OK\r\n"
        assert ask(server).headers["x-llmr-cache"] == "miss"
        assert len(sandbox.attempts()) == 2
        eventually(lambda: b"LLMR" in valkey.command(b"GET", name), "written behind again")
        assert valkey.command(b"DEL", name)
        assert valkey.command(b"LPUSH", name, b"a list") == b":1\r\n"
        assert ask(server).headers["x-llmr-cache"] == "miss"
        assert server.gateway.redis_connected


def test_a_pack_can_be_unpacked() -> None:
    found = unpack(BODY)
    assert found is not None
    assert (found.model, found.upstream, found.completion) == (MODEL, "openrouter", b"{}")
