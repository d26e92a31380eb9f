"""`--preset auto`, for files and live streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from paths import DEMO
from scipy.signal import butter, sosfiltfilt
from stemprover.engine.auto import AutoStream
from stemprover.engine.errors import ModelError, OptionError
from stemprover.engine.preset import Preset
from stemprover.engine.repair import SEPARATED_BLEND, Repairer
from stemprover.offline.auto import AutoChoice
from stemprover.offline.pair import StemAndMix


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("separated", "truth", "song"):
        audio, rate = soundfile.read(DEMO / f"{name}.flac", dtype="int16", frames=6 * 44100)
        folder = tmp_path if name == "song" else tmp_path / "stems"
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{name}.wav", audio, rate)
        if name == "truth":
            soundfile.write(folder / "dull.wav", dull(audio.T / 32768.0).T, rate)
    return tmp_path


def dull(audio: np.ndarray) -> np.ndarray:
    """The audio without its highs: a fault that is not a separator's."""
    return sosfiltfilt(butter(10, 7000.0, fs=44100, output="sos"), audio).astype(np.float32)


def demo(name: str, seconds: int) -> np.ndarray:
    """Stem or mix of the demo, or the true stem without its highs."""
    audio = soundfile.read(DEMO / f"{'truth' if name == 'dull' else name}.flac", dtype="float32")[0].T
    return (dull(audio) if name == "dull" else audio)[:, : seconds * 44100]


def test_auto_repairs_faulty_stems_and_leaves_true_ones_unchanged(files: Path, run_cli: Callable) -> None:
    out = files / "out"
    arguments = ("--mix", files / "song.wav", "--preset", "auto", "--quality", "draft")
    result = run_cli("repair", files / "stems", "-o", out, *arguments)
    assert result.code == 0, result.err
    assert "dull-highs=" in result.err
    assert "dull.wav: using " in result.err
    note = "repaired with general and a Wiener filter"
    assert f"separated.wav: looks like the output of a mask-based separator: {note}" in result.err
    assert "truth.wav: nothing found that needs repair" in result.err
    for name in ("separated", "dull"):
        before, after = (soundfile.read(folder / f"{name}.wav")[0] for folder in (files / "stems", out))
        assert np.abs(after - before).max() > 1e-3
    kept, same = (soundfile.read(folder / "truth.wav")[0] for folder in (files / "stems", out))
    assert np.array_equal(kept, same), "a true stem must stay unchanged"


def test_a_separators_stem_is_repaired_with_general_and_a_wiener_filter(files: Path) -> None:
    made: list[Preset] = []

    def make(preset: Preset) -> Repairer:
        made.append(preset)
        return Repairer(preset, jobs=1)

    choice, names = AutoChoice(make), ("separated", "separated", "truth")
    found = [choice(StemAndMix.open(files / "stems" / f"{name}.wav", files / "song.wav")) for name in names]
    assert [(preset.name, preset.separated) for preset in made] == [("general", True), ("auto", False)]
    assert found[0][0] is found[1][0] is not found[2][0], "equal choices in a row share a repairer"
    assert (found[0][0].correction_blend, found[2][0].correction_blend) == (SEPARATED_BLEND, None)


def test_the_default_is_auto_with_the_mix_and_general_without(files: Path, run_cli: Callable) -> None:
    arguments = "repair", files / "stems" / "separated.wav", "-o", files / "default.wav", "--overwrite"
    output = [run_cli(*arguments, *more, repairer=FakeRepairer()).err for more in ((), ("--mix", files / "song.wav"))]
    note = "separated.wav: looks like the output of a mask-based separator"
    assert [note in text for text in output] == [False, True]
    assert output[0] == "Note: general needs the mix: give --mix; without it hardly anything is repaired\n"


def test_auto_without_the_mix_leaves_a_true_stem_unchanged(files: Path, run_cli: Callable) -> None:
    stem = files / "stems" / "truth.wav"
    result = run_cli("repair", stem, "-o", files / "out.wav", "--preset", "auto", "--quality", "draft")
    assert result.code == 0, result.err
    note = "nothing found, but bleed cannot be detected without the mix; give the mix too"
    assert result.err == f"Note: truth.wav: {note}\n"
    kept, same = (soundfile.read(path, dtype="int16")[0] for path in (stem, files / "out.wav"))
    assert np.array_equal(kept, same)


