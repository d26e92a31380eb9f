"""The Python interface: presets by name, auto for arrays and streams as for files, and errors that say what to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import sound, streamed
from paths import DEMO, ROOT
from scipy.signal import butter, sosfiltfilt
from stemprover import AutoStream, Repairer, blend_presets, load_preset, render_file
from stemprover.engine.auto import preset_for
from stemprover.engine.errors import MixLeftOutError, MixMismatchError, OptionError, PresetError
from stemprover.engine.preset import SHIPPED
from stemprover.offline.analysis import analyse_pair
from stemprover.offline.pair import StemAndMix

NAMES = sorted(path.parent.name for path in SHIPPED.glob("*/preset.toml"))
BLENDS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=3)
SLOW = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def demo(kind: str, start_s: float = 0.0, seconds: float = 3.0) -> tuple[np.ndarray, np.ndarray, int]:
    """Stem and mix of the demo's excerpt and their rate; of the kind "dull" the true stem without its highs."""
    rate = soundfile.info(DEMO / "song.flac").samplerate
    name = "truth" if kind == "dull" else kind
    stem, mix = (
        soundfile.read(DEMO / f"{n}.flac", dtype="float32", start=int(start_s * rate), frames=int(seconds * rate))[0].T
        for n in (name, "song")
    )
    if kind == "dull":
        stem = sosfiltfilt(butter(10, 7000.0, fs=rate, output="sos"), stem).astype(np.float32)
    return np.ascontiguousarray(stem), np.ascontiguousarray(mix), rate


@SLOW
@given(BLENDS, st.booleans())
def test_a_preset_by_name_repairs_as_the_preset_itself(weights: dict[str, float], alone: bool) -> None:
    name = next(iter(weights)) if alone else ",".join(f"{name}={weight}" for name, weight in weights.items())
    preset = load_preset(name) if alone else blend_presets(weights)
    by_name, by_object = Repairer(name, jobs=1), Repairer(preset, jobs=1)
    assert by_name.preset == preset
    stem, mix = sound(0.5), sound(0.5, seed=1)
    assert by_name.process(stem, 44100, mix).tobytes() == by_object.process(stem, 44100, mix).tobytes()
    assert streamed(by_name, stem, mix, 44100, 700).tobytes() == streamed(by_object, stem, mix, 44100, 700).tobytes()


@pytest.mark.parametrize("turn", [str, Path, lambda folder: folder / "preset.toml"])
def test_a_preset_may_be_a_path(turn: Callable[[Path], str | Path]) -> None:
    folder = ROOT / "examples" / "presets" / "vocal-cleanup"
    assert Repairer(turn(folder)).preset == load_preset(folder)
    assert Repairer(turn(folder)).wet == 0.9


@SLOW
@given(st.sampled_from(["separated", "dull", "truth"]), st.sampled_from([0.0, 2.0, 4.0]), st.booleans())
def test_auto_chooses_and_repairs_an_array_as_the_same_audio_in_a_file(
    tmp_path: Path, run_cli: Callable, kind: str, start_s: float, with_mix: bool
) -> None:
    stem, mix, rate = demo(kind, start_s)
    for name, audio in (("stem", stem), ("song", mix)):
        soundfile.write(tmp_path / f"{name}.wav", audio.T, rate, subtype="FLOAT")
    file, song = tmp_path / "stem.wav", tmp_path / "song.wav" if with_mix else None
    repairer = Repairer("auto", jobs=1)
    repaired = repairer.process(stem, rate, mix=mix if with_mix else None)
    options = ["--preset", "auto", "--jobs", "1", "--overwrite", *([] if song is None else ["--mix", song])]
    assert run_cli("repair", file, "-o", tmp_path / "cli.wav", *options).code == 0
    report = render_file(file, tmp_path / "python.wav", repairer, mix=song, overwrite=True)
    assert report.notes[0] == preset_for(analyse_pair(StemAndMix.open(file, song))).note
    for name in ("cli", "python"):
        assert soundfile.read(tmp_path / f"{name}.wav", dtype="float32")[0].T.tobytes() == repaired.tobytes(), name


