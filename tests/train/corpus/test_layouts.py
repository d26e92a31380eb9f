"""Folders of stems: which songs each layout has, which files are skipped, and the splits."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from stemprover.engine.train.corpus.layouts import Song, find_songs, song_sources, split_of
from stemprover.engine.train.corpus.sources import SAMPLE_RATE, CorpusError, read_stereo

RNG = np.random.default_rng(0)
NOISE = (0.1 * RNG.standard_normal((SAMPLE_RATE + 100, 2))).astype(np.float32)


def write(*paths: Path) -> None:
    """Write a second of noise to each file, at 1, 1/2, 1/3 ... of the first one's level."""
    for number, path in enumerate(paths, start=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, NOISE / number, SAMPLE_RATE)


def names_by_split(split: str, count: int) -> list[str]:
    return [name for name in (f"song {n}" for n in range(300)) if split_of(name) == split][:count]


def test_musdb_keeps_its_test_songs_out_of_training(tmp_path: Path) -> None:
    train, valid = names_by_split("train", 2), names_by_split("valid", 1)
    for subset, songs in (("train", train + valid), ("test", ["Artist - Tested", names_by_split("train", 3)[2]])):
        for song in songs:
            stems = ("mixture", "vocals", "drums", "bass", "other")
            write(*(tmp_path / "musdb18hq" / subset / song / f"{stem}.wav" for stem in stems))
    found = find_songs(tmp_path)
    assert not found.left_out
    splits = {song.name: song.split for song in found.songs}
    assert [splits[name] for name in train + valid] == ["train", "train", "valid"]
    assert [splits[name] for name in splits if name not in train + valid] == ["test", "test"]
    assert {song.origin for song in found.songs} == {"MUSDB18-HQ"}
    direct = find_songs(tmp_path / "musdb18hq" / "test")
    assert {song.split for song in direct.songs} == {"test"}, "a folder of test songs is recognised by itself"
    vocals, band, *others = song_sources(tmp_path / "musdb18hq" / "test")
    others[1].parts[0].unlink()
    damaged = find_songs(tmp_path / "musdb18hq" / "test")
    assert {song.split for song in damaged.songs} == {"test"}, "also if a song lacks a file"
    assert (vocals.role, band.role, band.stems) == ("vocals", "accompaniment", ("bass", "drums", "other"))
    wanted = sum(read_stereo(part) for part in band.parts)
    np.testing.assert_allclose(band.read(0, SAMPLE_RATE), wanted[:, :SAMPLE_RATE], atol=1e-6)


def test_moisesdb_sums_the_files_of_a_stem(tmp_path: Path) -> None:
    track = tmp_path / "moisesdb_v0.1" / "0a1b-track"
    files = [("vocals", "x1"), ("drums", "x2"), ("drums", "x3"), ("bowed_strings", "x4"), ("theremin", "x5")]
    write(*(track / stem / f"{name}.wav" for stem, name in files))
    (track / "data.json").write_text(json.dumps({"song": "A", "artist": "B", "stems": [{"stemName": "vocals"}]}))
    (tmp_path / "LICENSE").write_text("\n# CC BY-NC-SA 4.0\n\nand more\n")
    found = find_songs(tmp_path)
    (song,) = found.songs
    assert (song.name, song.origin, song.split) == ("0a1b-track", "MoisesDB", split_of("0a1b-track"))
    assert song.licence == "CC BY-NC-SA 4.0"
    assert "x5.wav (unknown stem)" in found.render_left_out()
    band = song.sources()[1]
    assert band.stems == ("strings", "drums", "drums")
    level = np.abs(band.read(0, 1000)).max() / np.abs(NOISE[:1000]).max()
    assert level == pytest.approx(1 / 2 + 1 / 3 + 1 / 4, rel=0.01)


