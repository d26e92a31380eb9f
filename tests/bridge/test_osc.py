"""Messages of the bridge as bytes."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT
from stemprover.bridge import osc as protocol
from stemprover.bridge.osc import (
    MESSAGES,
    Code,
    FrameReader,
    MessageSpec,
    ProtocolError,
    decode,
    documented,
    encode,
    encode_reply,
    framed,
    from_blob,
    largest_block,
    to_blob,
    to_bridge,
    to_client,
)

DOCS = ROOT / "docs" / "osc.md"


def test_a_message_as_bytes() -> None:
    """OSC 1.0: address and type tags padded with zeros to four bytes, big-endian numbers, a blob with its size."""
    data = encode("/block", "iihiib", 1, 2, 3, 1, 4, b"abcdefgh")
    assert data == (
        b"/stemprover/block\0\0\0,iihiib\0"
        + struct.pack(">iiqiii", 1, 2, 3, 1, 4, 8)
        + b"abcdefgh"
    )  # fmt: skip
    assert decode(data).arguments == (1, 2, 3, 1, 4, b"abcdefgh")
    assert decode(data).address == "/stemprover/block"


@given(
    st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(min_size=4, max_size=64),
)
def test_blocks_are_the_bytes_of_python_osc(ints: tuple[int, int], position: int, sound: bytes) -> None:
    sound = sound[: len(sound) // 4 * 4]
    values = (*ints, position, *ints, sound)
    data = encode("/block", "iihiib", *values)
    assert decode(data).arguments == values
    assert decode(data).tags == "iihiib"
    reply = (*ints, position, *ints, *ints, 5, sound)
    assert encode_reply(*reply) == encode("/block", "iihiiiiib", *reply)
    assert decode(encode_reply(*reply)).arguments == reply


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.lists(st.integers(1, 400), min_size=1))
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[bytes], pieces: list[int]) -> None:
    reader, found = FrameReader(), []
    data = b"".join(map(framed, messages))
    start = number = 0
    while start < len(data):
        size = pieces[number % len(pieces)]
        found += reader.feed(data[start : start + size])
        start, number = start + size, number + 1
    assert found == messages
    assert reader.waiting == 0


@pytest.mark.parametrize("size", [0, -1, -(2**31), (1 << 20) + 1, 2**31 - 1])
def test_sizes_that_cannot_be(size: int) -> None:
    reader = FrameReader()
    good = framed(b"/abc")
    found = []
    with pytest.raises(ProtocolError, match="1 to 1048576") as caught:
        for message in reader.feed(good + struct.pack(">i", size) + b"rest"):
            found.append(message)
    assert found == [b"/abc"], "what was whole before it still comes"
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.MALFORMED),
        (b"abcd", Code.MALFORMED),
        (b"/abc,i\0\0", Code.MALFORMED),
        (b"/ab\0,ii\0\0\0\0\1", Code.MALFORMED),
        (b"/ab\0,b\0\0\xff\xff\xff\xff", Code.MALFORMED),
        (b"/ab\0,b\0\0\x7f\xff\xff\xff", Code.MALFORMED),
        (b"/ab\0,QQ\0", Code.MALFORMED),
        (b"#bundle\0" + bytes(8) + struct.pack(">i", -4), Code.MALFORMED),
        (b"/" + b"*" * 20 + b"\0\0\0,\0\0\0", Code.UNKNOWN_ADDRESS),
        (b"/a?\0,\0\0\0", Code.UNKNOWN_ADDRESS),
    ],
)
def test_bytes_that_are_no_message(data: bytes, code: Code) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert caught.value.code is code


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(data)


def test_sound_as_bytes() -> None:
    """Frame after frame, little-endian."""
    sound = np.array([[1.0, 3.0], [2.0, -4.0]], np.float32)
    assert to_blob(sound) == struct.pack("<4f", 1.0, 2.0, 3.0, -4.0)
    assert np.array_equal(from_blob(to_blob(sound), 2, 2), sound)
    with pytest.raises(ProtocolError, match="3 frames of 2 channels are 24"):
        from_blob(to_blob(sound), 2, 3)


@pytest.mark.parametrize(("channels", "mix"), [(1, 0), (2, 2), (8, 8)])
def test_the_largest_block_fits_into_a_datagram_both_ways(channels: int, mix: int) -> None:
    frames = largest_block(channels, mix)
    there = encode("/block", "iihiib", 1, 1, 1, frames, 0, bytes(4 * frames * (channels + mix)))
    back = encode("/block", "iihiiiiib", 1, 1, 1, frames, 0, 0, 1, 1, bytes(4 * frames * channels))
    assert max(len(there), len(back)) <= protocol.MAX_DATAGRAM


def test_the_documentation_has_the_tables_of_messages_and_codes() -> None:
    text = DOCS.read_text()
    assert documented(text) == text, "write the tables anew: python -m stemprover.bridge.osc"
    assert all(f"`{spec.path}`" in text for spec in MESSAGES)


@pytest.mark.parametrize("spec", MESSAGES, ids=lambda spec: f"{spec.path} from {spec.sender}")
def test_the_table_encodes_and_checks_each_message(spec: MessageSpec) -> None:
    """With no, one and three repeats of what may be repeated, with and without what is optional."""
    sample = {"i": 5, "h": 2**40, "f": 0.5, "d": 0.25, "s": "text", "b": b"1234"}
    write = to_bridge if spec.sender == "client" else to_client
    path = spec.path.replace("<n>", "3")
    counts = [count for count in range(13) if _fits(spec, count)]
    assert counts
    for count in counts:
        values = tuple(sample[tag] for tag in spec.tags_for(count))
        message = decode(write(path, *values))
        assert message.address == protocol.ROOT + path
        assert spec.check(message.arguments) == list(values)
    for count in set(range(13)) - set(counts):
        with pytest.raises(ProtocolError, match="arguments instead of"):
            spec.check((1,) * count)


def _fits(spec: MessageSpec, count: int) -> bool:
    try:
        spec.tags_for(count)
    except ProtocolError:
        return False
    return True


#: What an argument of each type may hold, and the kinds of number that hold such a value exactly.
VALUES = {
    "i": st.integers(-(2**31), 2**31 - 1) | st.integers(0, 1), "h": st.integers(-(2**63), 2**63 - 1),
    "f": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0]),
    "d": st.floats(allow_nan=False, allow_infinity=False), "s": st.sampled_from(["", "text"]),
    "b": st.sampled_from([b"12", b"1234"]),
}  # fmt: skip
HOLDS = {
    "i": lambda value: value == value // 1 and abs(value) < 2**31,
    "h": lambda value: value == value // 1 and abs(value) < 2**63,
    "f": lambda value: abs(value) <= float(np.finfo(np.float32).max) and float(np.float32(value)) == value,
    "d": lambda value: float(value) == value,
    "T": lambda value: value == 1, "F": lambda value: value == 0,
}  # fmt: skip


@pytest.mark.parametrize("spec", MESSAGES, ids=lambda spec: f"{spec.path} from {spec.sender}")
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_kind_of_number_may_stand_for_any_other(spec: MessageSpec, data: st.DataObject) -> None:
    tags = spec.tags_for(data.draw(st.sampled_from([count for count in range(13) if _fits(spec, count)])))
    values = [data.draw(VALUES[tag]) for tag in tags]
    sent = [
        tag if tag in "sb" else data.draw(st.sampled_from([kind for kind, holds in HOLDS.items() if holds(value)]))
        for tag, value in zip(tags, values, strict=True)
    ]
    kinds = {"i": int, "h": int, "f": float, "d": float}
    as_sent = [kinds[tag](value) if tag in kinds else value for tag, value in zip(sent, values, strict=True)]
    found = spec.check(decode(encode(spec.path, "".join(sent), *as_sent)).arguments)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    ("path", "arguments", "text"),
    [
        ("/ping", (1, "now"), "argument 2 is 'now', not a finite number"),
        ("/ping", (1.5, 0.0), "argument 1 is 1.5, not a whole number of 32 bits"),
        ("/ping", (2**31, 0.0), "argument 1 is 2147483648, not a whole number of 32 bits"),
        ("/ping", (-(2.0**31) - 1, 0.0), "argument 1 is -2147483649.0, not"),
        ("/ping", (float("inf"), 0.0), "argument 1 is inf, not"), ("/ping", (1, float("-inf")), "argument 2 is -inf"),
        ("/block", (1, 0, 2.0**63, 1, 0, b""), "argument 3 is 9.22337.*, not a whole number of 64 bits"),
        ("/hello", (1, "", "", "stream", 48000, 512, float("nan"), 0), "argument 7 is nan, not .*request, token"),
        ("/hello", (1, "", "", "stream", 48000, 512, 1.5, 0), "argument 7 is 1.5, not"),
        ("/stream/<n>/wet", (float("nan"),), "argument 1 is nan, not a finite number of 32 bits"),
        ("/stream/<n>/wet", (1e39,), r"argument 1 is 1e\+39, not"), ("/stream/<n>/wet", (None,), "argument 1 is None"),
        ("/stream/<n>/preset", (1,), "argument 1 is 1, not a string"),
        ("/stream/<n>/blend", ("bleed", "much"), "argument 2 is 'much', not a finite number"),
        ("/flush", (1, [2]), r"argument 2 is \[2\], not"),
    ],
)  # fmt: skip
def test_an_argument_that_does_not_fit_is_named(path: str, arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(ProtocolError, match=text) as caught:
        protocol.FROM_CLIENT[path].check(arguments)
    assert caught.value.code is Code.ARGUMENTS


@pytest.mark.parametrize(
    ("path", "count", "place"),
    [
        ("/flush", 2, 0), ("/stream/<n>/bypass", 1, None), ("/stream/<n>/bypass", 2, 1), ("/stream/<n>/blend", 2, None),
        ("/stream/<n>/blend", 5, 4), ("/stream/<n>/blend", 4, None),
    ],
)  # fmt: skip
def test_where_the_requests_number_is(path: str, count: int, place: int | None) -> None:
    assert protocol.FROM_CLIENT[path].request_place(count) == place


def test_the_documented_bytes_are_those_that_are_sent() -> None:
    text = DOCS.read_text()
    hello = encode("/hello", "isssiiiii", 1, "", "vocals", "stream", 48000, 512, 2, 2, 1)
    block = encode("/block", "iihiib", 1, 0, 0, 1, 0, to_blob(np.array([[0.5], [-0.5]], np.float32)))
    for message in (hello, block):
        assert framed(message).hex(" ") in " ".join(text.split())