def test_a_file_needs_no_more_than_its_names(tmp_path: Path) -> None:
    """Auto with the mix, general without, as on the command line; a name, a preset, and plug-ins of the preset."""
    stem, mix, rate = demo("dull", seconds=2.0)
    for name, audio in (("stem", stem), ("song", mix)):
        soundfile.write(tmp_path / f"{name}.wav", audio.T, rate, subtype="FLOAT")

    def rendered(*arguments: object, **options: object) -> bytes:
        render_file(tmp_path / "stem.wav", tmp_path / "out.wav", *arguments, overwrite=True, **options)  # type: ignore[arg-type]
        return soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T.tobytes()

    song = tmp_path / "song.wav"
    assert rendered(mix=song) == Repairer("auto").process(stem, rate, mix).tobytes()
    assert rendered() == Repairer("general").process(stem, rate).tobytes()
    assert rendered("bleed", mix=song) == Repairer("bleed").process(stem, rate, mix).tobytes()
    folder = ROOT / "examples" / "presets" / "vocal-cleanup"
    cleaned = rendered(folder)
    assert cleaned == rendered(Repairer(folder)) == rendered(Repairer(wet=0.9), preset=load_preset(folder))
    assert cleaned != Repairer(folder).process(stem, rate).tobytes(), "arrays are repaired without the plug-ins"


def test_a_mix_that_is_required_and_does_not_fit_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    stem, mix, rate = demo("truth", seconds=3.0)
    for name, audio in (("stem", stem), ("rest", mix - stem)):
        soundfile.write(tmp_path / f"{name}.wav", audio.T, rate, subtype="FLOAT")
    with pytest.raises(MixLeftOutError, match="this looks like the rest of the song.*nothing was written"):
        render_file(tmp_path / "stem.wav", tmp_path / "out.wav", mix=tmp_path / "rest.wav", require_mix=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rest.wav", "stem.wav"]


def test_auto_opens_a_stream_that_chooses() -> None:
    stem, mix, rate = demo("dull", seconds=6.0)
    repairer = Repairer("auto", wet=0.5)
    stream = repairer.stream(rate, 2, has_mix=True, chunk_frames=32)
    assert isinstance(stream, AutoStream)
    assert (stream.preset.name, stream.wet) == ("general", 0.5)
    assert stream.latency_samples == Repairer().stream(rate, 2, chunk_frames=32).latency_samples
    deadline = time.monotonic() + 60.0
    while "dull-highs" not in stream.preset.name and time.monotonic() < deadline:
        for at in range(0, stem.shape[1], 8192):
            stream.process(stem[:, at : at + 8192], mix[:, at : at + 8192])
    assert "dull-highs" in stream.preset.name
    assert stream.wet == 0.5
    stream.close()


def test_auto_gives_a_stem_that_needs_no_repair_none_whatever_the_wet() -> None:
    stem, mix, rate = demo("truth", seconds=6.0)
    repairer = Repairer("auto", wet=1.0)
    assert repairer.process(stem, rate, mix).tobytes() == stem.tobytes()
    assert repairer.process(stem[0], rate, mix[0]).tobytes() == stem[0].tobytes()
    assert repairer.process(stem[:, :0], rate, mix[:, :0]).shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: Repairer("blead"), PresetError, "there is no preset 'blead'; did you mean 'bleed'"),
        (lambda: Repairer("bleed=much"), OptionError, "'bleed=much' is not NAME=WEIGHT"),
        (lambda: Repairer("nowhere/preset.toml"), PresetError, "nowhere/preset.toml: no such file"),
        (lambda: Repairer(5), OptionError, "preset 5 is not a preset"),  # type: ignore[arg-type]
        (lambda: Repairer("bleed", blend={}), OptionError, "a preset or a blend, not both"),
        (
            lambda: list(Repairer("auto").process_chunks([], 44100, 2)), OptionError,
            "auto chooses by the whole stem, not by chunks; use process, render_file or stream",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_a_preset_is_an_error_that_says_why(call: Callable, kind: type, text: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)


MIXES = [
    ((1, 4410), "the mix has 1 x 4410 and the stem 2 x 4410 (channels x samples); convert the mix to 2 channels"),
    (
        (2, 4000),
        "the mix has 2 x 4000 and the stem 2 x 4410 (channels x samples); pass the 4410 samples of the mix that belong "
        "to the stem",
    ),
]


@pytest.mark.parametrize(("shape", "text"), MIXES)
@pytest.mark.parametrize("preset", ["general", "auto"])
def test_a_mix_that_does_not_fit_is_an_error_with_both_shapes(shape: tuple[int, int], text: str, preset: str) -> None:
    stem, mix = sound(0.1), np.zeros(shape, np.float32)
    repairer = Repairer(preset, jobs=1)
    stream = repairer.stream(44100, 2, has_mix=True)
    for process in (lambda: repairer.process(stem, 44100, mix), lambda: stream.process(stem, mix)):
        with pytest.raises(MixMismatchError) as caught:
            process()
        assert str(caught.value) == text
    with pytest.raises(MixMismatchError, match="convert the mix to mono"):
        repairer.process(stem[0], 44100, stem)
