"""Samples survive the round trip through float32; values over full scale are clipped and counted, never wrapped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stemprover.offline.samples import INTEGER_BITS, SampleCodec


def left_aligned(levels: np.ndarray, bits: int) -> np.ndarray:
    return (levels.astype(np.int64) << (32 - bits)).astype(np.int32)


@pytest.mark.parametrize("subtype", sorted(INTEGER_BITS))
@given(data=st.data())
def test_every_integer_survives_the_round_trip(subtype: str, data: st.DataObject) -> None:
    bits = INTEGER_BITS[subtype]
    full = 2 ** (bits - 1)
    levels = data.draw(hnp.arrays(np.int64, (2, 50), elements=st.integers(-full, full - 1)))
    levels[0, :3] = [-full, full - 1, 0]
    native = left_aligned(levels, bits)
    codec = SampleCodec(subtype)
    encoded = codec.encode(codec.decode(native), native)
    np.testing.assert_array_equal(encoded.native, native)
    assert encoded.native.dtype == np.int32
    assert encoded.clipped_samples == 0


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24"])
def test_integers_of_up_to_24_bits_decode_exactly(subtype: str) -> None:
    bits = INTEGER_BITS[subtype]
    full = 2 ** (bits - 1)
    levels = np.arange(-full, full, max(1, full >> 12))[None]
    np.testing.assert_array_equal(SampleCodec(subtype).decode(left_aligned(levels, bits)).astype(float), levels / full)


def test_encoding_rounds_to_the_nearest_integer() -> None:
    audio = np.array([[0.4, 0.6, -0.4, -0.6, 1.4]], np.float32) / 32768
    np.testing.assert_array_equal(SampleCodec("PCM_16").encode(audio).native >> 16, [[0, 1, 0, -1, 1]])


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32)])
def test_integers_over_full_scale_are_clipped_and_counted(subtype: str, bits: int) -> None:
    audio = np.array([[0.5, 1.0, 1.5, -1.0, -1.5, 7.0]], np.float32)
    codec = SampleCodec(subtype)
    encoded = codec.encode(audio, np.zeros_like(audio, np.int32))
    full = 2 ** (bits - 1)
    np.testing.assert_array_equal(
        encoded.native.astype(np.int64) >> (32 - bits), [[full // 2, full - 1, full - 1, -full, -full, full - 1]]
    )
    assert encoded.clipped_samples == 3, "full scale itself does not count"


def test_floats_over_full_scale_are_kept() -> None:
    audio = np.array([[2.5, -3.0]], np.float32)
    encoded = SampleCodec("FLOAT").encode(audio)
    np.testing.assert_array_equal(encoded.native, audio)
    assert encoded.clipped_samples == 0


def test_doubles_keep_their_precision_where_nothing_changed() -> None:
    native = np.array([[1 / 3, 1e-300, -np.pi, 1e20]])
    codec = SampleCodec("DOUBLE")
    audio = codec.decode(native)
    np.testing.assert_array_equal(codec.encode(audio, native).native, native)
    changed = audio.copy()
    changed[0, 0] += np.float32(0.25)
    np.testing.assert_allclose(codec.encode(changed, native).native[0, 0], 1 / 3 + 0.25, rtol=1e-7)


def test_encoding_does_not_change_the_callers_arrays() -> None:
    audio = np.array([[1.5, -1.5]], np.float32)
    native = np.array([[5, -5]], np.int32)
    for subtype in ("PCM_16", "PCM_32"):
        SampleCodec(subtype).encode(audio, native)
    np.testing.assert_array_equal(audio, [[1.5, -1.5]])
    np.testing.assert_array_equal(native, [[5, -5]])
