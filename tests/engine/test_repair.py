"""The repair does not depend on block sizes, segments or the number of cores, and keeps what it must not change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sound, streamed
from stemprover.engine.errors import MixMismatchError, OptionError
from stemprover.engine.repair import Repairer
from stemprover.engine.segments import SegmentConfig, best_cut, hop_levels_db
from stemprover.engine.stream import magnitude_limit
from stemprover.engine.trust import Trust

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def repairer(lively_bundle: Path) -> Repairer:
    return Repairer(bundle=lively_bundle, steps=2, jobs=1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("block", [1, 64, 65, 480, 8193])
def test_streamed_equals_whole(repairer: Repairer, block: int, channels: int) -> None:
    seconds = 0.25 if block == 1 else 0.8
    stem, mix = sound(seconds, channels=channels), sound(seconds, channels=channels, seed=1)
    whole = repairer.process(stem, 44100, mix)
    assert np.abs(whole - stem).max() > 0.01, "the test needs a model that changes something"
    assert np.abs(streamed(repairer, stem, mix, 44100, block) - whole).max() <= TOLERANCE


def test_the_role_counts_in_streams_as_in_files_even_after_a_pause(repairer: Repairer) -> None:
    stem = sound(1.6)
    stem[:, 11025:44100] = 0.0  # long enough for the model to sleep
    unknown, drums, vocals = (repairer.process(stem, 44100, role=role) for role in (None, "drums", "vocals"))
    assert min(np.abs(unknown - drums)[:, 48000:].max(), np.abs(drums - vocals)[:, 48000:].max()) > 1e-3
    assert np.abs(streamed(repairer, stem, None, 44100, 1000, role="drums") - drums).max() <= TOLERANCE
    for refused in (repairer.process, repairer.stream):
        with pytest.raises(OptionError, match="role 'kazoo' is unknown"):
            refused(*((stem, 44100) if refused == repairer.process else (44100, 2)), role="kazoo")


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.integers(100, 20000), st.booleans())
def test_any_chunk_size_equals_whole(lively_bundle: Path, frames: int, block: int, with_mix: bool) -> None:
    repairer = Repairer(bundle=lively_bundle, steps=1, jobs=1)
    stem, mix = sound(0.9), sound(0.9, seed=2) if with_mix else None
    whole = repairer.process(stem, 44100, mix)
    assert np.abs(streamed(repairer, stem, mix, 44100, block, frames) - whole).max() <= TOLERANCE


@pytest.mark.parametrize("steps", [1, 3])
def test_segments_on_several_cores_equal_a_single_run(lively_bundle: Path, steps: int) -> None:
    stem, mix = sound(6.0), sound(6.0, seed=1)
    stem[:, 90000:140000] = 0.0
    single = Repairer(bundle=lively_bundle, steps=steps, jobs=1, segments=SegmentConfig(10**6, 10**6))
    several = Repairer(bundle=lively_bundle, steps=steps, jobs=3, segments=SegmentConfig(60, 130))
    assert np.abs(several.process(stem, 44100, mix) - single.process(stem, 44100, mix)).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("rate", "channels"),
    [
        (8000, 1), (16000, 2), (22050, 1), (32000, 2), (44100, 1), (44100, 2), (48000, 1), (48000, 2), (88200, 1),
        (96000, 2), (192000, 1),
    ],
)  # fmt: skip
def test_an_untrained_model_is_the_identity_bit_for_bit(untrained_bundle: Path, rate: int, channels: int) -> None:
    repairer = Repairer(bundle=untrained_bundle, steps=2, jobs=2, segments=SegmentConfig(20, 40))
    stem = sound(0.6, rate, channels)
    stem[:, ::50] = -0.0
    for used in (None, stem):  # a mix in which there is nothing else, so that nothing of it can be in the stem
        assert repairer.process(stem, rate, used).tobytes() == stem.tobytes()
        assert streamed(repairer, stem, used, rate, 777).tobytes() == stem.tobytes()


@pytest.mark.parametrize("rate", [44100, 48000])
def test_wet_zero_is_the_identity_bit_for_bit(lively_bundle: Path, rate: int) -> None:
    repairer = Repairer(bundle=lively_bundle, wet=0.0, steps=1)
    stem = sound(0.7, rate) * 3.0
    assert repairer.process(stem, rate).tobytes() == stem.tobytes()
    assert streamed(repairer, stem, None, rate, 333).tobytes() == stem.tobytes()


def test_half_wet_is_half_way_between_dry_and_repaired(repairer: Repairer, lively_bundle: Path) -> None:
    stem = sound(0.6)
    half = Repairer(bundle=lively_bundle, steps=2, jobs=1, wet=0.5).process(stem, 44100)
    assert np.abs(half - 0.5 * (stem + repairer.process(stem, 44100))).max() <= 1e-6


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
def test_streamed_equals_whole_at_other_rates_and_the_latency_is_fixed(repairer: Repairer, rate: int) -> None:
    stem, mix = sound(0.7, rate), sound(0.7, rate, seed=4)
    whole = repairer.process(stem, rate, mix)
    for block in (64, 1500):
        assert np.abs(streamed(repairer, stem, mix, rate, block) - whole).max() <= TOLERANCE
    assert repairer.stream(rate, 2).latency_samples / rate < 0.55


def test_the_latency_is_window_look_ahead_and_chunk(repairer: Repairer) -> None:
    assert repairer.stream(44100, 2).latency_samples == (2048 - 512) + 16 * 512 + 4 * 512 - 1
    assert repairer.stream(44100, 2, chunk_frames=1).latency_samples == (2048 - 512) + 16 * 512 + 512 - 1


@pytest.mark.parametrize("rate", [44100, 48000])
def test_silence_stays_silent_and_the_model_does_not_run(
    lively_bundle: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    repairer = Repairer(bundle=lively_bundle, steps=1, jobs=1)
    monkeypatch.setattr(repairer.runtime, "step", lambda *_: pytest.fail("the model ran on silence"))
    silence = np.zeros((2, rate * 2), np.float32)
    assert not repairer.process(silence, rate, sound(2.0, rate)).any()
    assert not streamed(repairer, silence, sound(2.0, rate), rate, 500).any()


@pytest.mark.parametrize("rate", [44100, 48000])
def test_a_pause_stays_silent_to_the_sample(repairer: Repairer, rate: int) -> None:
    stem, mix = sound(2.0, rate), sound(2.0, rate, seed=8)
    stem[:, 30000:70000] = 0.0
    stem[1, 10000:12000] = 0.0  # one channel alone
    out = repairer.process(stem, rate, mix)
    assert not out[:, 30000:70000].any()
    assert not out[1, 10000:12000].any()
    assert np.abs(out - stem)[:, :30000].max() > 0.01
    assert np.abs(out - stem)[0, 10000:12000].max() > 0.0005
    assert np.abs(streamed(repairer, stem, mix, rate, 777) - out).max() <= TOLERANCE


@pytest.mark.parametrize("length", [0, 1, 2, 511, 512, 2049])
@pytest.mark.parametrize("rate", [44100, 22050])
def test_the_output_is_as_long_as_the_input(repairer: Repairer, length: int, rate: int) -> None:
    stem = sound(0.2, rate)[:, 100 : 100 + length]
    assert repairer.process(stem, rate, stem * 2).shape == stem.shape
    assert streamed(repairer, stem, None, rate, 100).shape == stem.shape


@pytest.mark.parametrize("channels", [3, 4, 5, 6])
def test_more_channels_are_repaired_in_pairs_and_an_odd_last_one_as_mono(lively_bundle: Path, channels: int) -> None:
    repairer = Repairer(bundle=lively_bundle, jobs=1, linked=False)
    stem = sound(0.4, channels=channels)
    out = repairer.process(stem, 44100)
    for first in range(0, channels, 2):
        alone = repairer.process(stem[first : first + 2], 44100)
        assert np.abs(out[first : first + 2] - alone).max() <= TOLERANCE


def test_dry_signal_and_correction_are_aligned_at_other_rates(
    lively_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the model wants silence, dry signal and correction cancel, up to the precision of the resamplers."""
    repairer = Repairer(bundle=lively_bundle, steps=1, jobs=1)
    step = repairer.runtime.step

    def mute(*arguments: object) -> tuple:
        repaired, stem, mix, after = step(*arguments)  # type: ignore[arg-type]
        return np.zeros_like(repaired), stem, mix, after

    monkeypatch.setattr(repairer.runtime, "step", mute)
    monkeypatch.setattr(repairer, "trust", Trust())
    for rate in (32000, 48000, 96000):
        t = np.arange(rate) / rate
        stem = sum(0.2 * np.sin(2 * np.pi * f * t) for f in (60.0, 997.0, 5000.0, 9000.0))[None].repeat(2, 0)
        stem = (stem * np.hanning(rate)).astype(np.float32)
        out = repairer.process(stem, rate)
        assert 20 * np.log10(np.abs(out).max() / np.abs(stem).max()) < -90.0, rate


