"""The command line as a person and as a program meets it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmr.sandbox.process import SandboxProcess
from tests.harness import Server, eventually, upstream

VERBS = (
    *("serve", "route", "models", "benchmark", "cache-stats", "clear-cache", "explain"),
    *("sandbox", "config check", "config show", "config schema", "doctor", "chaos"),
)


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200", **more}


def llmr(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `llmr` in an empty folder with an empty environment."""
    return subprocess.run(
        [sys.executable, "-m", "llmr", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder, **(env or {})),
        timeout=60,
        check=False,
    )


def write_config(folder: Path, tree: object) -> str:
    path = folder / "llmr.yaml"
    path.write_text(json.dumps(tree))  # JSON is YAML
    return str(path)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(tmp_path: Path, verb: str) -> None:
    out = llmr(tmp_path, *verb.split(), "--help")
    assert out.returncode == 0
    assert f"Example: llmr {verb.split()[0]}" in out.stdout


def test_wrong_usage_is_exit_2(tmp_path: Path) -> None:
    for arguments in (["route"], ["nothing"], ["route", "hi", "--priority", "fast"], ["explain"]):
        assert llmr(tmp_path, *arguments).returncode == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "server:\n  prot: 1\n",
            "config.yaml:2: unknown key 'prot' in server; did you mean 'port'",
        ),
        ("server: [\n", "config.yaml:2: not valid YAML"),
        ("limits: {attempts: 0}\n", "config.yaml:1: limits.attempts"),
    ],
)
def test_bad_configuration_is_exit_3_with_file_line_and_what_was_expected(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    for arguments in (["config", "check"], ["models"], ["serve"], ["route", "hi"]):
        out = llmr(tmp_path, *arguments)
        assert out.returncode == 3
        assert told in out.stderr
        assert out.stdout == ""


def test_a_dry_run_needs_no_key_and_shows_terms_and_exclusions(tmp_path: Path) -> None:
    out = llmr(tmp_path, "route", "Prove it", "--priority", "quality", "--dry-run")
    assert out.returncode == 0
    assert "Best of" in out.stdout
    assert re.search(r"not_chat\s+\d+", out.stdout)
    account = json.loads(llmr(tmp_path, "route", "Prove it", "--dry-run", "--json").stdout)
    assert account["candidates"][0]["composite_score"] > 0
    assert account["excluded"]


def test_four_priorities_give_four_orders(tmp_path: Path) -> None:
    orders = set()
    for priority in ("speed", "cost", "quality", "balanced"):
        out = llmr(tmp_path, "route", "hi", "-p", priority, "--dry-run", "--json")
        orders.add(tuple(c["model"] for c in json.loads(out.stdout)["candidates"][:8]))
    assert len(orders) == 4


def test_without_a_key_route_says_what_to_set_and_is_exit_4(tmp_path: Path) -> None:
    out = llmr(tmp_path, "route", "hi")
    assert out.returncode == 4
    assert "OPENROUTER_API_KEY" in out.stderr
    assert out.stdout == ""


def test_limits_and_preferences_reach_the_decision(tmp_path: Path) -> None:
    prefer = ["--prefer", "openai/gpt-5.4", "--prefer", "openai/gpt-5.4-mini"]
    out = llmr(tmp_path, "route", "hi", *prefer, "--dry-run", "--json")
    assert json.loads(out.stdout)["selected_model"].startswith("openai/gpt-5.4")
    out = llmr(tmp_path, "route", "hi", "--max-latency", "1", "--dry-run")
    assert out.returncode == 1
    assert "nearest value" in out.stderr


def test_route_against_an_upstream(tmp_path: Path, sandbox_process: SandboxProcess) -> None:
    config = write_config(tmp_path, upstream(sandbox_process.base_url))
    out = llmr(tmp_path, "route", "hi", "-c", config)
    assert "simulated" in out.stdout
    assert "attempt" in out.stderr
    streamed = llmr(tmp_path, "route", "hi", "-c", config, "--stream")
    assert "simulated" in streamed.stdout
    answer = json.loads(llmr(tmp_path, "route", "hi", "-c", config, "--json").stdout)
    assert answer["routing_decision"]["attempts"]


def test_models_and_benchmark_for_programs(tmp_path: Path) -> None:
    rows = json.loads(llmr(tmp_path, "models", "--json").stdout)["models"]
    assert 300 <= len(rows) <= 400
    out = llmr(tmp_path, "benchmark", "--iterations", "50", "--json")
    figures = json.loads(out.stdout)
    assert set(figures) == {"iterations", "mean_ms", "p50_ms", "p95_ms", "p99_ms"}
    assert figures["iterations"] == 50


def test_benchmark_and_models_for_people(tmp_path: Path) -> None:
    out = llmr(tmp_path, "benchmark", "-n", "100", "-p", "speed")
    assert "p99" in out.stdout
    assert "█" in out.stdout
    assert "openai/gpt-5.4" in llmr(tmp_path, "models").stdout


def test_no_colour_and_no_progress_in_a_pipe(tmp_path: Path) -> None:
    for arguments in (["models"], ["route", "hi", "--dry-run"], ["doctor"]):
        out = llmr(tmp_path, *arguments)
        assert "\x1b" not in out.stdout + out.stderr


def test_cache_verbs_without_a_server_say_so_and_exit_1(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"server": {"port": 1}})
    for verb in ("cache-stats", "clear-cache"):
        out = llmr(tmp_path, verb, "-c", config)
        assert out.returncode == 1
        assert "no llmr server answers" in out.stderr


