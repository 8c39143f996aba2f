"""Live catalogue replies: what replaces the rows in force, and what is refused."""

import asyncio
import json
import re
from typing import Any

import pytest

from llmr import bundle
from llmr.config import UpstreamConfig
from llmr.core.credible import judge
from llmr.source import Source
from llmr.upstreams.base import Line, Receiver, Send, TransportError


class Answering:
    """An upstream that gives one answer, or does not answer at all."""

    name = "openrouter"

    def __init__(self, status: int, body: bytes | None) -> None:
        self.answer = status, body

    def start(self, request: Send, receiver: Receiver, connect_s: float) -> Line:
        assert (request.method, request.path) == ("GET", "/models")
        asyncio.get_running_loop().call_soon(self.tell, receiver)
        return Nothing()

    def tell(self, receiver: Receiver) -> None:
        status, body = self.answer
        if body is None:
            receiver.failed(TransportError("connect", "refused"))
            return
        receiver.head(status, {})
        receiver.data(body[:1000])
        receiver.data(body[1000:])
        receiver.ended()

    async def close(self) -> None:
        pass


class Nothing:
    """A line nothing can be done with."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...

    def leave(self, seconds: float) -> None: ...


def looked(status: int, body: bytes | None) -> Source:
    source = Source("openrouter", UpstreamConfig(api_key="k"), Answering(status, body))
    asyncio.run(source.look())
    return source


def listing(count: int) -> bytes:
    rows = [
        {"id": f"live/{at}", "pricing": {"prompt": "0.000001", "completion": "0"}}
        for at in range(count)
    ]
    return json.dumps({"data": rows, "total_count": count}).encode()


def test_a_live_reply_replaces_the_bundled_rows() -> None:
    source = looked(200, listing(400))
    assert source.origin == "live"
    assert {row.id for row in source.snapshot.models} == {f"live/{at}" for at in range(400)}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", source.snapshot.captured["openrouter"])
    assert source.status()["error"] is None


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<!DOCTYPE html><html>maintenance</html>", "not JSON"),
        (200, b"", "not JSON"),
        (200, b"[" * 100_000, "not JSON"),
        (200, b"\xff\xfe", "not JSON"),
        (200, b"[]", "no model"),
        (200, b'{"data":[]}', "no model"),
        (200, b'{"error":{"message":"down"}}', "no list"),
        (200, b"null", "no list"),
        (200, b'{"data":{"id":"x"}}', "no list"),
        (200, listing(200), "200 models where"),
        (200, b'{"data":[{"id":["x"]}]}', "refused"),
        (503, listing(400), "503"),
        (401, b"{}", "401"),
        (302, b"", "302"),
        (200, None, "not reachable"),
    ],
)
def test_a_reply_that_cannot_be_right_is_refused_and_said(
    status: int, body: bytes | None, said: str
) -> None:
    source = looked(status, body)
    assert source.origin == "bundled"
    assert source.snapshot.version == bundle.catalogue().version
    assert said in str(source.status()["error"])


@pytest.mark.parametrize("body", [b'[{"name":"x"}]', b'{"data":[{"id":null},{"id":5}]}', b"[1]"])
@pytest.mark.parametrize("known", [{}, {"lab/one": {"prompt": "1"}}])
@pytest.mark.parametrize("accept", [True, False])
def test_a_reply_without_a_single_id_is_refused(
    body: bytes, known: dict[str, Any], accept: bool
) -> None:
    judged = judge(body, known, {}, 0.0, accept=accept)
    assert judged.problem
    assert judged.rows == {}


def test_half_the_rows_and_one_more_are_believed() -> None:
    known: dict[str, Any] = {f"live/{at}": {} for at in range(100)}
    assert judge(listing(51), known, {}, 0.0).problem is None
    assert "49 models where 100" in str(judge(listing(49), known, {}, 0.0).problem)
    assert judge(listing(49), known, {}, 0.0, accept=True).problem is None
