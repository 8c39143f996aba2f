"""One line per request, written by a thread of its own: no request waits for a slow terminal."""

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Iterable

from llmr.core.classify import SECRET
from llmr.observe.record import Record

PENDING = 10_000
LEVELS = ("debug", "info", "warning", "error")
STDERR = 2
CLOSE_S = 1.0
OWN = "llmr"
OTHERS = {"": logging.WARNING, "uvicorn": logging.ERROR}  # the root, and who has much to say

_log = logging.getLogger("llmr.request")
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Writer(logging.Handler):
    """Takes records unformatted and writes them in a thread of its own.

    Where the descriptor does not take them, lines are lost, never requests; how many is told.
    """

    def __init__(self, secrets: Iterable[str] = (), descriptor: int = STDERR) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        self.lost = 0
        self._secrets = [secret for secret in secrets if secret]
        self._descriptor = descriptor
        self._pending: queue.Queue[logging.LogRecord | None] = queue.Queue(PENDING)
        # Python's own streams would be locked by a thread that waits in them, at the exit too.
        self._thread = threading.Thread(target=self._run, name="llmr-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._pending.put_nowait(record)
        except queue.Full:
            self.lost += 1

    def hide(self, secrets: Iterable[str]) -> None:
        """Keep more secrets out of the lines."""
        self._secrets = list({*self._secrets, *secrets} - {""})

    def stop(self) -> None:
        """Write what is pending, for a second at most."""
        until = time.monotonic() + CLOSE_S
        try:
            self._pending.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        told = 0
        while (record := self._pending.get()) is not None:
            try:
                self._write(self._line(record))
                if (lost := self.lost) > told:
                    self._write(f"{lost - told} log lines were lost\n")
                    told = lost
            except Exception:  # noqa: S112 - a line that cannot be told must not end the telling
                continue

    def _line(self, record: logging.LogRecord) -> str:
        text = self.format(record)
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        text = SECRET.sub("[redacted]", text)
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
    for name, least in {**OTHERS, OWN: getattr(logging, level.upper())}.items():
        logging.getLogger(name).setLevel(least)
    return writer


def write(record: Record) -> None:
    """Log one finished request."""
    if _log.isEnabledFor(logging.INFO):
        level = logging.INFO if record.outcome in ("ok", "client_closed") else logging.WARNING
        _log.log(level, "%s", _Line(record))


class _Line:
    """A record as text, worked out in the thread that writes it. Names and counts, no words."""

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        self.record = record

    def __str__(self) -> str:
        r = self.record
        parts = [str(r.status), r.surface, (r.model or "-").encode("unicode_escape").decode()]
        parts += [f"cache={r.cache}", f"total={r.total_s * 1000:.1f}ms"]
        if r.ttft_s is not None:
            parts.append(f"first={r.ttft_s * 1000:.1f}ms")
        parts.append(f"router={r.router_s * 1000:.2f}ms")
        parts.append(f"tokens={r.prompt_tokens}+{r.completion_tokens}")
        parts.append("cost=?" if r.cost_usd is None else f"cost={r.cost_usd:f}")
        failed = [f"{model}:{outcome}" for model, _, outcome in r.attempts if outcome != "ok"]
        if failed:
            parts.append("failed=" + ",".join(failed))
        if r.error is not None:
            parts.append(f"error={r.error}")
        return " ".join(parts)
