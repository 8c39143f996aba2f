"""Child processes: each kept to a core, each ended by its own id."""

import os
import resource
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 30.0  # until a child says that it is ready
STOP_S = 5.0


class BenchError(Exception):
    """Something could not be measured; the text says what."""


def cores() -> tuple[list[int], list[int]]:
    """(core of what is measured, core of what measures): the same one where there is no other."""
    if not hasattr(os, "sched_getaffinity"):
        return [], []
    free = sorted(os.sched_getaffinity(0))
    return free[:1], free[1:2] or free[:1]


def raise_descriptors() -> None:
    """Let the children have as many descriptors as they are allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptors() -> int:
    """How many a child may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class Child:
    """One process. Use as a context manager: it is ended on the way out, whatever happened."""

    def __init__(
        self,
        command: list[str],
        on: Sequence[int] = (),
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        """`on`: the cores it is kept to. `log`: where its stderr goes; else to this process's."""
        self._command = command
        self._log = log
        stderr = log.open("wb") if log is not None else None
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=cwd,
                env=env,
                bufsize=0,
            )
        finally:
            if stderr is not None:
                stderr.close()
        if on:
            os.sched_setaffinity(self._process.pid, on)

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self) -> str:
        """The next line it prints; a `BenchError` where it ends or says nothing."""
        out = self._process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], PATIENCE_S)
        line = out.readline() if ready else b""
        if not line:
            raise BenchError(f"{self._named()} did not start.{self.last_words()}")
        return bytes(line).decode()

    def ask(self, question: bytes, limit_s: float) -> bytes:
        """Give it all of its input and take all of its output."""
        try:
            answer, _ = self._process.communicate(question, timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self._named()} took more than {limit_s:.0f} s.") from None
        if self._process.returncode:
            raise BenchError(f"{self._named()} failed.{self.last_words()}")
        return answer

    def ended(self, within_s: float) -> bool:
        """Whether it has ended by itself, after so long at most."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def log_text(self) -> str:
        """What it wrote to its log."""
        return self._log.read_text(errors="replace") if self._log and self._log.exists() else ""

    def rss(self) -> int:
        """Bytes of memory it holds."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def cpu_s(self) -> float:
        """Processor seconds it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it: asked first, made to after a while."""
        process = self._process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _named(self) -> str:
        return " ".join(Path(part).name for part in self._command[:3])

    def last_words(self) -> str:
        """The end of its log, to be shown."""
        lines = self.log_text().strip().splitlines()[-5:]
        return "".join(f"\n  {line}" for line in lines)

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def module(name: str, *flags: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *flags]
