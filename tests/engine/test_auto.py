"""`--preset auto`."""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from places import DEMO
from scipy.signal import butter, sosfiltfilt
from stemprover.bridge.server.registry import BridgeConfig, Hub
from stemprover.engine.auto import AutoStream
from stemprover.engine.errors import ModelError, OptionError
from stemprover.engine.preset import Preset
from stemprover.engine.repair import BOTH_SIDES, Repairer
from stemprover.offline.auto import AutoChoice


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


def dull(sound: np.ndarray) -> np.ndarray:
    """Its highs cut off, which is no separator's mask."""
    return sosfiltfilt(butter(10, 7000.0, fs=44100, output="sos"), sound).astype(np.float32)


def demo(name: str, seconds: int) -> np.ndarray:
    """Stem or song of the demo, or the true stem with its highs cut off."""
    sound = soundfile.read(DEMO / f"{'truth' if name == 'dull' else name}.flac", dtype="float32")[0].T
    return (dull(sound) if name == "dull" else sound)[:, : seconds * 44100]


def test_auto_repairs_what_is_faulty_and_leaves_the_rest(files: Path, run_cli: Callable) -> None:
    out = files / "out"
    arguments = ("--mix", files / "song.wav", "--preset", "auto", "--quality", "draft")
    result = run_cli("repair", files / "stems", "-o", out, *arguments)
    assert result.code == 0, result.err
    assert "dull-highs=" in result.err
    assert "dull.wav: chose " in result.err
    assert "separated.wav: a separator's mask left this of the song; chose general" in result.err
    assert "truth.wav: nothing was found" in result.err
    for name in ("separated", "dull"):
        before, after = (soundfile.read(folder / f"{name}.wav")[0] for folder in (files / "stems", out))
        assert np.abs(after - before).max() > 1e-3
    kept, same = (soundfile.read(folder / "truth.wav")[0] for folder in (files / "stems", out))
    assert np.array_equal(kept, same), "a true stem stays as it is"


def test_a_separators_stem_is_repaired_by_way_of_the_rest_too_where_there_is_time(files: Path) -> None:
    made: list[Preset] = []

    def make(preset: Preset) -> Repairer:
        made.append(preset)
        return Repairer(preset, jobs=1)

    choice, names = AutoChoice(make), ("separated", "separated", "truth")
    found = [choice(files / "stems" / f"{name}.wav", files / "song.wav") for name in names]
    assert [(preset.name, preset.separated) for preset in made] == [("general", True), ("auto", False)]
    assert found[0][0] is found[1][0] is not found[2][0], "equal choices that follow each other share a repairer"
    assert (found[0][0].shares, found[2][0].shares) == (BOTH_SIDES, None)
    options: dict[str, object] = {}
    hub = Namespace(config=BridgeConfig(make_repairer=lambda preset, **given: options.update(given)))
    Hub._make(hub, made[0], "standard")  # type: ignore[arg-type]
    assert options["both_sides"] is False, "a live stream has no time for it"


def test_auto_is_what_is_taken_with_the_song_and_general_without(files: Path, run_cli: Callable) -> None:
    given = "repair", files / "stems" / "separated.wav", "-o", files / "default.wav", "--overwrite"
    said = [run_cli(*given, *more, repairer=FakeRepairer()).err for more in ((), ("--mix", files / "song.wav"))]
    assert ["chose" in text for text in said] == [False, True]
    assert "separated.wav: a separator's mask left this of the song" in said[1]


def test_auto_without_the_song_leaves_alone_what_it_is_not_sure_of(files: Path, run_cli: Callable) -> None:
    stem = files / "stems" / "truth.wav"
    result = run_cli("repair", stem, "-o", files / "out.wav", "--preset", "auto", "--quality", "draft")
    assert result.code == 0, result.err
    assert "truth.wav: nothing was found" in result.err
    kept, same = (soundfile.read(path, dtype="int16")[0] for path in (stem, files / "out.wav"))
    assert np.array_equal(kept, same)


