"""HTTP as the sandbox speaks it, and the faults it makes on a socket."""

import base64
import json
import socket
import time
from typing import Any

import pytest

from llmr.sandbox import CANONICAL_ANSWER, text
from llmr.sandbox.control import Control
from llmr.sandbox.process import SandboxProcess
from tests.sandbox.wire import (
    HELLO,
    MODEL,
    TOOLS,
    ask,
    complete,
    connect,
    post,
    raw,
    receive,
    talk,
)

# HTTP.


def test_a_connection_serves_many_requests(sandbox: SandboxProcess, control: Control) -> None:
    with connect(sandbox) as sock:
        for _ in range(2):
            sock.sendall(post({"model": "fb-ok", "messages": HELLO}))
            assert receive(sock, 0.1).whole
        sock.sendall(post({"model": "fb-ok", "messages": HELLO}) * 2)
        assert receive(sock, 0.1).data.count(b"HTTP/1.1 200 OK") == 2
    assert len({attempt["connection"] for attempt in control.attempts()}) == 1


def test_a_request_may_come_in_chunks_and_drops(sandbox: SandboxProcess) -> None:
    body = json.dumps({"model": "fb-ok", "messages": HELLO}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n"
    chunks = b"".join(b"%x;x=y\r\n%b\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
    with connect(sandbox) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head + b"connection: close\r\n\r\n" + chunks + b"0\r\ntrailer: x\r\n\r\n":
            sock.send(bytes([byte]))
        assert receive(sock).json["model"] == "fb-ok"


def test_expect_continue_is_answered(sandbox: SandboxProcess) -> None:
    request = post({"model": "fb-ok", "messages": HELLO}, extra="expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    with connect(sandbox) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert receive(sock, 0.1).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
    ],
)
def test_what_is_not_http_is_refused(
    sandbox: SandboxProcess, request_bytes: bytes, status: int
) -> None:
    wire = talk(sandbox, request_bytes)
    assert wire.status == status


# Faults that replace the answer.


def test_status(sandbox: SandboxProcess, control: Control) -> None:
    headers = {"Retry-After": ["1", "2"], "x-a": "b"}
    control.fault(MODEL, {"kind": "status", "status": 429, "headers": headers})
    wire = ask(sandbox)
    assert (wire.status, wire.json["error"]["code"], wire.whole) == (429, 429, True)
    assert "retry-after: 1\r\nretry-after: 2\r\nx-a: b" in wire.head


def test_status_with_a_body_of_ones_own(sandbox: SandboxProcess, control: Control) -> None:
    page = {"kind": "status", "status": 529, "body": "<h1>", "content_type": "text/html"}
    control.fault(MODEL, page, times=1)
    control.fault(MODEL, {"kind": "status", "status": 502, "body_base64": b"\xff\x00"})
    html, binary = ask(sandbox), ask(sandbox)
    assert (html.status, html.body) == (529, b"<h1>")
    assert "content-type: text/html" in html.head
    assert (binary.status, binary.body) == (502, b"\xff\x00")


@pytest.mark.parametrize("body", ['{"error": "text"}', '{"choices": [', "", "<html>"])
def test_json_body(sandbox: SandboxProcess, control: Control, body: str) -> None:
    control.fault(MODEL, {"kind": "json_body", "body": body})
    wire = ask(sandbox, stream=False)
    assert (wire.status, wire.body.decode(), wire.whole) == (200, body, True)


def test_redirect(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "redirect", "location": "http://evil.test/", "status": 307})
    wire = ask(sandbox)
    assert wire.status == 307
    assert "location: http://evil.test/" in wire.head


@pytest.mark.parametrize(("kind", "end"), [("reset", "reset"), ("close", "eof")])
def test_gone_before_any_byte(
    sandbox: SandboxProcess, control: Control, kind: str, end: str
) -> None:
    control.fault(MODEL, {"kind": kind})
    assert ask(sandbox) == (b"", end)


def test_silent(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "silent", "seconds": 0.15})
    assert ask(sandbox, patience=0.1) == (b"", "open")
    began = time.monotonic()
    assert ask(sandbox) == (b"", "eof")
    assert time.monotonic() - began >= 0.15


def test_empty_stream(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "empty_stream"})
    wire = ask(sandbox)
    assert (wire.status, wire.body, wire.whole) == (200, b"", True)


@pytest.mark.parametrize(
    ("stream", "sign"), [(True, b": OPENROUTER PROCESSING\n\n"), (False, b"\n")]
)
def test_comments(sandbox: SandboxProcess, control: Control, stream: bool, sign: bytes) -> None:
    control.fault(MODEL, {"kind": "comments", "interval_s": 0.02})
    wire = ask(sandbox, stream=stream, patience=0.2)
    assert wire.end == "open"
    count, rest = divmod(len(wire.body), len(sign))
    assert (wire.body, rest) == (sign * count, 0)
    assert 3 <= count <= 11


