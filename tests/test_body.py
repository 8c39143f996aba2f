"""Request bodies as bytes: what is refused, and what a splice leaves as it came."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmr.cache.key import cache_key
from llmr.core.body import Body
from llmr.core.request import parse
from llmr.errors import ApiError

HELLO = b'"messages":[{"role":"user","content":"Hello."}]'

TEXT = st.text(max_size=6) | st.sampled_from(('"', "\\", "\\u0061", "a\nb", "é", "😀", "}", ","))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=7)
GAPS = st.sampled_from(("", " ", "\n\t", " \r\n "))


def spelt(fields: list[tuple[str, Any]], gap: str, escaped: bool) -> bytes:
    """An object in one of the forms in which it may be written."""
    entries = (
        f"{gap}{json.dumps(key, ensure_ascii=escaped)}{gap}:{gap}"
        f"{json.dumps(value, ensure_ascii=escaped)}{gap}"
        for key, value in fields
    )
    return f"{gap}{{{','.join(entries) or gap}}}{gap}".encode()


def in_code_points(key: str) -> bytes:
    """A key as a JSON string of nothing but escapes."""
    units = key.encode("utf-16-be").hex()
    return (
        b'"' + b"".join(b"\\u" + units[i : i + 4].encode() for i in range(0, len(units), 4)) + b'"'
    )


def refusal(data: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(data)
    assert caught.value.status == 400
    return caught.value


def read(data: bytes) -> None:
    """All that reads a body before a decision."""
    body = Body(data)
    cache_key(body, parse(body, {}, model_optional=True), b"scope")


def status(data: bytes) -> int:
    """200 where the body can be read, else what the caller is answered with."""
    try:
        read(data)
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"{",
        b"}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{,"a":1}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1}x',
        b'{"a":1}{"b":2}',
        b'{"a":01}',
        b'{"a":1e}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":tru}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":"line\nbreak"}',
        b'{"a":"\\x41"}',
        b'{"a":"\xff"}',
        b'{"\xc3":1}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\x80"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":1}\x00',
        b"\x1f\x8b\x08\x00",
        b"a=1&b=2",
    ],
)
def test_what_is_not_one_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        Body(data)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    "data",
    [
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"\\udc00\\ud800"}]}',
        b'{%b,"user":"\\ud800"}' % HELLO,
        b'{%b,"\\ud800":1}' % HELLO,
        b'{%b,"model":"\\ud83d"}' % HELLO,
    ],
)
def test_half_a_surrogate_pair_is_refused(data: bytes) -> None:
    refusal(data)


@pytest.mark.parametrize("levels", [200, 900, 970, 980, 990, 1000, 1100, 10_000, 1_000_000])
@pytest.mark.parametrize(
    "place",
    [
        b'{"messages":%b}',
        b'{"messages":[{"role":"user","content":%b}]}',
        b'{"messages":[{"role":"user","content":"x","more":%b}]}',
        b'{"messages":[{"role":"assistant","content":"x","tool_calls":%b}]}',
        b'{%b,"tools":%%b}' % HELLO,
        b'{%b,"tools":[{"type":"function","function":{"parameters":%%b}}]}' % HELLO,
        b'{%b,"more":%%b}' % HELLO,
        b'{%b,"twice":%%b,"twice":1}' % HELLO,
    ],
)
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")])
def test_deep_nesting_is_taken_or_refused_and_never_an_error(
    levels: int, place: bytes, opening: bytes, closing: bytes
) -> None:
    deep = opening * levels + (b"1" if closing == b"}" else b"") + closing * levels
    assert status(place % deep) in ((200, 400) if levels < 1100 else (400,))


def test_a_key_given_twice_near_the_bound_of_nesting_is_no_error() -> None:
    for levels in range(700, 1000):
        deep = b"[" * levels + b"]" * levels
        assert status(b'{%b,"twice":%b,"twice":1}' % (HELLO, deep)) == 400


@pytest.mark.parametrize("digits", [20, 400, 4300, 4301, 100_000])
@pytest.mark.parametrize(
    "place",
    [
        b'{%b,"more":%%b}' % HELLO,
        b'{%b,"more":[%%b]}' % HELLO,
        b'{%b,"max_tokens":%%b}' % HELLO,
        b'{%b,"n":%%b}' % HELLO,
        b'{%b,"seed":%%b}' % HELLO,
        b'{%b,"max_cost_usd":%%b}' % HELLO,
        b'{%b,"twice":%%b,"twice":1}' % HELLO,
    ],
)
def test_long_numbers_are_taken_or_refused_and_never_an_error(digits: int, place: bytes) -> None:
    assert status(place % (b"7" * digits)) in (200, 400)


# --- keys given twice ---


@given(OBJECTS, GAPS, st.booleans(), st.data())
def test_a_key_given_twice_is_named_wherever_and_however_it_is_written(
    fields: dict[str, Any], gap: str, escaped: bool, data: st.DataObject
) -> None:
    key = data.draw(TEXT)
    entries = [(name, value) for name, value in fields.items() if name != key]
    at = data.draw(st.integers(0, len(entries)))
    entries.insert(at, (key, 0))
    mark = "@" * 40
    entries.insert(data.draw(st.integers(0, len(entries))), (mark, data.draw(JSON)))
    twice = spelt(entries, gap, escaped)
    written = json.dumps(key).encode() if data.draw(st.booleans()) else in_code_points(key)
    twice = twice.replace(json.dumps(mark).encode(), written)
    with pytest.raises(ApiError) as caught:
        Body(twice)
    assert (caught.value.status, caught.value.code) == (400, "duplicate_key")
    assert caught.value.param == key


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":[1],"b":2,"a":[1]}',
        b'{"a":"a","a":"\\"a\\":1"}',
        b'{"a":{"a":1},"b":{"a":1},"a":{"a":1}}',
        b'{"b":1,"a":{},"a":{}}',
        b'{"a":1,"a":1,"a":1}',
        b'{ "a" : 1 , "a" : 1 }',
    ],
)
def test_the_first_key_given_twice_is_named(data: bytes) -> None:
    error = refusal(data)
    assert (error.code, error.param) == ("duplicate_key", "a")
    assert "'a'" in error.message


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[{"b":1},{"b":2}]}',
        b'{"a":1,"A":2}',
        b'{"a":"b\\":1,\\"a","b":1}',
        b'{"\\u0061":1,"\\\\u0061":2}',
        '{"é":1,"e\u0301":2}'.encode(),
        b'{"":1," ":2}',
    ],
)
def test_keys_that_only_look_alike_are_taken(data: bytes) -> None:
    assert b"".join(Body(data).splice()) == data


# --- splicing ---


@given(OBJECTS, GAPS, st.booleans(), st.data())
def test_a_splice_is_the_edited_object(
    fields: dict[str, Any], gap: str, escaped: bool, data: st.DataObject
) -> None:
    names = st.sampled_from([*fields, "model", "stream_options"])
    drop = data.draw(st.sets(names, max_size=4))
    put = {
        k: v
        for k, v in data.draw(st.dictionaries(names, JSON, max_size=3)).items()
        if k not in drop
    }
    body = Body(spelt(list(fields.items()), gap, escaped))
    spliced = body.splice(drop, {key: json.dumps(value).encode() for key, value in put.items()})
    assert len(spliced) == 1
    kept = {key: value for key, value in fields.items() if key not in drop}
    sent = json.loads(bytes(spliced[0]))
    assert sent == kept | put
    assert list(sent) == list(kept | put)


@given(OBJECTS, GAPS, st.booleans(), st.data())
def test_a_splice_leaves_every_other_byte_as_it_came(
    fields: dict[str, Any], gap: str, escaped: bool, data: st.DataObject
) -> None:
    entries = list(fields.items())
    at = data.draw(st.integers(0, len(entries)))
    name = "n" * 10
    entries.insert(at, (name, "@@@"))
    sent = spelt(entries, gap, escaped)
    body = Body(sent)
    assert b"".join(body.splice(["absent"])) == sent
    before, after = sent.split(b'"@@@"')
    assert body.splice((), {name: b"[7]"}) == (before + b"[7]" + after,)
    assert body.splice((), {name: None}) == (before, after)
    rest = b"".join(body.splice([name]))
    for key, value in fields.items():
        written = json.dumps(key, ensure_ascii=escaped), json.dumps(value, ensure_ascii=escaped)
        assert f"{written[0]}{gap}:{gap}{written[1]}".encode() in rest


@given(OBJECTS, st.data())
def test_a_gap_can_be_filled_again_and_again(fields: dict[str, Any], data: st.DataObject) -> None:
    fields = {**fields, "first": 1, "model": "auto", "last": 2}
    drop = data.draw(st.sets(st.sampled_from([k for k in fields if k != "model"])))
    body = Body(json.dumps(fields).encode())
    pieces = body.splice(drop, {"model": None, "extra": b"{}"})
    assert len(pieces) == 2
    for name in ('"lab/one"', '"lab/é"'):
        filled = json.loads(name.encode().join(pieces))
        kept = {key: value for key, value in fields.items() if key not in drop}
        assert filled == kept | {"model": json.loads(name), "extra": {}}


def test_number_forms_and_unknown_fields_reach_the_upstream_as_they_came() -> None:
    parts = (b'"t": 1.50', b'"big":123456789012345678901234567890', b'"e":1E+2')
    sent = b'{ "model":"auto", %b,"priority":"cost"}' % b", ".join(parts)
    whole = b"".join(Body(sent).splice(("priority",), {"model": b'"lab/one"'}))
    assert all(part in whole for part in parts)
    assert json.loads(whole)["model"] == "lab/one"