def test_the_callers_arrays_are_not_changed(repairer: Repairer) -> None:
    stem, mix = sound(0.5), sound(0.5, seed=1)
    kept = stem.copy(), mix.copy()
    out = repairer.process(stem, 44100, mix)
    stream = repairer.stream(44100, 2)
    block = stream.process(stem)
    block += 1.0
    assert np.array_equal(stem, kept[0])
    assert np.array_equal(mix, kept[1])
    assert not np.shares_memory(out, stem)


@pytest.mark.parametrize("with_mix", [False, True])
def test_a_host_may_reuse_its_buffers(repairer: Repairer, with_mix: bool) -> None:
    stem, mix = sound(0.6), sound(0.6, seed=1) if with_mix else None
    wanted = streamed(repairer, stem, mix, 44100, 512)
    stream, out = repairer.stream(44100, 2, has_mix=with_mix), []
    block, mix_block = np.zeros((2, 512), np.float32), np.zeros((2, 512), np.float32)
    for at in range(0, stem.shape[1] - 511, 512):
        block[:] = stem[:, at : at + 512]
        if mix is not None:
            mix_block[:] = mix[:, at : at + 512]
        out.append(stream.process(block, mix_block if with_mix else None))
    found = np.concatenate(out, axis=1)[:, stream.latency_samples :]
    assert np.array_equal(found, wanted[:, : found.shape[1]])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_do_not_affect_others(repairer: Repairer, wrong: float) -> None:
    stem, mix = sound(0.8), sound(0.8, seed=1)
    broken, silent = stem.copy(), stem.copy()
    broken[0, 20000], silent[0, 20000] = wrong, 0.0
    found, wanted = (repairer.process(x, 44100, mix) for x in (broken, silent))
    if np.isnan(wrong):
        assert np.array_equal(np.delete(found, 20000, 1), np.delete(wanted, 20000, 1))
    assert np.isfinite(np.delete(found, 20000, 1)).all()
    assert np.isfinite(np.delete(streamed(repairer, broken, mix, 44100, 512), 20000, 1)).all()
    broken = mix.copy()
    broken[1, 20000] = wrong
    assert np.isfinite(repairer.process(stem, 44100, broken)).all()


