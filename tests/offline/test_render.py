"""Whole renders with a fake model of known effect: formats are kept, samples are exact, stem and mix are in step."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stemprover.engine.errors import MixMismatchError, ModelError, OptionError
from stemprover.engine.preset import check_preset
from stemprover.offline.audiofile import BLOCK_SAMPLES, probe
from stemprover.offline.render import render_file

KINDS = [
    ("a.wav", "WAV", "PCM_U8"), ("a.wav", "WAV", "PCM_16"), ("a.wav", "WAV", "PCM_24"), ("a.wav", "WAV", "PCM_32"),
    ("a.wav", "WAV", "FLOAT"), ("a.wav", "WAV", "DOUBLE"), ("a.wav", "WAV", "ULAW"), ("a.wav", "WAV", "ALAW"),
    ("a.wav", "WAVEX", "PCM_24"), ("a.wav", "WAVEX", "FLOAT"), ("a.wav", "RF64", "PCM_16"), ("a.wav", "RF64", "FLOAT"),
    ("a.w64", "W64", "PCM_24"), ("a.rf64", "RF64", "PCM_24"),
    ("a.aiff", "AIFF", "PCM_S8"), ("a.aif", "AIFF", "PCM_16"), ("a.aiff", "AIFF", "PCM_24"),
    ("a.aiff", "AIFF", "PCM_32"), ("a.aifc", "AIFF", "FLOAT"), ("a.aiff", "AIFF", "DOUBLE"),
    ("a.flac", "FLAC", "PCM_S8"), ("a.flac", "FLAC", "PCM_16"), ("a.flac", "FLAC", "PCM_24"),
    ("a.caf", "CAF", "PCM_24"), ("a.caf", "CAF", "FLOAT"), ("a.caf", "CAF", "ALAC_16"), ("a.caf", "CAF", "ALAC_24"),
    ("a.au", "AU", "PCM_16"), ("a.snd", "AU", "PCM_24"), ("a.strange", "WAV", "PCM_16"),
]  # fmt: skip


def native(path: Path) -> np.ndarray:
    """All samples (T, C) as stored."""
    info = soundfile.info(path)
    dtype = "float64" if info.subtype in ("FLOAT", "DOUBLE") else "int32"
    return soundfile.read(path, dtype=dtype, always_2d=True)[0]


@pytest.mark.parametrize(("name", "container", "subtype"), KINDS)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_an_identity_repair_keeps_every_sample_and_the_format(make_audio, tmp_path, name, container, subtype, channels):
    source = make_audio(name, container=container, subtype=subtype, channels=channels, rate=32000, seconds=2.1)
    target = tmp_path / ("out" + source.suffix)
    report = render_file(source, target, FakeRepairer())
    old, new = soundfile.info(source), soundfile.info(target)
    for key in ("format", "subtype", "samplerate", "channels", "frames"):
        assert getattr(new, key) == getattr(old, key), key
    np.testing.assert_array_equal(native(target), native(source))
    assert report.correction_db is None
    assert report.notes == ()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_samples_of_any_length_are_kept(make_audio, tmp_path, data):
    subtype = data.draw(st.sampled_from(["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]))
    channels = data.draw(st.sampled_from([1, 2, 3]))
    samples = data.draw(st.one_of(st.integers(1, 5), st.integers(BLOCK_SAMPLES - 2, BLOCK_SAMPLES + 3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    levels = (
        rng.standard_normal((channels, samples)) * 3
        if subtype in ("FLOAT", "DOUBLE")
        else rng.integers(-(2**31), 2**31, (channels, samples)).astype(np.int32)
    )
    source = make_audio("in.wav", levels=levels, subtype=subtype)
    render_file(source, tmp_path / "out.wav", FakeRepairer(chunk_samples=1000), overwrite=True)
    np.testing.assert_array_equal(native(tmp_path / "out.wav"), native(source))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_a_gain_is_applied_exactly(make_audio, tmp_path, subtype):
    source = make_audio("in.wav", subtype=subtype)
    report = render_file(source, tmp_path / "out.wav", FakeRepairer(gain=0.5))
    old, new = (soundfile.read(p)[0] for p in (source, tmp_path / "out.wav"))
    step = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-23}.get(subtype, 1e-7)
    np.testing.assert_allclose(new, 0.5 * old, atol=0.51 * step)
    assert report.correction_db == pytest.approx(-6.02, abs=0.1)


def test_float_samples_over_full_scale_are_kept(make_audio, tmp_path):
    levels = np.array([[0.5, 2.0, -3.0]], np.float32)
    source = make_audio("in.wav", subtype="FLOAT", levels=levels)
    report = render_file(source, tmp_path / "out.wav", FakeRepairer(gain=2.0))
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.wav", dtype="float32")[0], [1.0, 4.0, -6.0])
    assert report.notes == ()


def test_integers_over_full_scale_are_clipped_and_reported(make_audio, tmp_path):
    levels = np.array([[0.25, 0.75, -0.75, 0.1]], np.float32)
    source = make_audio("in.wav", subtype="PCM_16", levels=levels)
    report = render_file(source, tmp_path / "out.wav", FakeRepairer(gain=2.0))
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav")[0], [0.5, 1.0, -1.0, 0.2], atol=1e-4)
    [note] = report.notes
    assert note.startswith(
        "2 samples went over full scale (by up to 3.5 dB) and were clipped; turn the stem down first, or convert it to "
        "32-bit float WAV"
    )


@pytest.mark.parametrize(
    ("name", "container", "subtype", "rate"),
    [
        ("a.ogg", "OGG", "VORBIS", 44100),
        ("a.opus", "OGG", "OPUS", 48000),
        ("a.mp3", "MP3", "MPEG_LAYER_III", 44100),
        ("a.mp3", "MP3", "MPEG_LAYER_III", 22050),
    ],
)
@pytest.mark.parametrize("samples", [1, 1000, 50001])
def test_lossy_files_keep_their_length_and_position_and_are_reported(
    make_audio, tmp_path, name, container, subtype, rate, samples
):
    sine = 0.5 * np.sin(np.arange(samples) * 2 * np.pi * 440 / rate) * np.ones((2, 1))
    source = make_audio(name, container=container, subtype=subtype, rate=rate, levels=sine)
    target = tmp_path / ("out" + source.suffix)
    report = render_file(source, target, FakeRepairer())
    assert soundfile.info(target).frames == samples
    assert (soundfile.info(target).format, soundfile.info(target).subtype) == (container, subtype)
    assert report.notes == (f"re-encoded as {subtype}, which is lossy",)
    if samples > 1000:
        old, new = (soundfile.read(p)[0][2000:-2000, 0] for p in (source, target))
        assert np.mean((new - old) ** 2) < 1e-3 * np.mean(old**2), "a shift of one sample would be more"


@pytest.mark.parametrize(
    ("source_name", "kind", "target_name", "expected"),
    [
        ("a.flac", "PCM_24", "b.wav", ("WAV", "PCM_24")),
        ("a.wav", "PCM_U8", "b.flac", ("FLAC", "PCM_S8")),
        ("a.ogg", "VORBIS", "b.wav", ("WAV", "PCM_24")),
        ("a.wav", "FLOAT", "b.aiff", ("AIFF", "FLOAT")),
        ("a.wav", "FLOAT", "b.ogg", ("OGG", "VORBIS")),
        ("a.wav", "DOUBLE", "b.caf", ("CAF", "DOUBLE")),
        ("a.caf", "ALAC_24", "b.wav", ("WAV", "PCM_24")),
        ("a.wav", "PCM_16", "b.mp3", ("MP3", "MPEG_LAYER_III")),
        ("a.wav", "IMA_ADPCM", "b.flac", ("FLAC", "PCM_24")),
    ],
)
def test_another_extension_converts_without_loss_if_possible(
    make_audio, tmp_path, source_name, kind, target_name, expected
):
    source = make_audio(source_name, subtype=kind)
    report = render_file(source, tmp_path / target_name, FakeRepairer())
    info = soundfile.info(tmp_path / target_name)
    assert (info.format, info.subtype) == expected
    assert info.frames == soundfile.info(source).frames
    assert report.notes[0].startswith("converted from ")
    is_lossy = expected[1] in ("VORBIS", "MPEG_LAYER_III")
    assert report.notes[0].endswith(", which is lossy; use .flac or .wav to lose nothing") == is_lossy
    if not is_lossy and kind != "VORBIS":
        np.testing.assert_array_equal(soundfile.read(tmp_path / target_name)[0], soundfile.read(source)[0])


def test_big_endian_floats_stay_big_endian(make_audio, tmp_path):
    levels = soundfile.read(make_audio())[0]
    source, target = tmp_path / "rifx.wav", tmp_path / "out.wav"
    soundfile.write(source, levels, 44100, "FLOAT", endian="BIG")
    render_file(source, target, FakeRepairer())
    assert target.read_bytes()[:4] == b"RIFX"
    np.testing.assert_array_equal(native(target), native(source))


def test_tags_that_a_file_type_cannot_hold_are_reported(make_audio, tmp_path):
    source = tmp_path / "a.flac"
    with soundfile.SoundFile(source, "w", 44100, 2) as file:
        file.title = "One"
        file.write(soundfile.read(make_audio())[0])
    report = render_file(source, tmp_path / "out.w64", FakeRepairer())
    assert report.notes[1:] == ("W64 files have no tags: title, artist and the like were dropped",)
    assert render_file(source, tmp_path / "out.wav", FakeRepairer()).notes[1:] == ()
    with soundfile.SoundFile(tmp_path / "out.wav") as file:
        assert file.title == "One"


@pytest.mark.parametrize(
    ("kind", "target_name", "message"),
    [
        ("ALAC_32", "b.caf", r"CAF ALAC_32 can be read but not written; choose another output, such as b.wav"),
        ("FLOAT", "b.flac", r"\.flac cannot hold the samples of .*a.wav \(FLOAT\) without loss; use .wav"),
        ("PCM_16", "b.xyz", r"cannot write \.xyz; use \.wav"),
        ("PCM_16", "b.opus", r"OGG cannot hold 2 channels at 44100 Hz as OPUS; choose another file type"),
        ("IMA_ADPCM", "b.wav", r"WAV IMA_ADPCM can be read but not written; choose another output, such as b.flac"),
    ],
)
def test_formats_that_cannot_hold_the_samples_are_refused(make_audio, tmp_path, kind, target_name, message):
    source = make_audio("a.caf" if kind == "ALAC_32" else "a.wav", subtype=kind)
    with pytest.raises(OptionError, match=message):
        render_file(source, tmp_path / target_name, FakeRepairer())
    assert list(tmp_path.iterdir()) == [source]


def test_the_mix_is_passed_with_the_stem(make_audio, tmp_path):
    rng = np.random.default_rng(0)
    one, other = 0.1 * rng.standard_normal((2, 2, 3 * 44100))
    stem, song = make_audio("stem.wav", levels=one), make_audio("song.flac", levels=one + other)
    fake = FakeRepairer(gain=0.0, mix_gain=1.0)
    report = render_file(stem, tmp_path / "out.wav", fake, mix=song)
    assert fake.had_mix
    np.testing.assert_array_equal(native(tmp_path / "out.wav"), native(song))
    assert report.notes == ()


def test_the_role_is_in_the_stems_name_unless_it_is_given(make_audio, tmp_path):
    fake, roles = FakeRepairer(), []
    for name, told in (("stem.wav", None), ("song_(Vocals).wav", None), ("song_(Vocals).wav", "drums")):
        render_file(make_audio(name), tmp_path / "out.flac", fake, role=told, overwrite=True)
        roles.append(fake.role)
    assert roles == [None, "vocals", "drums"]


@pytest.mark.parametrize(
    ("extra", "note"),
    [
        (100, "mix is 100 samples longer than the stem: its end is ignored"),
        (
            -22050,
            "the mix does not cover 22050 samples at the end of the stem: repaired as if nothing else played there",
        ),
    ],
)
def test_a_mix_of_nearly_the_same_length_is_accepted(make_audio, tmp_path, extra, note):
    stem = make_audio("stem.wav", seconds=2, subtype="FLOAT")
    sound = soundfile.read(stem, dtype="float32")[0].T
    whole = sound + np.float32(0.5) * sound[:, ::-1]
    song = make_audio("song.wav", levels=np.pad(whole, ((0, 0), (0, 100)))[:, : 88200 + extra], subtype="FLOAT")
    fake = FakeRepairer()
    report = render_file(stem, tmp_path / "out.wav", fake, mix=song)
    assert report.notes == (note,)
    filled = min(88200, 88200 + extra)
    np.testing.assert_array_equal(fake.mix[:, :filled], whole[:, :filled])
    np.testing.assert_array_equal(fake.mix[:, filled:], sound[:, filled:])


@pytest.mark.parametrize(
    ("song", "message"),
    [
        ({"seconds": 2.51}, r"song.wav is 0:02.510 long and .*stem.wav is 0:02.000 long; use the mix this stem"),
        ({"seconds": 1.4}, r"song.wav is 0:01.400 long"),
        ({"rate": 48000}, r"song.wav has 48000 Hz and .*stem.wav has 44100 Hz; convert the mix to 44100 Hz"),
        ({"channels": 6}, r"song.wav has 6 channels and .* has 2 channels \(stereo\); convert the mix to 2"),
    ],
)
def test_a_mix_that_does_not_match_is_refused(make_audio, tmp_path, song, message):
    stem = make_audio("stem.wav", seconds=2)
    with pytest.raises(MixMismatchError, match=message):
        render_file(stem, tmp_path / "out.wav", FakeRepairer(), mix=make_audio("song.wav", **{"seconds": 2, **song}))
    assert not (tmp_path / "out.wav").exists()


def test_a_presets_plugins_run_on_stem_and_mix_before_and_on_the_stem_after_the_repair(make_audio, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "preset.toml").write_text(
        'name = "mine"\ntitle = "Mine"\ndescription = "My own."\nfor = "x"\n'
        '[[before]]\nplugin = "Gain"\ngain_db = 6.0\n[[after]]\nplugin = "Invert"\n'
    )
    one, other = 0.1 * np.random.default_rng(0).standard_normal((2, 2, 3 * 44100)).astype(np.float32)
    stem = make_audio("stem.wav", subtype="FLOAT", levels=one)
    song = make_audio("song.wav", subtype="FLOAT", levels=one + other)
    fake = FakeRepairer()
    render_file(stem, tmp_path / "out.wav", fake, mix=song, preset=check_preset(folder))
    gain = 10 ** (6 / 20)
    stem_in, song_in, out = (soundfile.read(p)[0].T for p in (stem, song, tmp_path / "out.wav"))
    np.testing.assert_allclose(fake.stem, gain * stem_in, rtol=1e-5)
    np.testing.assert_allclose(fake.mix, gain * song_in, rtol=1e-5)
    np.testing.assert_allclose(out, -gain * stem_in, rtol=1e-5)


def test_non_finite_samples_from_the_model_are_not_written(make_audio, tmp_path):
    with pytest.raises(ModelError, match=r"non-finite samples \(NaN or infinite\) near 0:00.000; nothing was written"):
        render_file(make_audio(), tmp_path / "out.wav", FakeRepairer(nan_at=5))
    assert [p.name for p in tmp_path.iterdir()] == ["stem.wav"]


def test_progress_rises_to_the_whole_length(make_audio, tmp_path):
    seen: list[tuple[float, float]] = []
    render_file(make_audio(seconds=3), tmp_path / "o.wav", FakeRepairer(), progress=lambda *now: seen.append(now))
    assert seen == sorted(seen)
    assert len(seen) > 3
    assert seen[-1] == (3.0, 3.0)


def test_memory_does_not_grow_with_the_length(make_audio, tmp_path):
    most = []
    for seconds in (30, 120):
        fake = FakeRepairer()
        source = make_audio(f"{seconds}.wav", seconds=seconds, rate=22050, channels=1, subtype="PCM_U8")
        render_file(source, tmp_path / f"out{seconds}.wav", fake)
        most.append(fake.most_waiting_samples)
        assert max(chunk.shape[1] for chunk in fake.seen) <= BLOCK_SAMPLES
    assert max(most) <= BLOCK_SAMPLES + FakeRepairer().hold_samples + FakeRepairer().chunk_samples


def test_a_wav_of_more_than_4_gb_becomes_rf64(tmp_path, make_audio, monkeypatch):
    from dataclasses import replace

    from stemprover.offline.formats import choose_format

    info = replace(probe(make_audio("a.flac", subtype="PCM_24")), samples=1 << 30)
    chosen = choose_format(info, tmp_path / "b.wav")
    assert (chosen.container, chosen.note) == ("RF64", "written as RF64, because WAV is limited to 4 GB")
    with pytest.raises(OptionError, match=r"AIFF is limited to 4 GB and .* use .wav \(written as RF64\)"):
        choose_format(info, tmp_path / "b.aiff")
    assert choose_format(info, tmp_path / "b.w64").container == "W64"


def test_the_report_is_one_readable_line(make_audio, tmp_path):
    report = render_file(make_audio(seconds=1), tmp_path / "out.wav", FakeRepairer(gain=0.5))
    line = report.render()
    assert "\n" not in line
    for part in ("stem.wav -> ", "out.wav: 0:01.000 in ", "x real time", "correction -6.0 dB"):
        assert part in line
