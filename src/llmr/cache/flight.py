"""One upstream call for identical requests in flight, for everyone who waits for it."""

from collections.abc import Callable
from typing import Protocol

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

    __slots__ = ("_flight", "_position", "listener", "live", "paused")

    def __init__(self, flight: "Flight", listener: Listener, live: bool) -> None:
        self._flight = flight
        self._position = 0
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

    def leave(self) -> None:
        """The listener waits no more."""
        self._flight.leave(self)

    def catch_up(self) -> None:
        """Hand on everything that has come."""
        pieces = self._flight.pieces
        if self._position < len(pieces):
            new, self._position = pieces[self._position :], len(pieces)
            self.listener.write(new[0] if len(new) == 1 else b"".join(new))


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
        self._begun: Outcome | None = None
        self._readers: list[Reader] = []
        self._over = False

    def join(self, listener: Listener, live: bool) -> Reader:
        """Wait for the answer. `live`: take the stream as it comes, not the whole in the end."""
        reader = Reader(self, listener, live)
        self._readers.append(reader)
        if live and self._begun is not None:
            listener.begin(self._begun)
            reader.catch_up()
        return reader

    def leave(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            if self._readers:
                self.balance()
            elif not self._over:
                self.give_up()

    def give_up(self) -> None:
        """End the call; nobody is told."""
        self._over = True
        self._forget()
        if self.run is not None:
            self.run.cancel()

    def balance(self) -> None:
        """Read on while anybody has room."""
        if self.run is not None and not self._over:
            if all(reader.live and reader.paused for reader in self._readers):
                self.run.pause()
            else:
                self.run.resume()

    # --- Sink ---

    def begin(self, outcome: Outcome) -> None:
        self._begun = outcome
        for reader in list(self._readers):
            if reader.live:
                reader.listener.begin(outcome)

    def write(self, data: bytes) -> None:
        self.pieces.append(data)
        for reader in list(self._readers):
            if reader.live and not reader.paused:
                reader.catch_up()

    def land(self, outcome: Outcome) -> None:
        """The call is over: tell everyone who waits."""
        self._over = True
        self._forget()
        readers, self._readers = self._readers, []
        for place, reader in enumerate(readers):
            if reader.live and self._begun is not None:
                reader.catch_up()
            reader.listener.landed(outcome, place == 0)
