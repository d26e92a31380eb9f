"""Clean stems of every class of instrument: the MIDI phrases, and the synthesised classes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from stemprover.engine.train.corpus import instruments, packages
from stemprover.engine.train.corpus.instruments import (
    CLASSES,
    CLIP_S,
    DRUMS,
    PROGRAMS,
    breathy_voice,
    phrase_events,
    synth_without_highs,
)
from stemprover.engine.train.corpus.midi import write_midi
from stemprover.engine.train.corpus.sources import SAMPLE_RATE, CorpusError
from stemprover.engine.train.fit_detectors import print_classes


def read_track(data: bytes) -> list[tuple[int, bytes]]:
    """(ticks, message) of a MIDI file's only track, without meta events."""
    kind, size, form, tracks, ticks = struct.unpack_from(">4sIHHH", data)
    assert (kind, size, form, tracks, ticks) == (b"MThd", 6, 0, 1, 1000)
    assert data[14:18] == b"MTrk"
    assert struct.unpack_from(">I", data, 18)[0] == len(data) - 22
    at, now, found = 22, 0, []
    while at < len(data):
        delta = 0
        while True:
            delta = delta << 7 | data[at] & 0x7F
            at += 1
            if not data[at - 1] & 0x80:
                break
        now += delta
        status = data[at]
        length = 3 + data[at + 2] if status == 0xFF else 2 if status & 0xF0 == 0xC0 else 3
        if status != 0xFF:
            found.append((now, data[at : at + length]))
        at += length
    return found


@given(times=st.lists(st.floats(0, 400), max_size=30))
def test_a_midi_file_keeps_its_times(times: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("midi") / "a.mid"
    write_midi([(t, bytes([0x90, 60, 100])) for t in times], path)
    assert [at for at, _ in read_track(path.read_bytes())] == sorted(round(t * 1000) for t in times)


@pytest.mark.parametrize("name", [*PROGRAMS, *DRUMS])
def test_phrases_stay_in_their_clips_and_on_their_instruments(name: str) -> None:
    events = phrase_events(name, 3, np.random.default_rng(0))
    assert {int(at // CLIP_S) for at, _ in events} == {0, 1, 2}
    for at, message in events:
        assert at % CLIP_S < CLIP_S - 0.5
        if message[0] & 0xF0 == 0xC0:
            assert message[1] in PROGRAMS[name]
        else:
            assert (message[0] & 0x0F == 9) == (name in DRUMS)
            assert 20 <= message[1] <= 90
    on = sum(message[0] & 0xF0 == 0x90 for _, message in events)
    assert on == sum(message[0] & 0xF0 == 0x80 for _, message in events) > 10


@pytest.mark.parametrize("make", [breathy_voice, synth_without_highs])
def test_synthesised_classes_have_the_right_highs(make) -> None:  # type: ignore[no-untyped-def]
    audio = make(np.random.default_rng(0))
    assert audio.shape == (2, CLIP_S * SAMPLE_RATE)
    power = np.abs(np.fft.rfft(audio[0])) ** 2
    hertz = np.fft.rfftfreq(audio.shape[1], 1 / SAMPLE_RATE)
    highs = power[hertz > 8000].sum() / power.sum()
    assert highs < 1e-3 if make is synth_without_highs else highs > 1e-3


def test_the_table_of_false_alarms_has_a_row_for_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    hits = np.zeros((4, 5), bool)
    hits[0, 2] = hits[1, 4] = True
    print_classes({True: {"piano": hits, "organ": np.zeros((4, 5), bool)}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["piano", "0.0", "0.0", "25.0", "0.0", "25.0", "50.0"]
    assert lines[3].split() == ["all", "0.0", "0.0", "12.5", "0.0", "12.5", "25.0"]


@pytest.mark.parametrize("bank", ["timgm6mb-soundfont", "fluid-soundfont-gm"])
def test_clips_of_every_class_have_one_level(bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fluidsynth is replaced by a player of noise."""

    def play(midi: Path, file: Path, folder: Path, seconds: float) -> Path:
        audio = np.random.default_rng(len(midi.stem)).standard_normal((2, int((seconds - 1) * SAMPLE_RATE)))
        path = folder / f"{midi.stem}.flac"
        soundfile.write(path, 0.1 * audio.T, SAMPLE_RATE)
        return path

    (tmp_path / packages.BANKS[bank][0]).touch()
    monkeypatch.setattr(packages, "fetch_package", lambda package: tmp_path)
    monkeypatch.setattr(instruments, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(instruments, "render_midi", play)
    found = list(instruments.clips(4, 0, bank))
    held_out = bank == "timgm6mb-soundfont"
    names = [name for name, _, _ in found]
    assert set(names) == set(CLASSES) if held_out else set(PROGRAMS) | set(DRUMS)
    assert all(names.count(name) == 4 for name in names)
    for _, stem, mix in found:
        assert stem.shape == mix.shape == (2, CLIP_S * SAMPLE_RATE)
        assert np.sqrt(np.mean(stem**2)) == pytest.approx(0.1, rel=1e-4)
        assert np.sqrt(np.mean((mix - stem) ** 2)) > 0.04
    for (name, bright, _), (_, dark, _) in zip(found, instruments.clips(4, 0, bank, dark=1.0), strict=True):
        steps = [np.abs(np.diff(audio)).mean() for audio in (bright, dark)]
        assert steps[1] < steps[0] or name in instruments.SYNTHETIC, (
            "a low-pass filter makes samples change more slowly"
        )
    with pytest.raises(CorpusError, match="3 clips of a class are too few"):
        next(instruments.clips(3, 0, bank))