def test_cache_and_explain_verbs_ask_the_running_server(
    tmp_path: Path, sandbox_process: SandboxProcess
) -> None:
    tree = upstream(sandbox_process.base_url)
    with Server(tree) as server:
        decision = server.chat(model="auto", seed=1).headers["x-llmr-decision-id"]
        config = write_config(tmp_path, {**tree, "server": {"port": server.port}})
        stats = json.loads(llmr(tmp_path, "cache-stats", "-c", config, "--json").stdout)
        assert stats["entries"] == 1
        account = llmr(tmp_path, "explain", decision, "-c", config)
        assert "What came of it" in account.stdout
        cleared = json.loads(llmr(tmp_path, "clear-cache", "-c", config, "--json").stdout)
        assert cleared["cleared"] == 1
        assert llmr(tmp_path, "explain", "dec-0-1", "-c", config).returncode == 1


def test_config_verbs(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"upstreams": {"openrouter": {"api_key": "sk-very-secret"}}})
    shown = llmr(tmp_path, "config", "show", config)
    assert "***" in shown.stdout
    assert "sk-very-secret" not in shown.stdout
    schema = json.loads(llmr(tmp_path, "config", "schema").stdout)
    assert schema["title"] == "llmr configuration"
    assert llmr(tmp_path, "config", "check", config).returncode == 0


def test_doctor_names_what_to_mend(tmp_path: Path) -> None:
    out = llmr(tmp_path, "doctor", "--json")
    assert out.returncode == 1
    found = {c["check"]: c for c in json.loads(out.stdout)["checks"]}
    assert found["upstream openrouter"]["hint"] == "set OPENROUTER_API_KEY"
    assert found["installation"]["ok"]


# --- serving ---


@contextmanager
def serving(
    folder: Path, *arguments: str, **env: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`llmr serve` on a free port, once it has said that it is ready."""
    child = subprocess.Popen(
        [sys.executable, "-m", "llmr", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=environment(folder, **env),
    )
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line
        yield child, int(found[1])
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stdout.close()


def get(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        data = b""
        while piece := raw.recv(65536):
            data += piece
    return data


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_sandbox_says_so_answers_and_ends_cleanly(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, "--sandbox", "--workers", str(workers)) as (child, port):
        assert b'"sandbox":true' in get(port, "/health")
        assert b"200 OK" in get(port, "/livez")
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read() if child.stdout else ""
        assert child.wait(15) == 0
    assert "SANDBOX" in rest
    assert "curl http://127.0.0.1" in rest
    assert re.search(r"routable models: 3\d\d", rest)


def test_ctrl_c_lets_a_stream_finish(tmp_path: Path, sandbox_process: SandboxProcess) -> None:
    control = sandbox_process.control
    control.reset()
    model = "openai/gpt-5.4-mini"
    control.fault(model, {"kind": "ok", "tokens_per_s": 60})
    config = write_config(tmp_path, upstream(sandbox_process.base_url))
    body = json.dumps(
        {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    ).encode()
    with serving(tmp_path, "-c", config) as (child, port):
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            data = raw.recv(65536)
            child.send_signal(signal.SIGINT)
            while piece := raw.recv(65536):
                data += piece
        assert b"data: [DONE]" in data
        assert child.wait(15) == 0
    control.reset()


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        out = llmr(tmp_path, "serve", "--port", str(port), "--sandbox")
    assert out.returncode == 1
    assert out.stderr.splitlines()[0] == f"error: port {port} on 127.0.0.1 is taken"
    assert len(out.stderr.splitlines()) == 2


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    with serving(tmp_path, "--sandbox", "--workers", "2") as (child, port):
        assert b"200 OK" in get(port, "/livez")
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        if not children.exists():
            return  # not Linux
        workers = [
            int(pid)
            for pid in children.read_text().split()
            if b"llmr.cli.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        kept = str(workers[1])

        def replaced() -> bool:
            now = children.read_text().split()
            return len(now) == 3 and kept in now and str(workers[0]) not in now

        eventually(replaced, "a new worker in the place of the killed one")
        assert b"200 OK" in get(port, "/livez")
        child.send_signal(signal.SIGTERM)
        assert child.wait(15) == 0


def test_make_run_is_live_with_a_key_and_the_sandbox_without(tmp_path: Path) -> None:
    code = "from llmr.cli.run import arguments; print(arguments())"
    for env, wanted in (({}, "['serve', '--sandbox']"), ({"OPENROUTER_API_KEY": "k"}, "['serve']")):
        out = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(tmp_path, **env),
            check=True,
        )
        assert out.stdout.strip() == wanted
