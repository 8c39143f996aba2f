"""The router inside a program: asynchronous and synchronous, and what an import costs."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

import llmr
from llmr import ApiError, ConfigError, Router, sync
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.text import CANONICAL_ANSWER
from tests.harness import eventually, upstream

HI = [{"role": "user", "content": "Hello"}]
MODEL = "openai/gpt-5.4-mini"


def test_chat(sandbox_process: SandboxProcess, sandbox: Control) -> None:
    async def use() -> None:
        async with Router(upstream(sandbox_process.base_url)) as router:
            answer = await router.chat(messages=HI, priority="cost")
            assert answer.text.startswith(CANONICAL_ANSWER)
            assert answer["choices"][0]["finish_reason"] == "stop"
            assert answer.routing_decision.selected_model == answer.model
            assert answer.routing_decision.priority == "cost"
            again = await router.chat(messages=HI, priority="cost")
            assert (answer.cached, again.cached) == (False, True)
            account = router.explain(answer.routing_decision.id)
            assert account.outcome.outcome == "ok"
            assert router.metrics()["total_requests"] == 2

    asyncio.run(use())


def test_who_waits_when_the_router_is_closed_is_told(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault("*", {"kind": "silent", "seconds": 30})

    async def use() -> ApiError:
        router = Router(upstream(sandbox_process.base_url))
        waiting = asyncio.ensure_future(router.chat(messages=HI, model=MODEL))
        await asyncio.to_thread(eventually, lambda: sandbox.stats()["busy"], "asked")
        await router.close()
        with pytest.raises(ApiError) as caught:
            await asyncio.wait_for(waiting, 2.0)
        return caught.value

    assert asyncio.run(use()).code == "draining"


def test_stream(sandbox_process: SandboxProcess, sandbox: Control) -> None:
    async def use() -> str:
        async with Router(upstream(sandbox_process.base_url)) as router:
            chunks = [chunk async for chunk in router.stream(messages=HI, model=MODEL)]
            assert chunks[-1].choices[0]["finish_reason"] == "stop"
            return "".join(chunk.text for chunk in chunks)

    assert asyncio.run(use()).startswith(CANONICAL_ANSWER)


def test_a_cut_stream_raises(sandbox_process: SandboxProcess, sandbox: Control) -> None:
    sandbox.fault(MODEL, {"kind": "cut", "after_tokens": 5, "how": "close"})

    async def use() -> int:
        seen = 0
        error: ApiError | None = None
        async with Router(upstream(sandbox_process.base_url)) as router:
            try:
                async for _ in router.stream(messages=HI, model=MODEL):
                    seen += 1
            except ApiError as caught:
                error = caught
        assert error is not None
        assert error.code == "upstream_cut_answer"
        return seen

    assert asyncio.run(use()) > 0


def test_a_reader_who_stops_closes_the_upstream(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    sandbox.fault(MODEL, {"kind": "stall", "after_tokens": 5, "seconds": 30})

    async def use() -> None:
        async with Router(upstream(sandbox_process.base_url)) as router:
            stream = router.stream(messages=HI, model=MODEL)
            assert (await anext(stream)) is not None
            await stream.aclose()  # type: ignore[attr-defined]
            await asyncio.to_thread(
                eventually, lambda: sandbox.attempts()[0]["ended"] == "peer_gone", "closed"
            )

    asyncio.run(use())


def test_errors_carry_code_status_and_param(sandbox_process: SandboxProcess) -> None:
    async def use(fields: Mapping[str, Any]) -> ApiError:
        async with Router(upstream(sandbox_process.base_url)) as router:
            with pytest.raises(ApiError) as caught:
                await router.chat(messages=HI, **fields)
        return caught.value

    missing = asyncio.run(use({"model": "no/such"}))
    assert (missing.status, missing.code, missing.param) == (404, "model_not_found", "model")
    wrong = asyncio.run(use({"priority": "fast"}))
    assert (wrong.status, wrong.param) == (400, "priority")


def test_decide_needs_no_loop_no_key_and_no_network() -> None:
    router = Router({"upstreams": {"openrouter": {"api_key": "never-sent"}}})
    decided = router.decide(messages=HI, priority="quality", model="auto")
    assert decided.selected_model == decided.candidates[0]["model"]
    assert router.explain(decided.id)["excluded"]
    assert len(router.models()) > 300


def test_the_synchronous_router(sandbox_process: SandboxProcess, sandbox: Control) -> None:
    with sync.Router(upstream(sandbox_process.base_url)) as router:
        assert router.chat(messages=HI, model=MODEL).text.startswith(CANONICAL_ANSWER)
        text = "".join(chunk.text for chunk in router.stream(messages=HI, model=MODEL))
        assert text.startswith(CANONICAL_ANSWER)
        assert router.decide(messages=HI).selected_model
        with pytest.raises(ApiError):
            router.chat(messages=[], model=MODEL)
        stream = router.stream(messages=HI, model=MODEL)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    router.close()


def test_a_bad_configuration_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="unknown key 'servr'"):
        Router({"servr": {}})


def test_public_names_are_what_is_said() -> None:
    assert sorted(llmr.__all__) == llmr.__all__
    for name in llmr.__all__:
        assert getattr(llmr, name) is not None
    with pytest.raises(AttributeError):
        llmr.nothing  # noqa: B018


def test_importing_starts_nothing_and_imports_little() -> None:
    code = (
        "import sys, threading, llmr; heavy = {'fastapi', 'pydantic', 'uvicorn', 'typer', 'rich',"
        " 'yaml', 'redis', 'asyncio', 'msgspec', 'prometheus_client'} & set(sys.modules);"
        "print(sorted(heavy), threading.active_count())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] 1"