def test_the_same_input_gives_the_same_bits(repairer: Repairer) -> None:
    stem, mix = sound(0.8), sound(0.8, seed=1)
    assert repairer.process(stem, 44100, mix).tobytes() == repairer.process(stem, 44100, mix).tobytes()


def test_the_magnitude_limit_follows_the_mix_or_the_stem(repairer: Repairer) -> None:
    stem = np.array([[[[1.0]], [[0.0]]]], np.complex64)
    assert magnitude_limit(stem, np.array([[[[0.5]], [[2.0]]]], np.complex64)).ravel() == pytest.approx([1.0, 2.52])
    assert magnitude_limit(stem, None).ravel() == pytest.approx([4.0, 0.0])


def test_a_stream_is_as_new_after_a_flush(repairer: Repairer) -> None:
    stem = sound(0.5)
    stream = repairer.stream(44100, 2)
    first = np.concatenate([stream.process(stem), stream.flush()], axis=1)
    second = np.concatenate([stream.process(stem), stream.flush()], axis=1)
    assert first.tobytes() == second.tobytes()


def test_memory_is_bounded_by_the_segments_in_progress(lively_bundle: Path) -> None:
    """However long the file is, the input is ahead of the output by no more than the segments that the jobs hold."""
    config = SegmentConfig(20, 40)
    repairer = Repairer(bundle=lively_bundle, steps=1, jobs=2, segments=config)
    block, blocks = 4096, 600
    ahead, fed, given = [], 0, 0

    def chunks() -> Iterator[np.ndarray]:
        nonlocal fed
        for n in range(blocks):
            fed += block
            yield np.full((2, block), 0.1, np.float32) if n < 20 else np.zeros((2, block), np.float32)

    for out in repairer.process_chunks(chunks(), 44100, 2):
        given += out.shape[1]
        ahead.append(fed - given)
    assert given == block * blocks
    delay = 16 * 512 + 2048
    assert max(ahead) <= (repairer.jobs + 2) * config.longest * 512 + delay + 2 * block


