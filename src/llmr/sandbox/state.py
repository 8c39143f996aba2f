"""Everything a running sandbox remembers, shared by its two ports."""

from llmr.sandbox import catalogue
from llmr.sandbox.attempts import AttemptLog
from llmr.sandbox.billing import Books
from llmr.sandbox.http1 import Connection
from llmr.sandbox.rules import Rules
from llmr.sandbox.settings import Settings


class State:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rules = Rules()
        self.attempts = AttemptLog()
        self.books = Books()
        self.catalogue = catalogue.load()
        self.connections: set[Connection] = set()
        """Open connections of the data port."""
        self.accepted = 0
        self.requests = 0
