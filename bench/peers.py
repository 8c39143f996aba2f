"""Other gateways beside the router: LiteLLM's proxy and Portkey's gateway.

They are installed from their registries, by package name, into a folder that is thrown away.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from bench.children import BenchError, Child, cores
from bench.payload import Target
from bench.servers import first_answer, free_port, wait_for
from bench.stand import Starter

LITELLM, PORTKEY = "litellm", "portkey"
LITELLM_PACKAGE, PORTKEY_PACKAGE = "litellm[proxy]", "@portkey-ai/gateway"
LIMIT_S = 900.0  # of one step of the installation
START_LIMIT_S = 120.0

LITELLM_CONFIG = """\
model_list:
  - model_name: bench
    litellm_params:
      model: openai/fixed
      api_base: http://127.0.0.1:{port}/v1
      api_key: bench-dummy-key
litellm_settings: {{telemetry: false}}
"""


def none() -> nullcontext[Mapping[str, Starter]]:
    """No peers."""
    return nullcontext({})


@contextmanager
def installed() -> Iterator[Mapping[str, Starter]]:
    """How to start each peer, for as long as their folder is there."""
    with tempfile.TemporaryDirectory(prefix="llmr-bench-peers-") as name:
        folder = Path(name)
        print("installing the peers, which takes some minutes", file=sys.stderr)
        yield {
            LITELLM: partial(_start_litellm, _install_litellm(folder)),
            PORTKEY: partial(_start_portkey, _install_portkey(folder)),
        }


def _install_litellm(folder: Path) -> Path:
    """Its command, in an environment of its own."""
    venv = folder / LITELLM
    _do([sys.executable, "-m", "venv", str(venv)], folder)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", LITELLM_PACKAGE]
    _do(pip, folder)
    return venv / "bin" / "litellm"


def _install_portkey(folder: Path) -> Path:
    """Its entry, which node runs."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise BenchError("Portkey's gateway needs node: apt-get install nodejs npm")
    home = folder / PORTKEY
    home.mkdir()
    _do(["npm", "install", "--silent", "--no-audit", "--prefix", str(home), PORTKEY_PACKAGE], home)
    return home / "node_modules" / PORTKEY_PACKAGE / "build" / "start-server.js"


def _do(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command[-2:])} took too long.") from None
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def _start_litellm(program: Path, upstream: int, folder: Path) -> tuple[Child, Target]:
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(port=upstream))
    port = free_port()
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    key = f"sk-{secrets.token_hex(24)}"  # without one, or with a weak one, it does not start
    env = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MASTER_KEY": key,
    }
    target = Target(port, model="bench", headers={"authorization": f"Bearer {key}"})
    return _started(LITELLM, command, env, target, folder)


def _start_portkey(entry: Path, upstream: int, folder: Path) -> tuple[Child, Target]:
    port = free_port()
    command = ["node", str(entry), "--headless", f"--port={port}"]
    host = f"http://127.0.0.1:{upstream}/v1"
    headers = {
        "authorization": "Bearer bench-dummy-key",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": host,
    }
    env = {**os.environ, "NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    return _started(PORTKEY, command, env, Target(port, model="fixed", headers=headers), folder)


def _started(
    name: str, command: list[str], env: Mapping[str, str], target: Target, folder: Path
) -> tuple[Child, Target]:
    log = folder / f"{name}.log"
    child = Child(command, cores()[0], cwd=folder, env=env, log=log)
    wait_for(child, target.port, name, START_LIMIT_S)
    try:
        first_answer(target, name)
    except BenchError as error:
        child.stop()
        raise BenchError(f"{error}{child.last_words()}") from None
    except BaseException:
        child.stop()
        raise
    return child, target
