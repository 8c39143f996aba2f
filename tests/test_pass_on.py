"""Text that goes on undecoded: every stream comes out as if each event had been decoded."""

import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmr.core.chunks import ChunkStream
from llmr.core.sse import EventReader

RECORDED = sorted((pathlib.Path(__file__).parent / "recordings" / "sse").glob("*"))
State = tuple[Any, ...]


def played(pieces: list[bytes], *, quick: bool) -> tuple[bytes, State, int]:
    """What comes out of a stream that comes in pieces, its state, and how many passed undecoded."""
    reader, chunks = EventReader(), ChunkStream(include_usage=True)
    out, passed = b"", 0
    for piece in pieces:
        if quick and reader.between and chunks.pass_on(piece):
            out += piece
            passed += 1
            continue
        for event in reader.feed(piece):
            out += chunks.take(event)
    state = (
        chunks.content_bytes,
        chunks.thought_bytes,
        chunks.parts,
        chunks.plain,
        chunks.finishes,
        chunks.usage,
        chunks.degraded,
        chunks.ignored,
        chunks.committed,
        chunks.done,
        str(chunks.failure),
    )
    return out, state, passed


def alike(pieces: list[bytes]) -> int:
    out, state, passed = played(pieces, quick=True)
    assert (out, state, 0) == played(pieces, quick=False)
    return passed


def event(delta: dict[str, Any], ascii_only: bool = True, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    chunk = {"id": "c", "model": "lab/a", "created": 1, "choices": [choice]}
    text = json.dumps(chunk, ensure_ascii=ascii_only, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n"


ROLE, FIRST = event({"role": "assistant", "content": ""}), event({"content": "Hello"})
DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, st.text(max_size=20)),
    st.sampled_from(
        [{}, {"reasoning": "hm"}, {"content": "x", "refusal": "no"}, {"content": None}]
    ),
)
EVENTS = st.builds(event, DELTAS, st.booleans())
ODD = st.sampled_from(
    [
        b": a comment\n\n",
        b"data: [DONE]\n\n",
        b"data: {broken\n\n",
        b'data: {"error":{"message":"no"}}\n\n',
        event({"content": "bye"}, finish_reason="stop"),
        event({"content": "b"}, index=1),
        FIRST.replace(b"\n\n", b"\r\n\r\n"),
        FIRST.replace(b"Hello", b"He\xffllo"),
        FIRST.replace(b"Hello", b"He\\qllo"),
        FIRST.replace(b"Hello", b"He\\u0041"),
        FIRST.replace(b'"id":"c"', b'"id":"c","content":"Hello"'),
        FIRST.replace(b'"content"', b'"c\\u006fntent"'),
        FIRST.replace(b"data: ", b"event: error\ndata: "),
    ]
)


@given(st.lists(st.one_of(EVENTS, EVENTS, EVENTS, ODD), max_size=30), st.data())
def test_a_stream_comes_out_the_same_whatever_is_passed_on(
    events: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join([ROLE, FIRST, *events])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    alike([ROLE, FIRST, *events])
    alike([whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)])


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_recorded_streams_come_out_the_same(path: pathlib.Path) -> None:
    data = path.read_bytes()
    blocks = [block + b"\n\n" for block in data.split(b"\n\n")]
    alike(blocks)
    alike([b"".join(blocks[at : at + 3]) for at in range(0, len(blocks), 3)])


@pytest.mark.parametrize("text", ["plain", "ünïcödé 漢字", 'quo"ted', "line\nbreak", "back\\slash"])
def test_text_passes_undecoded(text: str) -> None:
    assert alike([ROLE, FIRST, *[event({"content": text}, ascii_only=False)] * 5]) == 5
    assert alike([ROLE, FIRST, event({"content": text}, ascii_only=False) * 5]) == 1


def padded(text: str, noise: str, **more: Any) -> bytes:
    return event({"content": text}, **more)[:-3] + f',"obfuscation":"{noise}"}}\n\n'.encode()


def test_text_with_noise_behind_it_passes_undecoded() -> None:
    events = [padded("so", noise) for noise in ("", "x", "Zq81", "longer than that")]
    assert alike([ROLE, *events]) == 3
    assert alike([ROLE, events[0], b"".join(events)]) == 1
    odd = [padded("so", '","usage":{"x":1},"y":"'), padded("", "x"), padded("a", "b")[:-4]]
    alike([ROLE, *events, *odd, padded("b", "c", finish_reason="stop"), events[0]])


def test_what_ends_an_answer_is_always_decoded() -> None:
    last = event({"content": "x"}, finish_reason="stop")
    assert alike([ROLE, FIRST, FIRST, last, FIRST, b"data: [DONE]\n\n", FIRST]) == 1
