"""One upstream call for identical requests in flight, for everyone who waits for it."""

from collections.abc import Callable
from typing import Protocol

from llmr.errors import ApiError
from llmr.execution.executor import Run
from llmr.execution.types import Outcome


class Listener(Protocol):
    """Who waits for the answer."""

    def begin(self, outcome: Outcome) -> None:
        """A streamed answer begins."""

    def write(self, data: bytes) -> None:
        """Some of its bytes."""

    def landed(self, outcome: Outcome, led: bool) -> None:
        """The call is over. `led`: this was the one who has waited longest."""


class Reader:
    """One listener's place in the answer. `live`: it takes the stream as it comes."""

    __slots__ = ("_flight", "_led", "_position", "listener", "live", "paused")

    def __init__(self, flight: "Flight", listener: Listener, live: bool) -> None:
        self._flight = flight
        self._position = 0
        self._led: bool | None = None  # the call is over, and whether this one led it
        self.listener = listener
        self.live = live
        self.paused = False

    def pause(self) -> None:
        """The listener has no room."""
        self.paused = True
        self._flight.balance()

    def resume(self) -> None:
        """The listener has room again."""
        if self.paused:
            self.paused = False
            self.catch_up()
            self._flight.balance()

    @property
    def alone(self) -> bool:
        """Whether nobody else waits."""
        return self._flight.readers == [self]

    def begin(self) -> None:
        """From now on the listener is told."""
        if self.live and self._flight.begun:
            self.listener.begin(self._flight.outcome)
            self.catch_up()
        self._flight.balance()

    def leave(self) -> None:
        """The listener waits no more."""
        self._led = None
        self.paused = True
        self._flight.leave(self)

    def catch_up(self) -> None:
        """Hand on what has come, as long as the listener has room; in the end, that it ended."""
        pieces = self._flight.pieces if self.live else []
        while self._position < len(pieces) and not self.paused:
            self._position += 1
            self.listener.write(pieces[self._position - 1])
        if self._led is not None and self._position >= len(pieces):
            led, self._led = self._led, None
            self.listener.landed(self._flight.outcome, led)

    def land(self, led: bool) -> None:
        """The call is over: the listener hears of it once it has all of the answer."""
        self._led = led
        self.catch_up()


class Flight:
    """A call under way. It is the sink of the call; each listener gets all of it from the start.

    The call belongs to those who wait: it goes on while one is left, as fast as the quickest takes
    it, and is given up with the last, after which nobody can join it any more.
    """

    def __init__(self, stream: bool, include_usage: bool, forget: Callable[[], None]) -> None:
        """`forget` is called when nobody can join any more: it has landed, or was given up."""
        self.stream = stream
        self.include_usage = include_usage
        self.accounted = False
        self.pieces: list[bytes] = []
        self.run: Run | None = None
        self._forget = forget
        self.outcome = Outcome([])
        self.begun = False
        self.readers: list[Reader] = []
        self._over = False

    def join(self, listener: Listener, live: bool) -> Reader:
        """A place for a listener, who is told from `Reader.begin` on.

        `live`: it takes the stream as it comes, not the whole in the end.
        """
        reader = Reader(self, listener, live)
        self.readers.append(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
            if self.readers:
                self.balance()
            elif not self._over:
                self.give_up()

    def give_up(self) -> None:
        """End the call; nobody is told."""
        run = self.run
        self._ends()
        if run is not None:
            run.cancel()

    def fail(self, error: ApiError) -> None:
        """End the call, and tell everyone who waits."""
        self.give_up()
        self.outcome.error = error
        self._tell()

    def _ends(self) -> None:
        """Nobody can join any more. Lets go of the call, which holds on to this."""
        self._over = True
        self._forget()
        self.run, self._forget = None, _nothing

    def balance(self) -> None:
        """Read on while anybody has room."""
        if self.run is not None and not self._over:
            if all(reader.live and reader.paused for reader in self.readers):
                self.run.pause()
            else:
                self.run.resume()

    # --- Sink ---

    def begin(self, outcome: Outcome) -> None:
        self.begun = True
        for reader in list(self.readers):
            if reader.live:
                reader.listener.begin(outcome)

    def write(self, data: bytes) -> None:
        self.pieces.append(data)
        for reader in list(self.readers):
            if reader.live and not reader.paused:
                reader.catch_up()

    def land(self, outcome: Outcome) -> None:
        """The call is over: tell everyone who waits."""
        self._ends()
        self._tell()

    def _tell(self) -> None:
        readers, self.readers = self.readers, []
        for place, reader in enumerate(readers):
            reader.land(place == 0)


def _nothing() -> None: ...
