"""Songs rendered from MIDI: the files, the kits, the melody, and that held-out material is not mixed with other."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from stemprover.engine.train.corpus import rendered_songs
from stemprover.engine.train.corpus.kits import Hit, kind_of, play, read_kit
from stemprover.engine.train.corpus.melody import Note, find_melody, notes_of, one_at_a_time
from stemprover.engine.train.corpus.midi import read_midi, write_midi
from stemprover.engine.train.corpus.remix import RemixConfig, Remixer
from stemprover.engine.train.corpus.rendered_songs import Score, list_rendered_sources, render_song, render_songs
from stemprover.engine.train.corpus.sources import SAMPLE_RATE, CorpusError, Source

DRUMKIT = """<?xml version="1.0" encoding="UTF-8"?>
<drumkit_info xmlns="http://www.hydrogen-music.org/drumkit">
 <name>{name}</name><license>CC-BY 3.0</license><instrumentList>
  <instrument><name>Kick</name><volume>0.5</volume><pan_L>1</pan_L><pan_R>0.5</pan_R>
   <instrumentComponent>
    <layer><filename>soft.wav</filename><min>0</min><max>0.5</max><gain>1</gain><pitch>0</pitch></layer>
    <layer><filename>hard.wav</filename><min>0.5</min><max>1</max><gain>1</gain><pitch>12</pitch></layer>
   </instrumentComponent></instrument>
  <instrument><name>Snare 1</name><filename>soft.wav</filename></instrument>
  <instrument><name>HiHat Closed</name><layer><filename>soft.wav</filename></layer></instrument>
  <instrument><name>Open HH</name><layer><filename>long.wav</filename></layer></instrument>
  <instrument><name>Floor Tom</name><layer><filename>soft.wav</filename></layer></instrument>
  <instrument><name>Tom 1</name><layer><filename>hard.wav</filename></layer></instrument>
  <instrument><name>Zither</name><layer><filename>soft.wav</filename></layer></instrument>
  <instrument><name>Ride</name><layer><filename>gone.wav</filename></layer></instrument>
 </instrumentList></drumkit_info>"""


def make_kit(folder: Path, name: str = "Tiny") -> Path:
    folder.mkdir(parents=True)
    t = np.arange(4410) / SAMPLE_RATE
    sf.write(folder / "soft.wav", 0.5 * np.sin(2 * np.pi * 200 * t) * np.exp(-30 * t), SAMPLE_RATE)
    sf.write(folder / "hard.wav", 0.5 * np.sin(2 * np.pi * 400 * t) * np.exp(-30 * t), SAMPLE_RATE)
    sf.write(folder / "long.wav", np.full(2 * SAMPLE_RATE, 0.25), SAMPLE_RATE)
    (folder / "drumkit.xml").write_text(DRUMKIT.format(name=name))
    return folder / "drumkit.xml"


class Steady:
    """A generator of no variation: every choice is the first one, every deviation 0."""

    def integers(self, *_):
        return 0

    def uniform(self, low, high):
        return 0.0

    def normal(self, mean, deviation):
        return 0.0


def song(seconds: float = 40.0) -> list[tuple[float, bytes]]:
    """A flute melody on channel 0, a bass on 1, guitar chords on 2, and drums."""
    events = [(0.0, bytes([0xC0, 73])), (0.0, bytes([0xC1, 33])), (0.0, bytes([0xC2, 27]))]
    for step in range(int(seconds * 2)):
        at = step / 2
        played = [(0, 72 + step % 5), (1, 40), (9, 36 if step % 2 else 38)] + [(2, note) for note in (60, 64, 67)]
        for channel, note in played:
            events += [(at, bytes([0x90 | channel, note, 100])), (at + 0.4, bytes([0x80 | channel, note, 0]))]
    return sorted(events, key=lambda event: event[0])


def test_a_written_midi_file_reads_back_equal(tmp_path: Path) -> None:
    events = [(at, message) for at, message in song(3.0)]
    write_midi(events, tmp_path / "a.mid")
    found = read_midi(tmp_path / "a.mid")
    assert [message for _, message in found] == [message for _, message in events]
    np.testing.assert_allclose([at for at, _ in found], [at for at, _ in events], atol=1e-3)


def test_tempo_tracks_and_running_status(tmp_path: Path) -> None:
    # One second per beat, and half a second from the second beat on.
    tempo = b"\x00\xff\x51\x03\x0f\x42\x40" + b"\x83\x60\xff\x51\x03\x07\xa1\x20" + b"\x00\xff\x2f\x00"
    notes = b"\x00\xf0\x02\x01\xf7" + b"\x83\x60\x90\x3c\x64" + b"\x83\x60\x3c\x00" + b"\x00\xff\x2f\x00"
    tracks = b"".join(struct.pack(">4sI", b"MTrk", len(track)) + track for track in (tempo, notes))
    (tmp_path / "b.mid").write_bytes(struct.pack(">4sIHHH", b"MThd", 6, 1, 2, 480) + tracks)
    assert read_midi(tmp_path / "b.mid") == [(1.0, b"\x90\x3c\x64"), (1.5, b"\x90\x3c\x00")]
    (tmp_path / "c.mid").write_bytes(b"RIFF and so on")
    with pytest.raises(ValueError, match=r"c\.mid is not a MIDI file"):
        read_midi(tmp_path / "c.mid")
    (tmp_path / "d.mid").write_bytes((tmp_path / "b.mid").read_bytes()[:-7])
    with pytest.raises(ValueError, match="truncated"):
        read_midi(tmp_path / "d.mid")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Kick", "kick"), ("BassDrum 22in", "kick"), ("BD1", "kick"), ("Snare Rimshot", "snare"), ("Side Stick", "rim"),
        ("Hat Pedal", "pedal hat"), ("HiHat-Open", "open hat"), ("HH closed", "closed hat"), ("Ride Rock", "ride"),
        ("Ride Bell", "ride bell"), ("Crash L", "crash"), ("Splash cymbal", "splash"), ("Chinese", "china"),
        ("Cowbell", "cowbell"), ("Hand Clap", "clap"), ("Floor Tom", "tom"), ("MidTom", "tom"), ("Maracas", "shaker"),
        ("808 Machine", None), ("Emergency", None), ("Snare Roll", None),
    ],
)  # fmt: skip
def test_drums_are_recognised_by_their_names(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


def test_a_kit_responds_to_velocity_and_pans(tmp_path: Path) -> None:
    kit = read_kit(make_kit(tmp_path / "kit"))
    assert (kit.name, kit.licence, kit.complete) == ("Tiny", "CC-BY 3.0", True)
    assert "Zither" not in {piece.name for piece in kit.pieces}, "unknown instruments are left out"
    assert "Ride" not in {piece.name for piece in kit.pieces}, "its sample is missing"
    chosen = kit.choose(np.random.default_rng(0))
    assert (chosen[41].name, chosen[50].name) == ("Floor Tom", "Tom 1"), "toms from low to high"
    assert chosen[44].name == "HiHat Closed", "without a pedal hat the closed one plays"
    assert 49 not in chosen
    out = play(kit, [Hit(0.1, 36, 0.4), Hit(0.6, 36, 0.8)], SAMPLE_RATE, Steady())
    np.testing.assert_allclose(out[1], 0.5 * out[0], atol=1e-6)
    peaks = [np.abs(out[0, int(at * SAMPLE_RATE) :][:4000]).max() for at in (0.1, 0.6)]
    assert peaks[1] / peaks[0] == pytest.approx(2.0, rel=0.05)
    hz = [np.argmax(np.abs(np.fft.rfft(out[0, int(at * SAMPLE_RATE) :][:4410]))) * 10 for at in (0.1, 0.6)]
    assert hz[0] == pytest.approx(200, abs=20)
    assert hz[1] == pytest.approx(800, abs=40), "the hard sample, transposed an octave up"


def test_a_closed_hat_chokes_the_open_one(tmp_path: Path) -> None:
    kit = read_kit(make_kit(tmp_path / "kit"))
    out = play(kit, [Hit(0.0, 46, 1.0), Hit(0.5, 42, 1.0)], 2 * SAMPLE_RATE, Steady())
    assert np.abs(out[0, int(0.4 * SAMPLE_RATE)]) == pytest.approx(0.25, abs=1e-3)
    assert np.abs(out[:, int(0.7 * SAMPLE_RATE) :]).max() < 1e-6


def test_bad_kits_give_clear_errors_and_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "drumkit.xml").write_text("<drumkit_info><name>x")
    with pytest.raises(CorpusError, match=r"drumkit\.xml cannot be read"):
        read_kit(tmp_path / "drumkit.xml")
    (tmp_path / "drumkit.xml").write_text("<drumkit_info><instrument><name>Kick</name></instrument></drumkit_info>")
    with pytest.raises(CorpusError, match="has no instrument"):
        read_kit(tmp_path / "drumkit.xml")
    assert rendered_songs.find_kits(tmp_path) == []


def test_the_melody_is_the_most_singable_channel() -> None:
    notes = notes_of(song())
    line = find_melody(notes, 40.0)
    assert {note.channel for note in line} == {0}
    assert len(line) == 80
    assert find_melody([note for note in notes if note.channel != 0], 40.0) == [], "neither a bass nor chords"
    chord = [Note(0, 0, pitch, 90, 0.0, 1.0) for pitch in (60, 64)] + [Note(0, 0, 62, 90, 0.5, 0.52)]
    assert one_at_a_time(chord) == [Note(0, 0, 64, 90, 0.0, 0.5)]


def fake_play(midi: Path, bank: Path, seconds: float) -> np.ndarray:
    """A decaying tone for each note of a file (T, 2) int16, in place of fluidsynth."""
    out = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    t = np.arange(SAMPLE_RATE // 4) / SAMPLE_RATE
    for note in notes_of(read_midi(midi)):
        at = int(note.start_s * SAMPLE_RATE)
        tone = 0.1 * np.sin(2 * np.pi * 440 * 2 ** ((note.pitch - 69) / 12) * t) * np.exp(-8 * t)
        out[at : at + len(t)] += tone[: max(len(out) - at, 0)]
    return np.rint(np.stack([out, out], axis=1).clip(-1, 1) * 32767).astype(np.int16)


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Score:
    """A MIDI song, and a cache with kits. `fake_play` plays the banks, and voices sing a constant."""
    monkeypatch.setenv("STEMPROVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rendered_songs, "play_midi", fake_play)
    monkeypatch.setattr(rendered_songs, "can_play", lambda: True)
    monkeypatch.setattr(rendered_songs, "is_fetched", lambda package: True)
    monkeypatch.setattr(rendered_songs, "bank_path", lambda package: Path(package))
    monkeypatch.setattr(rendered_songs, "fetch_package", lambda package: tmp_path / package)
    monkeypatch.setattr(
        rendered_songs, "sing_melody", lambda clips, line, length, rng, formant: np.full((2, length), 0.1, "f")
    )
    monkeypatch.setattr(rendered_songs, "LENGTH_S", (11.0, 13.0))
    for name in (*sorted(rendered_songs.VALID_KITS)[:1], "Tiny"):
        make_kit(tmp_path / rendered_songs.KIT_PACKAGE / name, name)
    write_midi(song(), tmp_path / "song.mid")
    write_midi(song(5.0), tmp_path / "short.mid")
    return Score(tmp_path / "song.mid", "freedoom", "BSD-3-Clause", False)


@pytest.fixture
def voices(tmp_path: Path) -> list[Source]:
    sf.write(tmp_path / "clip.wav", np.zeros(4410), SAMPLE_RATE)
    return [
        Source("klettres/de", "vocals", "voice", "klettres/de", "GPL-2+", "train", (tmp_path / "clip.wav",)),
        Source(
            "klettres/pt_BR", "vocals", "voice", "klettres/pt_BR", "GPL-2+", "valid-other", (tmp_path / "clip.wav",)
        ),
    ]


def test_a_rendered_song_has_separate_stems_and_each_seed_differs(score: Score, voices: list[Source]) -> None:
    performers = rendered_songs.find_performers(voices)[False]
    first, again, other = (render_song(score, performers, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert {"drums", "bass", "guitar", "vocals"} <= first.stems.keys()
    total = np.sum(list(first.stems.values()), axis=0)
    assert max(float(np.abs(audio).max()) for audio in (total, *first.stems.values())) == pytest.approx(0.9, abs=1e-3)
    assert len({audio.shape for audio in first.stems.values()}) == 1
    assert first.made_of == again.made_of
    for stem, audio in first.stems.items():
        np.testing.assert_array_equal(audio, again.stems[stem])
    assert first.made_of != other.made_of
    with pytest.raises(CorpusError, match="too short"):
        render_song(
            Score(score.path.with_name("short.mid"), "freedoom", "", False), performers, np.random.default_rng(0)
        )


def test_held_out_performers_are_kept_apart(score: Score, voices: list[Source]) -> None:
    performers = rendered_songs.find_performers(voices)
    for held_out in (True, False):
        assert all((bank[0] == rendered_songs.VALID_BANK) == held_out for bank in performers[held_out].banks)
        assert all((kit.name in rendered_songs.VALID_KITS) == held_out for kit in performers[held_out].kits)
        assert {voice.split for voice in performers[held_out].voices} == {"valid-other" if held_out else "train"}


def test_songs_are_rendered_once_and_rendering_continues_after_an_interruption(
    score: Score, voices: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    songs = [
        score,
        Score(score.path, "openttd", "GPL-2", True),
        Score(score.path.with_name("short.mid"), "freedoom", "", False),
    ]
    monkeypatch.setattr(rendered_songs, "find_scores", lambda: songs)
    monkeypatch.setattr(rendered_songs, "VERSIONS_PER_SCORE", {})
    whole = rendered_songs.read_midi

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rendered_songs, "read_midi", stopped)
    with pytest.raises(KeyboardInterrupt):
        render_songs(voices, say=lambda line: None)
    assert list_rendered_sources() == []
    monkeypatch.setattr(rendered_songs, "read_midi", whole)
    lines: list[str] = []
    render_songs(voices, say=lines.append, held_out_only=True)
    assert [source.split for source in list_rendered_sources()] == ["valid-other"] * 2
    first = len(lines)
    render_songs(voices, say=lines.append)
    assert len(lines) == 3 > first
    assert "too short" in lines[-1]
    render_songs(voices, say=lines.append)
    assert len(lines) == 3, "no song is rendered twice"
    found = {source.name: source for source in list_rendered_sources()}
    assert {name: source.split for name, source in found.items()} == {
        "takes-freedoom/freedoom-song-1": "train", "sung-takes-freedoom/freedoom-song-1": "train",
        "takes-openttd/openttd-song-1": "valid-other", "sung-takes-openttd/openttd-song-1": "valid-other",
    }  # fmt: skip
    band = found["takes-openttd/openttd-song-1"]
    assert (band.kind, band.group, band.collection) == ("rendered", "openttd-song-1", "rendered-openttd")
    assert found["sung-takes-openttd/openttd-song-1"].collection == "sung-rendered-openttd"
    assert "drums" in band.stems
    licences = {"Audiophob": "CC0-1.0", "ColomboAcousticDrumkit": "GPL-2+"}
    assert band.licence == f"GPL-2, {licences[rendered_songs.made_of(band)['kit']]}", (
        "of the MIDI song and the bank, and of the kit"
    )
    assert rendered_songs.made_of(band)["kit"] in rendered_songs.VALID_KITS
    assert not list(rendered_songs.cache_folder().glob("*.part"))


def test_a_sung_melody_stays_in_sync_with_its_own_band(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("vocals", "drums", "bass", "elsewhere"):
        sf.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal((3 * SAMPLE_RATE, 2)), SAMPLE_RATE)
    files = {path.stem: path for path in tmp_path.glob("*.wav")}
    band = (files["drums"], files["bass"])
    sources = [
        Source("sung-takes-x/a", "vocals", "singing", "a", "", "train", (files["vocals"],)),
        Source("takes-x/a", "accompaniment", "rendered", "a", "", "train", band, ("drums", "bass")),
        Source("sung/b", "vocals", "singing", "b", "", "train", (files["elsewhere"],)),
    ]
    remixer = Remixer(sources, SAMPLE_RATE, RemixConfig(p_original=1.0, vary=False))
    infos = [remixer.draw(np.random.default_rng(seed)).info for seed in range(40)]
    for info in infos:
        assert info["original_pairing"] == (info["vocals"] == "sung-takes-x/a")
        assert not info["original_pairing"] or info["vocals_start"] == info["band_start"]
    assert {info["vocals"] for info in infos} == {"sung-takes-x/a", "sung/b"}
    assert {tuple(info["band_parts"]) for info in infos} == {("drums", "bass"), ("drums",), ("bass",)}
