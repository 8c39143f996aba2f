"""Run the official client's own tests of chat completions against the router.

    .venv/bin/python tools/openai_sdk_tests.py [PYTEST ARGUMENT ...]

The source distribution of `openai`, at the version and hash of `requirements-dev.lock`, is fetched
by pip into a temporary folder. Its tests run there, in an environment of their own at the versions
of its lock file, against a router in front of the sandbox. The exit code is pytest's.
"""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmr.sandbox.process import SandboxProcess

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-dev.lock"
TESTS = "tests/api_resources/chat/test_completions.py"
NEEDED = ("pytest", "pytest-asyncio", "pytest-xdist", "rich", "aiohttp")
READY = re.compile(r"llmr is ready on (\S+)")


def locked() -> tuple[str, str]:
    """(version of `openai`, its entry) in the lock file."""
    found = re.search(r"^openai==(\S+) (?:\\\n|.)+", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{LOCK.name} names no version of openai")
    return found[1], found[0]


def pip(python: Path | str, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


def unpacked(folder: Path, version: str, entry: str) -> Path:
    """The unpacked source distribution; its hash is the one of the lock file."""
    wanted = folder / "wanted.txt"
    wanted.write_text(entry + "\n")
    sources = ("--no-deps", "--no-binary", "openai", "--require-hashes")
    pip(sys.executable, "download", *sources, "-r", str(wanted), "-d", str(folder))
    shutil.unpack_archive(folder / f"openai-{version}.tar.gz", folder)
    return folder / f"openai-{version}"


def interpreter(folder: Path, source: Path, version: str) -> Path | str:
    """This interpreter where it has all that the tests need, else that of a new environment."""
    pinned = versions(source)
    if all(installed(name) == pinned[name] for name in NEEDED) and installed("openai") == version:
        return sys.executable
    print("installing what the tests need", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={pin}\n" for name, pin in pinned.items()))
    pip(python, "install", "-c", str(constraints), f"openai[aiohttp]=={version}", *NEEDED)
    return python


def versions(source: Path) -> dict[str, str]:
    """The versions in the lock file of the source distribution; the last of several."""
    packages = tomllib.loads((source / "uv.lock").read_text())["package"]
    return {package["name"]: package["version"] for package in packages if "version" in package}


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def model_names(source: Path) -> list[str]:
    """Every model name with which the tests ask for a completion."""
    calls = [
        n for n in ast.walk(ast.parse((source / TESTS).read_text())) if isinstance(n, ast.Call)
    ]
    named = {
        keyword.value.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "create"
        for keyword in call.keywords
        if keyword.arg == "model" and isinstance(keyword.value, ast.Constant)
    }
    return sorted(name for name in named if isinstance(name, str))


@contextmanager
def router(folder: Path, base_url: str, models: list[str]) -> Iterator[str]:
    """The address of a router whose only upstream has these models."""
    lab = {"base_url": base_url, "api_key": "sandbox", "models": [{"id": name} for name in models]}
    config = folder / "config.yaml"
    config.write_text(json.dumps({"upstreams": {"openrouter": None, "lab": lab}}))
    serve = ("serve", "--port", "0", "--log-level", "error", "--config", str(config))
    command = [sys.executable, "-m", "llmr", *serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        try:
            ready = READY.search(serving.stdout.readline())
            if ready is None:
                raise SystemExit("the router did not start")
            yield ready[1]
        finally:
            serving.terminate()


def run(arguments: list[str]) -> int:
    version, entry = locked()
    with tempfile.TemporaryDirectory(prefix="llmr-openai-") as name:
        folder = Path(name)
        source = unpacked(folder, version, entry)
        python = interpreter(folder, source, version)
        models = model_names(source)
        print(f"openai {version}, models {', '.join(models)}", file=sys.stderr)
        with SandboxProcess(speed=0) as sandbox, router(folder, sandbox.base_url, models) as url:
            for model in models:
                sandbox.control.fault(model, {"kind": "ok"})  # it answers its own names only
            command = [str(python), "-m", "pytest", TESTS, "-k", "create", *arguments]
            environment = {**os.environ, "TEST_API_BASE_URL": f"{url}/v1"}
            return subprocess.run(command, cwd=source, env=environment).returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