def test_auto_and_a_blend_exclude_each_other(files: Path, run_cli: Callable) -> None:
    stem = files / "stems" / "truth.wav"
    result = run_cli("repair", stem, "-o", files / "out.wav", "--preset", "auto", "--blend", "bleed=1")
    assert result.code == 2
    assert "exclude each other" in result.err


def test_a_bad_file_does_not_stop_the_others(files: Path, run_cli: Callable) -> None:
    (files / "stems" / "broken.wav").write_bytes(b"RIFF")
    result = run_cli("repair", files / "stems", "-o", files / "out", "--preset", "auto", "--quality", "draft")
    assert result.code == 2
    assert "broken.wav" in result.err
    assert (files / "out" / "truth.wav").is_file()


@pytest.mark.parametrize(("name", "preset"), [("dull", "dull-highs"), ("separated", "general"), ("truth", "general")])
def test_a_stream_chooses_by_itself(name: str, preset: str) -> None:
    sounds = {n: demo(n, 12) for n in (name, "song")}
    made = []

    def make(chosen: Preset) -> Repairer:
        made.append(chosen.name)
        return Repairer(chosen, jobs=1)

    stream = AutoStream(44100, 2, has_mix=True, chunk_frames=32, make_repairer=make, wait=True)
    out, step = [], 4096
    for at in range(0, sounds[name].shape[1], step):
        out.append(stream.process(sounds[name][:, at : at + step], sounds["song"][:, at : at + step]))
    out.append(stream.flush())
    stream.close()
    repaired = np.concatenate(out, axis=1)[:, stream.latency_samples :]
    assert repaired.shape == sounds[name].shape
    assert preset in stream.preset.name
    assert ("separator's mask" in stream.preset.note) == (name == "separated")
    assert len(made) <= 4, "a few choices, not one for every block"
    last = slice(-4 * 44100, None)
    change, sound = (repaired - sounds[name])[:, last], sounds[name][:, last]
    if name == "truth":
        assert np.sum(sound**2) > 1e4 * np.sum(change**2), "nothing is wrong, and next to nothing is done"
    else:
        assert np.abs(change).max() > 1e-3


def test_a_preset_that_cannot_be_had_leaves_the_present_one() -> None:
    stem, song = (demo(name, 5) for name in ("dull", "song"))

    def make(chosen: Preset) -> Repairer:
        if chosen.name != "general":
            raise ModelError("no such adapter")
        return Repairer(chosen, jobs=1)

    stream = AutoStream(44100, 2, has_mix=True, chunk_frames=32, make_repairer=make, wait=True)
    for at in range(0, stem.shape[1], 8192):
        stream.process(stem[:, at : at + 8192], song[:, at : at + 8192])
    assert isinstance(stream.error, ModelError)
    assert stream.preset.name == "general"


def test_no_block_waits_for_a_live_choice() -> None:
    """A model that takes its time to load is let in later; what goes in comes out all the same, block by block."""
    stem, song = (demo(name, 8) for name in ("dull", "song"))
    may_load, asked = threading.Event(), threading.Event()

    def make(chosen: Preset) -> Repairer:
        if chosen.name != "general":
            asked.set()
            may_load.wait(60)
        return Repairer(chosen, jobs=1)

    with AutoStream(44100, 2, has_mix=True, chunk_frames=32, make_repairer=make) as stream:
        for at in range(0, 6 * 44100, 8192):
            assert stream.process(stem[:, at : at + 8192], song[:, at : at + 8192]).shape == (2, 8192)
        assert asked.is_set()
        assert stream.preset.name == "general"
        may_load.set()
        deadline = time.monotonic() + 30.0
        while stream.preset.name == "general" and time.monotonic() < deadline:
            stream.process(stem[:, at : at + 512], song[:, at : at + 512])
        assert "dull-highs" in stream.preset.name
    with pytest.raises(OptionError, match="was closed"):
        stream.process(stem[:, :512], song[:, :512])