def test_a_silent_pair_does_not_affect_the_others(lively_bundle: Path) -> None:
    repairer = Repairer(bundle=lively_bundle, jobs=1, linked=False)
    stem = sound(0.6, channels=4)
    stem[2:, :15000] = 0.0
    out = repairer.process(stem, 44100)
    for pair in (slice(0, 2), slice(2, 4)):
        assert out[pair].tobytes() == repairer.process(stem[pair], 44100).tobytes()


@pytest.mark.parametrize("rate", [11025, 22050, 48000, 96000])
def test_the_latency_holds_over_minutes(lively_bundle: Path, rate: int) -> None:
    """Streams silence, for which no model runs, until every combination of resampler bursts and chunks has occurred."""
    stream = Repairer(bundle=lively_bundle, steps=1).stream(rate, 1)
    block = np.zeros((1, 997), np.float32)
    for _ in range(60 * rate // 997):
        stream.process(block)


def test_segments_are_cut_in_pauses_and_not_before_attacks() -> None:
    levels = np.full(400, -20.0)
    levels[250:260] = -90.0
    config = SegmentConfig(100, 400)
    assert 250 <= best_cut(levels, config) <= 255, "inside the pause, away from the attack after it"
    assert best_cut(np.full(400, -20.0), config) == 400
    assert best_cut(levels[:90], config) == 90
    loud = hop_levels_db(np.ones((2, 1030), np.float32), 512)
    assert loud == pytest.approx([0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wet": 1.5}, r"wet=1\.5"), ({"steps": 0}, "steps=0"), ({"quality": "super"}, "'super'"),
        ({"jobs": 0}, "jobs=0"),
        ({"device": "tpu"}, "'tpu'"),
    ],
)  # fmt: skip
def test_an_invalid_option_is_an_error_that_names_it(lively_bundle: Path, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Repairer(bundle=lively_bundle, **options)


def test_an_invalid_array_is_an_error_that_says_why(repairer: Repairer) -> None:
    stem = sound(0.1)
    with pytest.raises(MixMismatchError, match="pass the 4410 samples"):
        repairer.process(stem, 44100, stem[:, :-5])
    with pytest.raises(OptionError, match="sample rate 4000"):
        repairer.process(stem, 4000)
    with pytest.raises(OptionError, match="channels, samples"):
        repairer.process(stem[None], 44100)
    with pytest.raises(OptionError, match="of type int16"):
        repairer.process((stem * 32767).astype(np.int16), 44100)
    with pytest.raises(OptionError, match="has 4410 channels"):
        repairer.process(stem.T, 44100)
    stream = repairer.stream(44100, 2, has_mix=True)
    with pytest.raises(MixMismatchError, match="pass the mix"):
        stream.process(stem)
    with pytest.raises(OptionError, match="block of shape"):
        stream.process(stem[0], stem[0])
    with pytest.raises(OptionError, match="of type int16"):
        stream.process((stem * 32767).astype(np.int16), stem)