def test_raw_is_sent_to_the_letter(sandbox: SandboxProcess, control: Control) -> None:
    pieces = [{"data": "/w=="}, {"data": base64.b64encode(b"data: x").decode(), "delay": 0.05}]
    control.fault(MODEL, {"kind": "raw", "pieces": pieces, "headers": {"a": "b"}, "status": 203})
    wire = ask(sandbox)
    assert wire.raw_body == b"1\r\n\xff\r\n7\r\ndata: x\r\n0\r\n\r\n"
    assert (wire.status, "a: b" in wire.head) == (203, True)


@pytest.mark.parametrize(
    ("fault", "header", "body", "end"),
    [
        (raw(framing="length"), "content-length: 6", b"onetwo", "eof"),
        (raw(framing="close"), "connection: close", b"onetwo", "eof"),
        (raw(end="close"), "chunked", b"3\r\none\r\n3\r\ntwo\r\n", "eof"),
        (raw(end="reset"), "chunked", b"3\r\none\r\n3\r\ntwo\r\n", "reset"),
        (raw(end="hold"), "chunked", b"3\r\none\r\n3\r\ntwo\r\n", "open"),
    ],
)
def test_raw_framings_and_ends(
    sandbox: SandboxProcess,
    control: Control,
    fault: dict[str, Any],
    header: str,
    body: bytes,
    end: str,
) -> None:
    control.fault(MODEL, fault)
    wire = ask(sandbox, patience=0.2)
    assert header in wire.head
    assert (wire.raw_body, wire.end) == (body, end)


def test_raw_without_a_status_writes_nothing_of_its_own(
    sandbox: SandboxProcess, control: Control
) -> None:
    control.fault(MODEL, raw(status=None, end="close"))
    assert ask(sandbox) == (b"onetwo", "eof")


def test_raw_can_repeat_for_ever(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, raw(status=None, repeat=True))
    with connect(sandbox) as sock:
        sock.sendall(post({"model": MODEL, "messages": HELLO}))
        data = b""
        while len(data) < 1_000_000:
            data += sock.recv(65536)
    assert data.startswith(b"onetwotwotwo")


# Faults that spoil the answer.


def test_delay(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "delay", "seconds": 0.15}, times=2)
    began = time.monotonic()
    assert ask(sandbox, patience=0.1) == (b"", "open")
    assert complete(ask(sandbox))
    assert time.monotonic() - began >= 0.25


def test_tokens_per_s(sandbox: SandboxProcess, control: Control) -> None:
    control.fault("fb-ok", {"kind": "tokens_per_s", "tokens_per_s": 20})
    wire = ask(sandbox, "fb-ok", patience=0.25)
    assert wire.end == "open"
    assert 3 <= len(wire.pieces) <= 7


def test_slow_first_token(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "slow_first_token", "seconds": 0.15})
    early = ask(sandbox, patience=0.1)
    assert (early.status, early.pieces, early.end) == (200, [], "open")
    assert early.body == b": OPENROUTER PROCESSING\n\n"
    assert complete(ask(sandbox))
    early = ask(sandbox, stream=False, patience=0.1)
    assert (early.status, early.body, early.end) == (200, b"", "open")


@pytest.mark.parametrize(
    ("how", "end", "whole"),
    [("close", "eof", False), ("reset", "reset", False), ("clean", "eof", True)],
)
def test_cut(sandbox: SandboxProcess, control: Control, how: str, end: str, whole: bool) -> None:
    control.fault("fb-ok", {"kind": "cut", "after_tokens": 5, "how": how})
    wire = ask(sandbox, "fb-ok")
    assert (wire.end, wire.whole) == (end, whole)
    assert wire.pieces == text.pieces(CANONICAL_ANSWER)[:5]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in wire.chunks)
    assert "[DONE]" not in wire.data_lines
    as_json = ask(sandbox, "fb-ok", stream=False)
    assert (as_json.end, as_json.whole) == (end, whole)
    with pytest.raises(json.JSONDecodeError):
        json.loads(as_json.body)


def test_cut_before_the_first_token(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "cut", "after_tokens": 0})
    wire = ask(sandbox)
    assert (wire.status, wire.chunks, wire.whole) == (200, [], False)


def test_a_tool_call_is_cut_in_its_arguments(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "cut", "after_tokens": 1})
    calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in ask(sandbox, tools=TOOLS).chunks]
    assert [call.get("id", "")[:5] for call in calls] == ["call_", ""]
    assert calls[1]["function"]["arguments"].startswith('{"')


@pytest.mark.parametrize("stream", [True, False])
def test_stall(sandbox: SandboxProcess, control: Control, stream: bool) -> None:
    control.fault("fb-ok", {"kind": "stall", "after_tokens": 3, "seconds": 0.15})
    early = ask(sandbox, "fb-ok", stream=stream, patience=0.1)
    assert early.end == "open"
    assert early.body
    late = ask(sandbox, "fb-ok", stream=stream)
    assert (late.end, late.whole) == ("eof", False)
    if stream:
        assert len(early.pieces) == len(late.pieces) == 3


