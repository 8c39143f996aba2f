"""The load generator and the upstream are written in C and compiled when a measurement starts."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bench.children import BenchError

SOURCE = Path(__file__).parent / "native"
PARTS = {
    "load": ("load", "caller", "judge", "reply", "tally", "common"),
    "upstream": ("upstream", "beat", "common"),
}
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
COMPILER = "cc"


class Programs(NamedTuple):
    """Where the two programs are."""

    load: Path
    upstream: Path


def compiled(folder: Path) -> Programs:
    """The two programs, made in a folder."""
    if not sys.platform.startswith("linux"):
        raise BenchError("The bench measures on Linux only: it waits with epoll.")
    if shutil.which(COMPILER) is None:
        raise BenchError("The bench needs a C compiler: apt-get install gcc libc6-dev")
    for name, parts in PARTS.items():
        sources = [str(SOURCE / f"{part}.c") for part in parts]
        command = [COMPILER, *FLAGS, "-o", str(folder / name), *sources]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(
                f"{name} could not be compiled (where a header is missing: "
                f"apt-get install libc6-dev):\n{done.stderr[-2000:]}"
            )
    return Programs(folder / "load", folder / "upstream")
