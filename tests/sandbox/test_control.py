"""The control port: rules, settings, attempts, and peers that leave."""

import socket
import time
from typing import Any

import msgspec
import pytest

from llmr.sandbox.control import Control, ControlError
from llmr.sandbox.process import SandboxProcess
from llmr.sandbox.rules import Order, Rules
from tests.sandbox.wire import HELLO, MODEL, ask, connect, get, post, raw, receive, talk, until


def test_rules_go_in_order_and_are_used_up(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "ok"}, times=1)
    control.fault(MODEL, {"kind": "status", "status": 429}, times=2)
    control.fault("*", {"kind": "status", "status": 503}, times=1)
    assert [ask(sandbox).status for _ in range(5)] == [200, 429, 429, 503, 200]


def test_a_rule_may_name_a_path(sandbox: SandboxProcess, control: Control) -> None:
    control.fault("/models", {"kind": "json_body", "body": "[]"}, times=1)
    assert talk(sandbox, get("/api/v1/models")).body == b"[]"
    assert talk(sandbox, get("/api/v1/models")).json["total_count"]
    assert [a["fault"] for a in control.attempts()] == ["json_body"]
    control.fault("/models", {"kind": "delay", "seconds": 0.15})
    assert talk(sandbox, get("/api/v1/models"), 0.1) == (b"", "open")


def test_rules_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules()
    now = time.monotonic()
    order = {"model": "m", "fault": {"kind": "reset"}, "until_s": 10}
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rules.add(msgspec.convert(order, Order))
    monkeypatch.setattr(time, "monotonic", lambda: now + 9.9)
    assert rules.take("m")
    monkeypatch.setattr(time, "monotonic", lambda: now + 10)
    assert rules.take("m") is None


def test_rules_are_cleared_by_model_or_all(sandbox: SandboxProcess, control: Control) -> None:
    for model in ("fb-ok", MODEL, "*"):
        control.fault(model, {"kind": "status", "status": 500})
    control.clear("*")
    control.clear(MODEL)
    assert [ask(sandbox, model).status for model in ("fb-ok", MODEL)] == [500, 200]
    control.clear()
    assert ask(sandbox, "fb-ok").status == 200


@pytest.mark.parametrize(
    "fault", [{}, {"kind": "nonsense"}, {"kind": "cut", "where": 1}, raw(repeat=True, pieces=[])]
)
def test_a_fault_that_cannot_be_read_is_refused(control: Control, fault: dict[str, Any]) -> None:
    with pytest.raises(ControlError):
        control.fault(MODEL, fault)


def test_settings_are_checked(control: Control) -> None:
    assert control.settings(silent_s=3)["silent_s"] == 3
    with pytest.raises(ControlError):
        control.settings(silent="x")
    with pytest.raises(ControlError):
        control.settings(speed=-1)
    assert control.settings()["silent_s"] == 3


def test_attempts_tell_everything(sandbox: SandboxProcess, control: Control) -> None:
    before = time.monotonic()
    body = {"model": "fb-s03", "messages": HELLO}
    talk(
        sandbox,
        post(body, extra="Authorization: Bearer k\r\nX-A: b\r\nx-a: c\r\nconnection: close\r\n"),
    )
    wire = ask(sandbox, "fb-s03")
    talk(sandbox, post(b"oops", extra="connection: close\r\n"))
    first, second, third = control.attempts()
    assert (first["n"], first["model"], first["path"]) == (1, "fb-s03", "/api/v1/chat/completions")
    assert (first["headers"]["authorization"], first["headers"]["x-a"]) == ("Bearer k", "b, c")
    assert (first["body"], first["stream"]) == (body, False)
    assert (first["fault"], first["status"], first["ended"]) == ("status", 500, "fault")
    assert before <= first["t"] <= second["t"] <= time.monotonic()
    assert (second["model_n"], second["stream"], second["fault"]) == (2, True, None)
    assert (second["ended"], second["peer_gone_t"]) == ("complete", None)
    assert second["bytes_sent"] == len(wire.data)
    assert second["tokens_sent"] == len(wire.pieces)
    assert second["connection"] == first["connection"] + 1
    assert (third["body"], third["model"], third["status"]) == ("oops", None, 400)
    assert [a["n"] for a in control.attempts("fb-s03")] == [1, 2]
    control.reset()
    assert control.attempts() == []
    assert ask(sandbox, "fb-s03").status == 500


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "silent", "seconds": 60},
        {"kind": "delay", "seconds": 60},
        {"kind": "tokens_per_s", "tokens_per_s": 20},
        {"kind": "stall", "seconds": 60},
        {"kind": "endless"},
    ],
)
@pytest.mark.parametrize("abruptly", [True, False])
def test_a_peer_that_leaves_is_noticed_at_once(
    sandbox: SandboxProcess, control: Control, fault: dict[str, Any], abruptly: bool
) -> None:
    control.fault(MODEL, fault)
    with connect(sandbox) as sock:
        if abruptly:
            linger = b"\x01\0\0\0\0\0\0\0"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        sock.sendall(post({"model": MODEL, "messages": HELLO, "stream": True}))
        until(lambda: control.attempts(MODEL))
    left = time.monotonic()
    (attempt,) = until(lambda: [a for a in control.attempts() if a["ended"]])
    assert attempt["ended"] == "peer_gone"
    assert left - 0.05 <= attempt["peer_gone_t"] <= left + 0.1
    assert until(lambda: control.stats()["connections"] == 0)


def test_a_request_is_logged_even_if_its_sender_left_at_once(
    sandbox: SandboxProcess, control: Control
) -> None:
    control.fault(MODEL, {"kind": "silent", "seconds": 60})
    for _ in range(20):
        with connect(sandbox) as sock:
            sock.sendall(post({"model": MODEL, "messages": HELLO}))
    ended = until(lambda: [a["ended"] for a in control.attempts() if a["ended"]][19:])
    assert ended == ["peer_gone"]
    assert until(lambda: control.stats()["connections"] == 0)


def test_idle_connections_are_counted_and_closed(sandbox: SandboxProcess, control: Control) -> None:
    until(lambda: control.stats()["connections"] == 0)
    with connect(sandbox) as sock:
        sock.sendall(post({"model": "fb-ok", "messages": HELLO}))
        receive(sock, 0.05)
        counts = control.stats()
        assert (counts["connections"], counts["busy"]) == (1, 0)
        with connect(sandbox) as busy:
            busy.sendall(post({"model": "fb-s06", "messages": HELLO}))
            assert until(lambda: control.stats()["busy"] == 1)
            assert control.close_idle() == 1
            assert receive(sock) == (b"", "eof")
            assert receive(busy, 0.05) == (b"", "open")
