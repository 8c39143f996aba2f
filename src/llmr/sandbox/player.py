"""Plays a script on a connection, in time."""

import asyncio
import time

from llmr.sandbox.attempts import Attempt
from llmr.sandbox.http1 import Connection
from llmr.sandbox.replies import FOR_EVER_S
from llmr.sandbox.script import Script, Step

_SOON_S = 0.001
_BATCH_BYTES = 32 * 1024


async def play(script: Script, connection: Connection, attempt: Attempt) -> None:
    """Write the whole reply and end it as the script says, counting into `attempt`.

    Steps due within a millisecond leave in one write. Cancelled when the peer goes away.
    """
    if script.delay_s:
        await asyncio.sleep(script.delay_s)
    attempt.status = script.status
    writer = _Writer(connection, attempt)
    writer.add(script.head)
    if script.early_head:
        await writer.flush()
    await _play_steps(script, writer)
    if script.chunked and script.end == "clean":
        writer.add(b"0\r\n\r\n")
    await writer.flush()
    if script.end == "hold":
        await asyncio.sleep(FOR_EVER_S)
    elif script.end == "reset":
        await connection.reset()
    elif script.end == "close":
        connection.close()


async def _play_steps(script: Script, writer: "_Writer") -> None:
    started = now = time.monotonic()
    tokens = 0
    for step in script.steps:
        if step.wait > 0 or step.tokens:
            tokens += step.tokens
            due = now + step.wait
            if step.tokens:
                due = max(due, started + script.first_s + (tokens - 1) * script.token_s)
            now = time.monotonic()
            if due - now > _SOON_S:
                if script.early_head:
                    await writer.flush()
                await asyncio.sleep(due - now)
                now = time.monotonic()
        writer.add(_framed(step, script.chunked), step.tokens)
        if writer.size > _BATCH_BYTES:
            await writer.flush()
            await asyncio.sleep(0)


def _framed(step: Step, chunked: bool) -> bytes:
    if not chunked or step.raw or not step.data:
        return step.data
    return b"%x\r\n%b\r\n" % (len(step.data), step.data)


class _Writer:
    """Gathers bytes, and writes them together."""

    def __init__(self, connection: Connection, attempt: Attempt) -> None:
        self.size = 0
        self._connection = connection
        self._attempt = attempt
        self._parts: list[bytes] = []
        self._tokens = 0

    def add(self, data: bytes, tokens: int = 0) -> None:
        self._parts.append(data)
        self._tokens += tokens
        self.size += len(data)

    async def flush(self) -> None:
        """Write what was gathered, and wait until the peer has taken enough of it."""
        if not self.size:
            return
        self._connection.write(b"".join(self._parts))
        self._attempt.bytes_sent += self.size
        self._attempt.tokens_sent += self._tokens
        self._parts.clear()
        self._tokens = self.size = 0
        await self._connection.drain()
