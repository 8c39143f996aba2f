"""What every test may use: the sandbox as upstream, and a router in front of it."""

import os
from collections.abc import Iterator

import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import Server, upstream
from tests.tls import Authority
from tests.valkey import Valkey


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What routers keep is kept apart from the user's own."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxProcess]:
    with SandboxProcess(speed=0) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: SandboxProcess) -> Iterator[Control]:
    """The sandbox's control port, with nothing set and nothing logged."""
    sandbox_process.control.reset()
    yield sandbox_process.control
    sandbox_process.control.reset()


@pytest.fixture
def server(sandbox_process: SandboxProcess, sandbox: Control) -> Iterator[Server]:
    """A router with default settings in front of the sandbox."""
    with Server(upstream(sandbox_process.base_url), sandbox=True) as running:
        yield running


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A store that several routers share."""
    with Valkey() as running:
        yield running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that nobody trusts unless told to."""
    return Authority(tmp_path_factory.mktemp("authority"))
