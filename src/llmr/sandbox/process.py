"""A sandbox as a child process."""

import subprocess
import sys
from types import TracebackType
from typing import Any

import msgspec

from llmr.sandbox.control import Control


class SandboxError(Exception):
    """The child ended before it listened; the text is what it said."""


class SandboxProcess:
    """Starts `python -m llmr.sandbox`, which ends when this process does.

    Use as a context manager, or call `start()` and `stop()`. The addresses are known once started.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int = 0,
        speed: float = 1.0,
        seed: int = 0,
        require_key: str | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.control_port = control_port
        self._speed = speed
        self._seed = seed
        self._require_key = require_key
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        """What a client of the OpenAI protocol is given."""
        return f"http://{self.host}:{self.port}/api/v1"

    @property
    def control_url(self) -> str:
        return f"http://{self.host}:{self.control_port}"

    @property
    def control(self) -> Control:
        return Control(self.control_url)

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs, else None."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def start(self) -> "SandboxProcess":
        """Returns once the child listens. Raises `SandboxError` where it cannot."""
        # Ctrl-C in a terminal is for the parent alone, which may still have streams to finish.
        self._child = subprocess.Popen(  # noqa: S603
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self.stop()
            raise SandboxError("the sandbox ended before it listened")
        listening: dict[str, Any] = msgspec.json.decode(line)
        self.port, self.control_port = listening["port"], listening["control_port"]
        return self

    def stop(self) -> int | None:
        """End the child and return its exit code; None if it never ran."""
        child, self._child = self._child, None
        if child is None:
            return None
        child.terminate()
        try:
            return child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()
        finally:
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()

    def _command(self) -> list[str]:
        options = {
            "--host": self.host,
            "--port": self.port,
            "--control-port": self.control_port,
            "--speed": self._speed,
            "--seed": self._seed,
            "--require-key": self._require_key,
        }
        command = [sys.executable, "-m", "llmr.sandbox", "--with-parent"]
        for name, value in options.items():
            command += [name, str(value)] if value is not None else []
        return command

    def __enter__(self) -> "SandboxProcess":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
