"""One line per request, written by a thread of its own: no request waits for a slow terminal."""

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache

from llmr.core.classify import SECRET
from llmr.observe.record import Record

PENDING = 10_000
LEVELS = ("debug", "info", "warning", "error")
STDERR = 2
CLOSE_S = 1.0
GATHER_S = 0.05  # so long lines are gathered before they are written
BATCH = 2000
OWN = "llmr"
OTHERS = {"": logging.WARNING, "uvicorn": logging.ERROR}  # the root, and who has much to say

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Writer(logging.Handler):
    """Takes lines and writes them in a thread of its own, many at a time.

    Where the descriptor does not take them, lines are lost, never requests; how many is told.
    """

    def __init__(self, secrets: Iterable[str] = (), descriptor: int = STDERR) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        self.lost = 0
        self._secrets = [secret for secret in secrets if secret]
        self._descriptor = descriptor
        self._pending: deque[str | logging.LogRecord] = deque()
        self._asleep = True
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._least = logging.INFO
        self._second, self._stamp = 0, ""
        # Python's own streams would be locked by a thread that waits in them, at the exit too.
        self._thread = threading.Thread(target=self._run, name="llmr-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self._put(record)

    def request(self, record: Record) -> None:
        """One line for a finished request. Names and counts, no words."""
        well = record.outcome in ("ok", "client_closed")
        if (logging.INFO if well else logging.WARNING) >= self._least:
            self._put(f"{self._when()} {'INFO   ' if well else 'WARNING'} {_line(record)}\n")

    def hide(self, secrets: Iterable[str]) -> None:
        """Keep more secrets out of the lines."""
        self._secrets = list({*self._secrets, *secrets} - {""})

    def least(self, level: int) -> None:
        """Requests whose line would be of a lower level have none."""
        self._least = level

    def stop(self) -> None:
        """Write what is pending, for a second at most."""
        self._ending.set()
        self._wake.set()
        self._thread.join(CLOSE_S)

    def _put(self, line: str | logging.LogRecord) -> None:
        if len(self._pending) >= PENDING:
            self.lost += 1
            return
        self._pending.append(line)
        if self._asleep:
            # To wake a thread costs more than the line: it then takes what comes in a while.
            self._asleep = False
            self._wake.set()

    def _when(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second, self._stamp = second, stamp
        return f"{self._stamp},{int((now - second) * 1000):03d}"

    def _run(self) -> None:
        told = 0
        while True:
            self._wake.wait()
            self._ending.wait(GATHER_S)
            self._wake.clear()
            self._asleep = True
            with suppress(Exception):  # a line that cannot be told must not end the telling
                self._write(self._taken())
                if (lost := self.lost) > told:
                    self._write(f"{lost - told} log lines were lost\n")
                    told = lost
            if self._ending.is_set() and not self._pending:
                return

    def _taken(self) -> str:
        """What is pending, at most so much that nobody waits long for this thread."""
        pending = self._pending
        lines: list[str] = []
        while pending and len(lines) < BATCH:
            line = pending.popleft()
            lines.append(line if isinstance(line, str) else self._told(line))
        if pending:
            self._wake.set()
        text = "".join(lines)
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return text

    def _told(self, record: logging.LogRecord) -> str:
        try:
            text = SECRET.sub("[redacted]", self.format(record))
        except Exception:  # what a caller's arguments raise as they are formatted can be anything
            return f"a log line of {record.name} could not be written\n"
        return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text) + "\n"

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(self._descriptor, data) :]


def start(level: str = "info", secrets: Iterable[str] = ()) -> Writer:
    """Send what is logged to stderr, without `secrets`. The caller stops the writer at the end."""
    writer = Writer(secrets)
    root = logging.getLogger()
    root.handlers = [writer]
    writer.least(getattr(logging, level.upper()))
    for name, least in {**OTHERS, OWN: getattr(logging, level.upper())}.items():
        logging.getLogger(name).setLevel(least)
    return writer


def _line(r: Record) -> str:
    model = _name(r.model or "-")
    first = "" if r.ttft_s is None else f" first={r.ttft_s * 1000:.1f}ms"
    cost = "?" if r.cost_usd is None else f"{r.cost_usd:f}"
    text = (
        f"{r.status} {r.surface} {model} cache={r.cache} total={r.total_s * 1000:.1f}ms{first}"
        f" router={r.router_s * 1000:.2f}ms tokens={r.prompt_tokens}+{r.completion_tokens}"
        f" cost={cost}"
    )
    failed = [f"{_name(a.model)}:{a.outcome}" for a in r.attempts if a.outcome != "ok"]
    if failed:
        text += f" failed={','.join(failed)}"
    return text if r.error is None else f"{text} error={r.error}"


@lru_cache(maxsize=1024)
def _name(model: str) -> str:
    """A model as it is written: nothing in it can end the line."""
    return model.encode("unicode_escape").decode()