@pytest.mark.parametrize(("replace", "lost"), [(False, 0), (True, 1)])
def test_malformed(sandbox: SandboxProcess, control: Control, replace: bool, lost: int) -> None:
    control.fault("fb-ok", {"kind": "malformed", "at_token": 2, "data": "{bad", "replace": replace})
    wire = ask(sandbox, "fb-ok")
    assert wire.data_lines[2] == "{bad"
    assert complete(wire)
    expected = text.pieces(CANONICAL_ANSWER)
    assert wire.pieces == expected[:2] + expected[2 + lost :]
    with pytest.raises(json.JSONDecodeError):
        json.loads(ask(sandbox, "fb-ok", stream=False).body)


def test_no_done(sandbox: SandboxProcess, control: Control) -> None:
    control.fault("fb-ok", {"kind": "no_done"})
    wire = ask(sandbox, "fb-ok")
    assert (wire.whole, wire.text) == (True, CANONICAL_ANSWER)
    assert wire.chunks[-1]["usage"]["completion_tokens"] == len(wire.pieces)
    assert "[DONE]" not in wire.data_lines


@pytest.mark.parametrize("at_token", [0, 3])
def test_error_event(sandbox: SandboxProcess, control: Control, at_token: int) -> None:
    control.fault(MODEL, {"kind": "error_event", "at_token": at_token})
    wire = ask(sandbox)
    assert (wire.status, len(wire.pieces), wire.whole) == (200, at_token, True)
    assert wire.chunks[-1]["error"]["code"] == 502
    assert wire.chunks[-1]["choices"][0]["finish_reason"] == "error"
    assert ask(sandbox, stream=False).json["error"]["code"] == 502


def test_error_event_of_ones_own(sandbox: SandboxProcess, control: Control) -> None:
    mapped = {"kind": "error_event", "event": {"error": "text"}, "role_first": True, "done": True}
    control.fault(MODEL, mapped, times=1)
    control.fault(MODEL, {"kind": "error_event", "event": "event: error\ndata: {}\n\n"})
    wire = ask(sandbox)
    assert wire.chunks[0]["choices"][0]["delta"] == {"content": "", "role": "assistant"}
    assert wire.data_lines[1:] == ['{"error":"text"}', "[DONE]"]
    assert ask(sandbox).body.endswith(b"PROCESSING\n\nevent: error\ndata: {}\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_endless(sandbox: SandboxProcess, control: Control, stream: bool) -> None:
    control.fault(MODEL, {"kind": "endless"})
    with connect(sandbox) as sock:
        sock.sendall(post({"model": MODEL, "messages": HELLO, "stream": stream}))
        size = 0
        while size < 2_000_000:
            size += len(sock.recv(65536))
    assert control.stats()["requests"] > 0


@pytest.mark.parametrize("stream", [True, False])
def test_wrong_form(sandbox: SandboxProcess, control: Control, stream: bool) -> None:
    control.fault(MODEL, {"kind": "wrong_form"})
    wire = ask(sandbox, stream=stream)
    assert ("text/event-stream" in wire.head) is not stream
    assert wire.text if not stream else wire.json["object"] == "chat.completion"


def test_drip_headers(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "drip_headers", "interval_s": 0.02})
    wire = ask(sandbox, patience=0.2)
    assert wire.end == "open"
    assert b"HTTP/1.1 200 OK\r\n".startswith(wire.data)
    assert 3 <= len(wire.data) <= 11
    control.clear()
    control.fault(MODEL, {"kind": "drip_headers", "interval_s": 0})
    assert complete(ask(sandbox))


def test_drip_body(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "drip_body", "interval_s": 0.02, "size": 2}, times=1)
    wire = ask(sandbox, stream=False, patience=0.2)
    assert (wire.status, wire.end) == (200, "open")
    assert 4 <= len(wire.body) <= 20
    control.fault("fb-ok", {"kind": "drip_body", "interval_s": 0, "size": 7})
    assert complete(ask(sandbox, "fb-ok"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("by", [10, -10])
def test_content_length(sandbox: SandboxProcess, control: Control, by: int, stream: bool) -> None:
    control.fault(MODEL, {"kind": "content_length", "by": by})
    wire = ask(sandbox, stream=stream)
    claimed = int(wire.head.partition("content-length: ")[2].split("\r\n")[0])
    assert claimed == len(wire.raw_body) + by


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["size", "missing_end"])
def test_bad_chunk(sandbox: SandboxProcess, control: Control, how: str, stream: bool) -> None:
    control.fault(MODEL, {"kind": "bad_chunk", "how": how})
    wire = ask(sandbox, stream=stream)
    assert (wire.end, wire.whole, wire.chunked) == ("eof", False, True)
    assert wire.raw_body.endswith(b"ZZ\r\n") is (how == "size")


def test_a_fault_can_come_late(sandbox: SandboxProcess, control: Control) -> None:
    control.fault(MODEL, {"kind": "reset", "delay_s": 0.15})
    assert ask(sandbox, patience=0.1) == (b"", "open")
    assert ask(sandbox) == (b"", "reset")
