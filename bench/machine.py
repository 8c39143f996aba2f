"""Where and with what it was measured."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

from bench.children import ROOT
from bench.compiler import COMPILER
from bench.servers import NGINX_PLACES

PACKAGES = ("llmr", "uvloop", "httptools", "uvicorn", "msgspec")


class Machine(Struct, frozen=True):
    """A machine. `load` is its load average of the last minute, before the measurement."""

    cpu: str
    cores: int
    system: str
    load: float


class Code(Struct, frozen=True):
    """The commit that was measured. `changed`: files were changed since."""

    commit: str
    changed: bool


def machine() -> Machine:
    """This machine, as it is now."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Machine(_cpu(), cores, system, round(os.getloadavg()[0], 2))


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """What was running: interpreter, packages of the hot path, compiler, and nginx."""
    found = {"python": platform.python_version()}
    found |= {name: version(name) for name in PACKAGES}
    nginx = shutil.which("nginx", path=NGINX_PLACES)
    if nginx is not None:
        found["nginx"] = _said(nginx, "-v").rpartition("/")[2]
    found[COMPILER] = _said(COMPILER, "-dumpversion")
    return found


def code() -> Code:
    """The state of the repository."""
    commit = _said("git", "rev-parse", "--short", "HEAD") or "unknown"
    return Code(commit, bool(_said("git", "status", "--porcelain", "--", "src", "bench")))


def _said(*command: str) -> str:
    """What a small program says, on either output; empty where there is none or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""
