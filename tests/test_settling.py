"""What broke off is asked for, and is on a line whatever becomes of the question."""

import asyncio
from decimal import Decimal

import pytest
from msgspec import Struct

from llmr.config import UpstreamConfig
from llmr.ledger.settling import AT_ONCE, Settling
from llmr.ledger.sheet import Key, Line
from llmr.outbox import Outbox
from llmr.wiring import origin

KEY = Key("2026-11-25", "open", "", "lab", "lab/a", "estimated")
BILL = b'{"data": {"total_cost": 0.25}}'


class Broken(Struct):
    """A send that broke off, as it stands on record."""

    generation: str | None = "gen-1"
    cost_source: str | None = "estimated"
    cost_usd: Decimal | None = Decimal("0.5")
    upstream: str = "lab"
    model: str = "lab/a"
    outcome: str = "cut"
    usage: dict[str, int] | None = None


async def settled(
    replies: list[bytes | None], sends: int = 1, looks: int = 1, leave: bool = False
) -> list[tuple[Key, Line]]:
    """The lines that came of `sends` that broke off; the upstream gives `replies` in turn.

    None is no answer at all. `leave`: it all ends while the first questions are under way.
    """
    asked, many, over = 0, asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        reply = replies[min(asked, len(replies) - 1)]
        asked += 1
        if asked == min(sends, AT_ONCE):
            many.set()
        if reply is None:
            await over.wait()
        writer.write(reply or b"")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = UpstreamConfig(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-test")
    lab = origin("lab", config, Outbox())
    settling = Settling({"lab": lab}, asyncio.get_running_loop().time, (0.0, 0.0))
    lines: list[tuple[Key, Line]] = []

    def put(key: Key, line: Line) -> None:
        lines.append((key, line))

    for _ in range(sends):
        assert settling.take(KEY, Broken())
    assert len(settling) == sends
    looking = asyncio.create_task(settling.run(put) if leave else settling.look(put))
    if leave:
        await many.wait()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        settling.give_up(put)
    else:
        await looking
        for _ in range(looks - 1):
            await settling.look(put)
    assert len(settling) == sends - len(lines)
    await lab.close()
    over.set()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.05)  # the handlers end
    return lines


def reply(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


def test_the_bill_takes_the_place_of_the_estimate() -> None:
    ((key, line),) = asyncio.run(settled([reply(200, BILL)]))
    assert (key.source, line.usd, line.unpriced) == ("reported", Decimal("0.25"), 0)


def test_a_bill_that_is_not_there_yet_is_asked_for_again() -> None:
    lines = asyncio.run(settled([reply(404, b"{}"), reply(200, BILL)], looks=2))
    assert [line.usd for _, line in lines] == [Decimal("0.25")]


@pytest.mark.parametrize("odd", [reply(404, b"{}"), reply(200, b"<html>"), reply(200, b"{}"), b""])
def test_without_a_bill_the_estimate_stands(odd: bytes) -> None:
    ((key, line),) = asyncio.run(settled([odd], looks=2))
    assert (key.source, line.usd) == ("estimated", Decimal("0.5"))


def test_ending_while_the_question_is_under_way_loses_no_line() -> None:
    lines = asyncio.run(settled([None], sends=7, leave=True))
    assert [(key.source, line.usd) for key, line in lines] == [("estimated", Decimal("0.5"))] * 7


def test_what_nothing_can_be_asked_of_is_not_taken() -> None:
    settling = Settling({}, lambda: 0.0)
    for broken in (Broken(generation=None), Broken(cost_source="reported")):
        assert not settling.take(KEY, broken)
