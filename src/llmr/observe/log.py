"""One line per request, written by a thread of its own: no request waits for a slow terminal."""

import logging
import queue
import sys
from logging.handlers import QueueHandler, QueueListener

from llmr.observe.record import Record

PENDING = 10_000
LEVELS = ("debug", "info", "warning", "error")

_log = logging.getLogger("llmr.request")


class _Handler(QueueHandler):
    """Hands records over unformatted; where the queue is full, a line is lost and not a request."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            pass


def start(level: str = "info") -> QueueListener:
    """Send what llmr logs to stderr. The caller stops the listener at the end."""
    pending: queue.Queue[logging.LogRecord] = queue.Queue(PENDING)
    out = logging.StreamHandler(sys.stderr)
    out.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    root = logging.getLogger("llmr")
    root.handlers = [_Handler(pending)]
    root.setLevel(level.upper())
    root.propagate = False
    listener = QueueListener(pending, out)
    listener.start()
    return listener


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
