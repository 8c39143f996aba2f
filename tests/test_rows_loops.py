"""Row R11 of the table of faults: a router that is its own upstream, at load and on the way."""

from pathlib import Path
from typing import Any

import pytest

from llmr import config
from llmr.errors import ConfigError
from llmr.loops import MOST, VIA, own_address
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.harness import Server, free_port, upstream
from tests.test_cli import llmr, write_config

ROWS = [{"id": "lab/a", "quality_score": 0.9}, {"id": "lab/b"}, {"id": "lab/c"}]
REAL = "openai/gpt-5.4-mini"


def leads_to(*ports: int, **more: Any) -> dict[str, Any]:
    """A configuration whose only upstreams are routers on these ports, and `more`."""
    routers = {
        f"r{number}": {"base_url": f"http://127.0.0.1:{port}/v1", "models": ROWS}
        for number, port in enumerate(ports)
    }
    return {"upstreams": {"openrouter": None, **routers, **more}}


def requests(server: Server) -> int:
    found: int = server.request("GET", "/metrics").json["total_requests"]
    return found


# --- at load ---


@pytest.mark.parametrize(
    ("host", "url", "own"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/v1", True),
        ("127.0.0.1", "http://localhost:8000", True),
        ("127.0.0.1", "http://LOCALHOST.:8000", True),
        ("127.0.0.1", "http://0.0.0.0:8000", True),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:8000", True),
        ("127.0.0.1", "http://[::1]:8000", False),
        ("127.0.0.1", "http://127.0.0.2:8000", False),
        ("127.0.0.1", "http://127.0.0.1:8001", False),
        ("127.0.0.1", "http://127.0.0.1", False),
        ("127.0.0.1", "http://10.0.0.1:8000", False),
        ("127.0.0.1", "https://openrouter.ai/api/v1", False),
        ("localhost", "http://127.0.0.1:8000", True),
        ("localhost", "http://[::1]:8000", False),
        ("::1", "http://[::1]:8000", True),
        ("::1", "http://localhost:8000", True),
        ("::1", "http://127.0.0.1:8000", False),
        ("0.0.0.0", "http://127.0.0.1:8000", True),
        ("0.0.0.0", "http://127.0.0.9:8000", True),
        ("0.0.0.0", "http://localhost:8000", True),
        ("0.0.0.0", "http://[::1]:8000", False),
        ("0.0.0.0", "http://10.0.0.1:8000", False),
        ("::", "http://[::1]:8000", True),
        ("::", "http://127.0.0.1:8000", True),
        ("10.0.0.1", "http://10.0.0.1:8000", True),
        ("10.0.0.1", "http://127.0.0.1:8000", False),
        ("router.lan", "http://Router.lan:8000", True),
    ],
)
def test_r11_the_routers_own_address_is_known(host: str, url: str, own: bool) -> None:
    assert own_address(host, 8000, url) is own


def test_r11_ports_that_go_without_saying_are_known_and_port_0_is_nobodys() -> None:
    assert own_address("127.0.0.1", 80, "http://127.0.0.1/v1")
    assert own_address("127.0.0.1", 443, "https://127.0.0.1/v1")
    assert not own_address("127.0.0.1", 0, "http://127.0.0.1/v1")


def test_r11_a_loop_is_refused_when_a_server_loads_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("upstreams:\n  lab:\n    base_url: http://localhost:8000/v1\n")
    with pytest.raises(ConfigError, match=r"config.yaml:2: upstreams.lab.base_url .* itself") as e:
        config.load(file, environ={}, serving=True)
    assert "server.port" in str(e.value)
    # Elsewhere it is another server's address, as it is for a program that listens nowhere.
    moved = config.load(file, {"server.port": 8001}, environ={}, serving=True)
    assert moved.server.port == 8001
    assert config.load(file, environ={}).upstreams["lab"] is not None


@pytest.mark.parametrize("verb", ["serve", "serve --sandbox", "config check"])
def test_r11_a_loop_at_load_is_exit_3(tmp_path: Path, verb: str) -> None:
    port = free_port()
    file = write_config(tmp_path, {"server": {"port": port}, **leads_to(port)})
    given = [file] if verb == "config check" else ["-c", file]
    out = llmr(tmp_path, *verb.split(), *given)
    assert out.returncode == 3
    assert "upstreams.r0.base_url" in out.stderr
    assert len(out.stderr.splitlines()) <= 2


# --- on the way round ---


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "lab/a"},
        {"model": "auto"},
        {"models": ["lab/a", "lab/b", "lab/c"]},
        {"model": "lab/a", "stream": True},
        {"model": "lab/a", "temperature": 0},  # the same cache key comes round
    ],
)
def test_r11_a_router_that_is_its_own_upstream_ends_the_request_at_once(
    asked: dict[str, Any],
) -> None:
    port = free_port()
    with Server(leads_to(port), port=port) as server:
        for path in ("/v1/chat/completions", "/route"):
            reply = server.chat(path, **asked)
            assert (reply.status, reply.error["code"]) == (508, "loop_detected")
            assert "has been through this router before" in reply.error["message"]
            assert reply.headers["x-should-retry"] == "false"
            assert reply.headers["x-llmr-attempts"] == "1"
            assert reply.headers["x-request-id"]
        assert requests(server) == 4
        health = server.request("GET", "/health").json
        assert health["cooling"] == {}
        assert health["in_flight"] == 0


def test_r11_a_loop_through_another_router_ends_when_it_comes_back() -> None:
    ports = free_port(), free_port()
    with (
        Server(leads_to(ports[1]), port=ports[0]) as first,
        Server(leads_to(ports[0]), port=ports[1]) as second,
    ):
        reply = first.chat(model="auto")
        assert (reply.status, reply.error["code"]) == (508, "loop_detected")
        assert (requests(first), requests(second)) == (2, 1)


def test_r11_of_two_upstreams_the_one_that_does_not_lead_back_answers(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    port = free_port()
    real = {"base_url": sandbox_process.base_url, "api_key": "k", "models": [{"id": REAL}]}
    with Server(leads_to(port, real=real), port=port) as server:
        reply = server.chat(models=["lab/a", "lab/b", REAL])
        assert reply.status == 200
        assert reply.headers["x-llmr-model"] == REAL
        assert reply.headers["x-llmr-attempts"] == "2"


def test_r11_routers_in_a_row_are_no_loop_up_to_their_number(
    sandbox_process: SandboxProcess, sandbox: Control
) -> None:
    with Server(upstream(sandbox_process.base_url), sandbox=True) as last:
        to = {"base_url": f"{last.url}/v1", "models": [{"id": REAL}]}
        with Server({"upstreams": {"openrouter": None, "last": to}}) as first:
            assert first.chat(model=REAL).status == 200
            sent = sandbox.attempts()[-1]["headers"][VIA]
            assert sent == f"{first.gateway.hops.name},{last.gateway.hops.name}"
        names = [f"{number:012x}" for number in range(MOST + 1)]
        assert last.chat(model=REAL, headers={VIA: ",".join(names[:MOST])}).status == 200
        reply = last.chat(model=REAL, headers={VIA: ",".join(names)})
        assert (reply.status, reply.error["code"]) == (508, "loop_detected")


@pytest.mark.parametrize("given", ["", "1.1 proxy", "0123456789ab;x", "A" * 12, "a" * 4000])
def test_r11_what_no_router_wrote_is_not_passed_on(
    server: Server, sandbox: Control, given: str
) -> None:
    assert server.chat(model=REAL, headers={VIA: given}).status == 200
    assert sandbox.attempts()[-1]["headers"][VIA] == server.gateway.hops.name
