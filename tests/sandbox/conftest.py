"""A sandbox per file, with nothing set for each test, and the official client on it."""

from collections.abc import Iterator

import openai
import pytest

from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess


@pytest.fixture(scope="module")
def process() -> Iterator[SandboxProcess]:
    with SandboxProcess(speed=0) as running:
        yield running


@pytest.fixture
def sandbox(process: SandboxProcess) -> Iterator[SandboxProcess]:
    before = process.control.settings()
    process.control.reset()
    yield process
    process.control.settings(**before)


@pytest.fixture
def control(sandbox: SandboxProcess) -> Control:
    return sandbox.control


@pytest.fixture
def client(sandbox: SandboxProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=sandbox.base_url,
        api_key="sk-test",
        max_retries=0,
        timeout=5,
        _strict_response_validation=True,
    ) as made:
        yield made