def test_an_excerpt_sums_the_files_of_a_stem(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    signals = rng.uniform(-0.4, 0.4, (3, 40_000, 2)).astype(np.float32)
    files = [tmp_path / f"{number}.wav" for number in range(3)]
    for file, signal in zip(files, signals, strict=True):
        sf.write(file, signal, 32_000, subtype="FLOAT")
    song = Song("one", "tests", "train", "CC0-1.0", tuple(zip(("drums", "vocals", "drums"), files, strict=True)))
    found, rate = song.excerpt(0.5, 0.25)
    assert rate == 32_000
    inside = slice(16_000, 24_000)
    np.testing.assert_array_equal(found["drums"], (signals[0] + signals[2])[inside].T)
    np.testing.assert_array_equal(found["vocals"], signals[1][inside].T)
    assert song.excerpt(1.0, 0.5) == ({}, 32_000)


def test_any_folder_with_files_named_after_stems_is_a_song(tmp_path: Path) -> None:
    write(
        tmp_path / "One" / "Vocals.WAV", tmp_path / "One" / "Gtr 1.flac", tmp_path / "One" / "mix.wav",
        tmp_path / "One" / "noises.wav", tmp_path / "Two" / "stems" / "lead vox.ogg",
        tmp_path / "Two" / "stems" / "inst.ogg", tmp_path / "loose" / "interview.wav",
    )  # fmt: skip
    (tmp_path / "One" / "info.json").write_text('{"license": "CC0-1.0"}')
    (tmp_path / "._vocals.wav").write_bytes(b"macOS metadata")
    found = find_songs(tmp_path)
    one, two = found.songs
    assert (one.name, two.name) == ("One", "Two")
    assert [stem for stem, _ in one.stems] == ["guitar", "vocals"]
    assert (one.licence, two.licence) == ("CC0-1.0", "not stated")
    line = found.render_left_out()
    assert len(line.splitlines()) == 1
    assert "One/noises.wav (unknown stem), loose/interview.wav (unknown stem)" in line
    assert "mix.wav" not in line
    (tmp_path / "Two").rename(tmp_path / "test")
    write(tmp_path / "test" / "Three" / "stems" / "vocals.wav")
    assert {song.name: song.split for song in find_songs(tmp_path / "test").songs}["Three"] == "test"
    alone = find_songs(tmp_path / "One").songs[0]
    assert (alone.name, len(alone.stems)) == ("One", 2)


def test_redundant_stems_are_skipped(tmp_path: Path) -> None:
    for song, stems in {
        "all": ("vocals", "no_vocals", "drums", "bass", "other"),
        "some": ("vocals", "lead vocals", "backing vocals", "instrumental", "drums"),
    }.items():
        write(*(tmp_path / song / f"{stem}.wav" for stem in stems))
    write(tmp_path / "all" / "Drums.flac")
    found = find_songs(tmp_path)
    assert [sorted(stem for stem, _ in song.stems) for song in found.songs] == [
        ["bass", "drums", "other", "vocals"],
        ["accompaniment", "vocals"],
    ]
    assert "already" in found.render_left_out()
    assert sum(reason == "same as Drums.flac" for _, reason in found.left_out) == 1, "drums as .flac and as .wav"


def test_the_split_of_a_song_depends_on_its_name_alone() -> None:
    names = [f"Artist {n} - Title {n * n}" for n in range(2000)]
    splits = [split_of(name) for name in names]
    assert 0.08 < splits.count("valid") / len(splits) < 0.12
    assert set(splits) == {"train", "valid"}
    assert split_of("Francium") == "valid"
    assert {split_of(name) for name in ("hydrogen", "lithium", "rubidium", "sodium")} == {"train"}
    assert split_of("Cafe\u0301") == split_of("Caf\u00e9")


def test_unusable_folders_and_songs_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"not a folder.*<song>/<stem>\.wav"):
        find_songs(tmp_path / "nowhere")
    write(tmp_path / "none" / "interview.wav")
    with pytest.raises(CorpusError, match=r"no stems \(unknown: interview\.wav\).*MUSDB18-HQ.*MoisesDB"):
        find_songs(tmp_path / "none")
    write(tmp_path / "a" / "same" / "vocals.wav", tmp_path / "b" / "same" / "vocals.wav")
    with pytest.raises(CorpusError, match="two songs are called 'same'"):
        find_songs(tmp_path)
    write(tmp_path / "c" / "good" / "vocals.wav", tmp_path / "c" / "bad" / "drums.wav")
    (tmp_path / "c" / "bad" / "vocals.wav").write_text("not audio")
    found = find_songs(tmp_path / "c")
    assert [song.name for song in found.songs] == ["good"], "a song with a broken stem is skipped"
    assert "bad/drums.wav (vocals.wav cannot be read)" in found.render_left_out()


def test_a_file_may_be_replaced_by_one_at_another_rate(tmp_path: Path) -> None:
    for rate in (48_000, 22_050):
        sf.write(tmp_path / "a.wav", np.full(rate // 2, 0.25), rate, subtype="FLOAT")
        np.testing.assert_allclose(read_stereo(tmp_path / "a.wav")[:, 5000:-5000], 0.25, atol=1e-4)
        assert read_stereo(tmp_path / "a.wav").shape == (2, SAMPLE_RATE // 2)


@pytest.mark.parametrize("rate", [48_000, 22_050])
def test_an_excerpt_of_a_long_file_equals_the_whole_file_resampled(tmp_path: Path, rate: int) -> None:
    t = np.arange(40 * rate) / rate
    sf.write(tmp_path / "long.wav", 0.3 * np.sin(2 * np.pi * (300 + 20 * t) * t), rate, subtype="FLOAT")
    at = np.arange(1_000_000, 1_050_000) / SAMPLE_RATE
    got = read_stereo(tmp_path / "long.wav", 1_000_000, 50_000)
    np.testing.assert_allclose(got[0], 0.3 * np.sin(2 * np.pi * (300 + 20 * at) * at), atol=2e-3)
    end = read_stereo(tmp_path / "long.wav", 40 * SAMPLE_RATE - 10, 100)
    assert np.all(end[:, 10:] == 0)