def test_auto_and_a_blend_exclude_each_other(files: Path, run_cli: Callable) -> None:
    stem = files / "stems" / "truth.wav"
    result = run_cli("repair", stem, "-o", files / "out.wav", "--preset", "auto", "--blend", "bleed=1")
    assert result.code == 2
    assert "exclude each other" in result.err


def test_an_unreadable_file_does_not_stop_the_others(files: Path, run_cli: Callable) -> None:
    (files / "stems" / "broken.wav").write_bytes(b"RIFF")
    result = run_cli("repair", files / "stems", "-o", files / "out", "--preset", "auto", "--quality", "draft")
    assert result.code == 2
    assert "broken.wav" in result.err
    assert (files / "out" / "truth.wav").is_file()


@pytest.mark.parametrize(("name", "preset"), [("dull", "dull-highs"), ("separated", "general"), ("truth", "auto")])
def test_a_stream_chooses_its_preset_by_itself(name: str, preset: str) -> None:
    signals = {n: demo(n, 9) for n in (name, "song")}
    made = []

    def make(chosen: Preset) -> Repairer:
        made.append(chosen.name)
        return Repairer(chosen, jobs=1)

    stream = AutoStream(44100, 2, has_mix=True, chunk_frames=32, make_repairer=make, wait=True)
    out, step = [], 4096
    for at in range(0, signals[name].shape[1], step):
        out.append(stream.process(signals[name][:, at : at + step], signals["song"][:, at : at + step]))
    out.append(stream.flush())
    stream.close()
    repaired = np.concatenate(out, axis=1)[:, stream.latency_samples :]
    assert repaired.shape == signals[name].shape
    assert preset in stream.preset.name
    note = "looks like the output of a mask-based separator: repaired with general and a Wiener filter"
    assert (stream.preset.note == note) == (name == "separated")
    assert len(made) <= 4, "a few choices, not one for each block"
    last = slice(-4 * 44100, None)
    correction = (repaired - signals[name])[:, last]
    if name == "truth":
        assert not correction.any(), "a true stem must stay unchanged"
    else:
        assert np.abs(correction).max() > 1e-3


def test_a_preset_that_cannot_be_loaded_leaves_the_present_one() -> None:
    stem, mix = (demo(name, 5) for name in ("dull", "song"))

    def make(chosen: Preset) -> Repairer:
        if chosen.name != "general":
            raise ModelError("no such adapter")
        return Repairer(chosen, jobs=1)

    stream = AutoStream(44100, 2, has_mix=True, chunk_frames=32, make_repairer=make, wait=True)
    for at in range(0, stem.shape[1], 8192):
        stream.process(stem[:, at : at + 8192], mix[:, at : at + 8192])
    assert isinstance(stream.error, ModelError)
    assert stream.preset.name == "general"


def test_no_block_waits_for_a_model_to_load() -> None:
    """Blocks come back while a model loads; it is swapped in later."""
    stem, mix = (demo(name, 8) for name in ("dull", "song"))
    may_load, asked = threading.Event(), threading.Event()

    def make(chosen: Preset) -> Repairer:
        if chosen.name != "general":
            asked.set()
            may_load.wait(60)
        return Repairer(chosen, jobs=1)

    with AutoStream(44100, 2, has_mix=True, chunk_frames=32, make_repairer=make) as stream:
        for at in range(0, 6 * 44100, 8192):
            assert stream.process(stem[:, at : at + 8192], mix[:, at : at + 8192]).shape == (2, 8192)
        assert asked.is_set()
        assert stream.preset.name == "general"
        may_load.set()
        deadline = time.monotonic() + 30.0
        while stream.preset.name == "general" and time.monotonic() < deadline:
            stream.process(stem[:, at : at + 512], mix[:, at : at + 512])
        assert "dull-highs" in stream.preset.name
    with pytest.raises(OptionError, match="was closed"):
        stream.process(stem[:, :512], mix[:, :512])
