"""What other routers found out of targets that are to be left alone, through the shared store.

One hash of the store has a field for each target that some router leaves alone. Time is the store's
own, since clocks of machines differ. Fields are read and written behind, twice a second; where the
store is away, hints end with their time and nobody waits.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping

import msgspec
from msgspec import Struct

from llmr.cache.shared import Shared

NAME = b"llmr:rest:1"
EVERY_S = 0.5
KEPT_S = 900  # the hash goes when nobody has written for so long
LONGEST_S = 300.0  # nobody is left alone for longer on the word of another
STALE_S = 60.0  # what is over for so long is removed, whoever wrote it
MOST = 5000  # fields that are read
LEAST_S = 0.05

Resting = Mapping[str, tuple[float, str]]  # target or account: (until, why), monotonic


class _Rest(Struct, array_like=True):
    until: float  # seconds of the store's clock
    why: str


class Hints:
    """Exchanges what is left alone with the other routers of one store.

    `accounts` maps the name of each upstream to a digest of its address and key: only routers that
    use the same one share. `own` tells what this router leaves alone at an instant, `take` is given
    what the others do.
    """

    def __init__(
        self,
        shared: Shared,
        accounts: Mapping[str, str],
        own: Callable[[float], Resting],
        take: Callable[[Resting, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._shared, self._own, self._take, self._clock = shared, own, take, clock
        self._accounts = accounts
        self._names: dict[str, list[str]] = {}
        for name, account in accounts.items():
            self._names.setdefault(account, []).append(name)
        self._me = secrets.token_hex(6)
        self._written: dict[bytes, float] = {}

    async def run(self) -> None:
        """Exchange for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.once()

    async def once(self) -> None:
        """Read what the others say and write what has changed here."""
        found = await self._shared.ask((b"TIME",), (b"HGETALL", NAME))
        now = self._clock()
        if found is None:
            return
        told, fields = found
        if not isinstance(fields, dict):  # something else stands there
            await self._shared.ask((b"UNLINK", NAME))
            return
        store = float(told[0]) + float(told[1]) / 1e6
        others: dict[str, tuple[float, str]] = {}
        gone: list[bytes] = []
        for field, value in list(fields.items())[:MOST]:
            rest = _read(value)
            if rest is None or rest.until < store - STALE_S:
                gone.append(field)
            elif not field.startswith(self._me.encode()):
                until = now + min(rest.until - store, LONGEST_S)
                for key in self._keys(field) if until > now else ():
                    others[key] = max(others.get(key, (0.0, "")), (until, rest.why))
        self._take(others, now)
        await self._write(store - now, now, gone)

    async def _write(self, offset: float, now: float, gone: list[bytes]) -> None:
        """`offset`: the store's clock less ours."""
        mine = {
            field: (until, why)
            for key, (until, why) in self._own(now).items()
            if until > now and (field := self._field(key)) is not None
        }
        gone += [field for field in self._written if field not in mine]
        new = {
            field: msgspec.msgpack.encode(_Rest(until + offset, why))
            for field, (until, why) in mine.items()
            if abs(self._written.get(field, 0.0) - until) > LEAST_S
        }
        commands: list[tuple[bytes | int, ...]] = []
        if gone:
            commands.append((b"HDEL", NAME, *gone))
        for field, value in new.items():
            commands.append((b"HSET", NAME, field, value))
        if new:
            commands.append((b"EXPIRE", NAME, KEPT_S))
        if commands and await self._shared.ask(*commands) is not None:
            self._written = {field: until for field, (until, _) in mine.items()}

    def _field(self, key: str) -> bytes | None:
        """The name in the store of a target, an account, or an account's free rows."""
        for name, account in self._accounts.items():
            rest = key.removeprefix(name)
            if key.startswith(name) and rest[:1] in ("", "/", ":"):
                return f"{self._me} {account} {rest}".encode()
        return None

    def _keys(self, field: bytes) -> Iterator[str]:
        """The targets or accounts of ours that are meant."""
        parts = field.decode("utf-8", "replace").split(" ", 2)
        if len(parts) == 3:
            for name in self._names.get(parts[1], ()):
                yield name + parts[2]


def account_of(base_url: str, api_key: str | None) -> str:
    """What routers that use the same account of the same upstream have in common."""
    said = msgspec.json.encode((base_url.rstrip("/"), api_key))
    return hashlib.blake2b(said, digest_size=12).hexdigest()


def _read(value: bytes) -> _Rest | None:
    try:
        return msgspec.msgpack.decode(value, type=_Rest)
    except msgspec.DecodeError:
        return None
