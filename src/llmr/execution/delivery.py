"""What the caller has got of a streamed answer, over every attempt that brought some of it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from llmr.core.catalogue import Model
from llmr.core.chunks import ChunkStream
from llmr.core.forms import Assembler
from llmr.core.splice import KEPT_BYTES
from llmr.execution.types import Call, Outcome, Sink


class Delivery(Struct, eq=False):
    """Hands bytes to the sink, and remembers what a continuation would need."""

    _call: Call
    _sink: Sink | None
    outcome: Outcome
    loop: asyncio.AbstractEventLoop
    begun: float  # on the loop's clock
    wanted: bool  # the caller takes a stream
    _stream: ChunkStream | None = None
    assembler: Assembler | None = None
    identity: dict[str, Any] = {}
    on_commit: Callable[[Model], None] | None = None

    def restart(self) -> None:
        """Before an attempt from nothing: what an earlier one assembled does not count."""
        self.assembler = None

    def send(self, data: bytes, model: Model, stream: ChunkStream) -> None:
        """Give the caller bytes of an answer of `model`; the first ones are the commit point."""
        if self._call.keep or not self.wanted:
            if self.assembler is None:
                self.assembler = Assembler()
            self.assembler.add(data)
        if not self.wanted or self._sink is None:
            return
        if not self.outcome.committed:
            self.commit(model)
        if self._stream is None:
            self._stream = stream
            self.identity = {"id": stream.id, "model": stream.model, "created": stream.created}
        self._sink.write(data)

    def commit(self, model: Model) -> None:
        """The caller learns that `model` answers; from here on there is no starting over."""
        if self.on_commit is not None:
            self.on_commit(model)
        self.outcome.committed = True
        self.outcome.model = model
        self.outcome.ttft_s = self.loop.time() - self.begun
        if self._sink is not None:
            self._sink.begin(self.outcome)

    def write(self, pieces: Sequence[bytes]) -> None:
        """Bytes that are no part of a stream that could be continued."""
        if self._sink is not None:
            for piece in pieces:
                self._sink.write(piece)

    def delivered(self) -> str | None:
        """The text the caller has, or None where a continuation could not be proved right.

        Never inside tool calls or signed reasoning, nor for media or several choices: there a
        second answer cannot be compared with the first.
        """
        stream = self._stream
        if stream is None or not stream.plain or stream.content_bytes > KEPT_BYTES:
            return None
        return "".join(msgspec.json.decode(part, type=str) for part in stream.parts)
