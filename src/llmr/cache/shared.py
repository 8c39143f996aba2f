"""The cache in Redis or Valkey, shared by several routers.

The store is a hint and never a wait: a lookup is bounded, a fault opens a breaker, and while it is
open nobody asks. A background task joins the store again when it can be read and written. Entries
carry magic, version and digest; anything else under our keys is spoilt: a miss, counted, removed.
"""

import asyncio
import hashlib
import logging
from contextlib import suppress
from typing import Any

import msgspec

from llmr.cache.memory import Entry
from llmr.config import place_of
from llmr.errors import ConfigError

log = logging.getLogger("llmr.cache")

PREFIX = b"llmr:cache:1:"
PROBED = PREFIX + b"probe"  # never there
MAGIC = b"LLMR\x01"
DIGEST = 16
OPERATION_S = 0.05
CONNECT_S = 0.2
PROBE_S = (0.5, 1.0, 2.0, 5.0)
PING_S = 2.0
PENDING_WRITES = 1000
ENTRY_LIMIT = 8 * 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def pack(entry: Entry) -> bytes:
    """An entry as it is stored."""
    body = _encode(entry)
    return MAGIC + hashlib.blake2b(body, digest_size=DIGEST).digest() + body


def unpack(data: Any) -> Entry | None:
    """The entry, or None for anything that is not exactly one of ours."""
    start = len(MAGIC) + DIGEST
    if not isinstance(data, bytes) or not data.startswith(MAGIC) or len(data) > ENTRY_LIMIT:
        return None
    body = data[start:]
    if hashlib.blake2b(body, digest_size=DIGEST).digest() != data[len(MAGIC) : start]:
        return None
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Shared:
    """A client of the store with its own breaker. `connected` is False until it has answered.

    `spoilt` counts what was found under our keys and was no entry of ours.
    """

    def __init__(self, url: str, ttl_s: int) -> None:
        try:
            import redis.asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise ConfigError(
                "redis is configured but its client is not installed: pip install 'llmr[redis]'."
            ) from None
        self._ttl = ttl_s
        self.place = place_of(url)
        try:
            self._client: Any = redis.from_url(
                url,
                socket_connect_timeout=CONNECT_S,
                socket_timeout=OPERATION_S,
                retry=Retry(NoBackoff(), 0),
                retry_on_timeout=False,
                max_connections=64,
                health_check_interval=0,
            )
        except ValueError as error:
            raise ConfigError(f"redis.url {self.place!r} cannot be used: {error}.") from None
        # uvloop raises RuntimeError where a connection that was reset is written to.
        self.errors = (redis.RedisError, OSError, TimeoutError, asyncio.TimeoutError, RuntimeError)
        self._refusal = redis.ResponseError
        self.connected = False
        self.spoilt = 0
        self._told = False
        self._down = asyncio.Event()
        self._down.set()
        self._writes: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue(PENDING_WRITES)

    async def get(self, key: bytes) -> Entry | None:
        """The entry, or None: absent, not ours, or the store did not answer in time."""
        if not self.connected:
            return None
        try:
            async with asyncio.timeout(OPERATION_S):
                data = await self._client.get(PREFIX + key)
        except self.errors as error:
            if "WRONGTYPE" in str(error):
                await self._remove(key)
            else:
                self._fault(error)
            return None
        if data is None:
            return None
        entry = unpack(data)
        if entry is None:
            await self._remove(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        """Write behind: the caller does not wait, and a full queue drops the write.

        What `get` would not take for an entry is not written either.
        """
        if not self.connected or len(entry.completion) > ENTRY_LIMIT:
            return
        data = pack(entry)
        if len(data) > ENTRY_LIMIT:
            return
        try:
            self._writes.put_nowait((PREFIX + key, data))
        except asyncio.QueueFull:
            log.debug("the store is slow: a write behind was dropped")

    async def ask(self, *commands: tuple[bytes | int, ...]) -> list[Any] | None:
        """The replies to commands sent at once; None where the store did not answer in time.

        A command that is refused has its error as reply. Nothing of it opens the breaker.
        """
        if not self.connected:
            return None
        try:
            async with asyncio.timeout(CONNECT_S):
                async with self._client.pipeline(transaction=False) as pipe:
                    for command in commands:
                        pipe.execute_command(*command)
                    found: list[Any] = await pipe.execute(raise_on_error=False)
        except self.errors as error:
            log.debug("redis: hints were not exchanged: %s", type(error).__name__)
            return None
        return found

    async def count(self) -> tuple[int, int]:
        """(entries, bytes) of ours in the store."""
        names = [name async for name in self._client.scan_iter(PREFIX + b"*", count=1000)]
        size = 0
        for start in range(0, len(names), 500):
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names[start : start + 500]:
                    pipe.strlen(name)
                sizes = await pipe.execute(raise_on_error=False)
            size += sum(n for n in sizes if isinstance(n, int))
        return len(names), size

    async def count_or_none(self) -> tuple[int, int] | None:
        """`count`, or None where the store does not answer."""
        try:
            return await self.count()
        except self.errors as error:
            self._fault(error)
            return None

    async def clear(self) -> int:
        """Remove every entry of ours; how many there were."""
        names = [name async for name in self._client.scan_iter(PREFIX + b"*", count=1000)]
        for start in range(0, len(names), 500):
            await self._client.unlink(*names[start : start + 500])
        return len(names)

    async def clear_or_none(self) -> int | None:
        """`clear`, or None where the store does not answer."""
        try:
            return await self.clear()
        except self.errors as error:
            self._fault(error)
            return None

    async def run(self) -> None:
        """Probe, join, write behind, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe())
            group.create_task(self._write())

    async def close(self) -> None:
        await self._client.aclose()

    async def _probe(self) -> None:
        failed = 0
        while True:
            await self._down.wait()
            try:
                async with asyncio.timeout(CONNECT_S + OPERATION_S):
                    await self._try()
            except self.errors as error:
                self._fault(error)
                await self._disconnect()
                await asyncio.sleep(PROBE_S[min(failed, len(PROBE_S) - 1)])
                failed += 1
                continue
            failed = 0
            self.connected = True
            self._told = False
            self._down.clear()
            log.info("redis %s answers: caching there", self.place)
            await self._while_connected()

    async def _try(self) -> None:
        """Read and write, without leaving anything: a replica or a full store answers a ping."""
        await self._client.get(PROBED)
        await self._client.set(PROBED, b"", xx=True)

    async def _disconnect(self) -> None:
        """The next probe connects anew: after a failover the name may lead to another server."""
        with suppress(*self.errors):
            await self._client.connection_pool.disconnect(inuse_connections=False)

    async def _while_connected(self) -> None:
        """Ping now and then, so that health tells the truth when nothing is looked up."""
        while self.connected:
            try:
                await asyncio.wait_for(self._down.wait(), PING_S)
            except TimeoutError:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        await self._client.ping()
                except self.errors as error:
                    self._fault(error)

    async def _write(self) -> None:
        while True:
            name, data = await self._writes.get()
            if not self.connected:
                continue
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._client.set(name, data, ex=self._ttl)
            except self.errors as error:
                self._fault(error)

    async def _remove(self, key: bytes) -> None:
        """What stands under a key of ours and is no entry."""
        self.spoilt += 1
        try:
            async with asyncio.timeout(OPERATION_S):
                await self._client.unlink(PREFIX + key)
        except self.errors as error:
            self._fault(error)

    def _fault(self, error: BaseException) -> None:
        """Nobody asks the store until a probe succeeds. Told once, not with each request."""
        self.connected = False
        self._down.set()
        if not self._told:
            self._told = True
            state = "takes no entries" if isinstance(error, self._refusal) else "is away"
            why = type(error).__name__
            log.warning("redis %s %s (%s): caching in memory", self.place, state, why)
