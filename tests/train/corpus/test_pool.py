"""The pool on small synthetic sources: reproducible, with mixes that are exact sums, and without repeated work."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from stemprover.engine.train.corpus import packages
from stemprover.engine.train.corpus.layouts import song_sources
from stemprover.engine.train.corpus.pool import (
    FULL_SCALE,
    TRACKS,
    build_remixes,
    build_songs,
    main,
    make_tracks,
    open_shard,
    sdr_db,
    shard_paths,
    write_shard,
)
from stemprover.engine.train.corpus.remix import Remix, RemixConfig, Remixer, phrase
from stemprover.engine.train.corpus.sources import SAMPLE_RATE, CorpusError, Source, read_stereo

LENGTH = 44_100
SONG_S = 6


def tone(hz: float, seconds: float, seed: int) -> np.ndarray:
    """A tremolo tone with a little noise (T, 2), different at every place and in every channel."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = 0.2 * np.sin(2 * np.pi * hz * t) * (1.2 + np.sin(2 * np.pi * (0.3 + 0.1 * seed) * t)) / 2
    return np.stack([wave, 0.7 * wave], axis=1) + 0.01 * rng.standard_normal((len(t), 2))


@pytest.fixture(scope="module")
def stems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs, one of them held out."""
    root = tmp_path_factory.mktemp("stems")
    for number, song in enumerate(("alpha", "beta", "francium")):
        (root / song).mkdir()
        for part, hz in (("vocals", 440), ("drums", 90), ("other", 220)):
            sf.write(root / song / f"{part}.flac", tone(hz * (1 + number / 7), SONG_S, number), SAMPLE_RATE)
    (root / "alpha" / "info.json").write_text(json.dumps({"licence": "CC0-1.0"}))
    return root


@pytest.fixture(scope="module")
def sources(stems: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    root = tmp_path_factory.mktemp("others")
    clips = []
    for number in range(5):
        clips.append(root / f"{number}.wav")
        sf.write(clips[-1], tone(200 + 40 * number, 0.3, number)[:, 0], SAMPLE_RATE)
    music = root / "music.flac"
    sf.write(music, tone(150, 8, 3), SAMPLE_RATE)
    return [
        *song_sources(stems),
        Source("voices/one", "vocals", "voice", "voices", "GPL-2+", "train", tuple(clips)),
        Source("game/music", "accompaniment", "music", "game", "GPL-2", "train", (music,)),
    ]


class FakeSeparator:
    """Splits the mix by fixed gains, in place of a network, and keeps the mixes it was given."""

    def __init__(self) -> None:
        self.mixes: list[np.ndarray] = []

    def __call__(self, mix: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        self.mixes.append(mix)
        gains = {"zeros": 0.5, "average": 0.25}
        return {e: {"vocals": gain * mix, "accompaniment": (1 - gain) * mix} for e, gain in gains.items()}


def build(out: Path, sources: list[Source], separate: FakeSeparator, **change) -> list[Path]:
    arguments = {"items": 5, "seed": 7, "length": LENGTH, "per_shard": 2, "say": lambda line: None}
    return build_remixes(out, "train", sources, separate, **(arguments | change))


def test_shards_have_the_documented_form(tmp_path: Path, sources: list[Source]) -> None:
    made = build(tmp_path, sources, FakeSeparator())
    assert [path.name for path in made] == ["shard_000.npy", "shard_001.npy", "shard_002.npy"]
    assert made == shard_paths(tmp_path / "train")
    shapes = []
    for path in made:
        tracks, infos = open_shard(path)
        assert isinstance(tracks, np.memmap)
        assert tracks.dtype == np.int16
        assert len(infos) == len(tracks)
        shapes.append(tracks.shape)
    assert shapes == [(2, 6, 2, LENGTH), (2, 6, 2, LENGTH), (1, 6, 2, LENGTH)]
    about = json.loads(made[0].with_suffix(".json").read_text())
    assert tuple(about["tracks"]) == TRACKS
    assert about["sample_rate"] == 44_100
    assert not list(tmp_path.rglob("*.part"))


def test_the_separator_is_given_exactly_the_sum_of_the_stored_stems(tmp_path: Path, sources: list[Source]) -> None:
    separate = FakeSeparator()
    paths = build(tmp_path, sources, separate)
    items = [item for path in paths for item in open_shard(path)[0]]
    assert len(items) == len(separate.mixes) == 5
    for item, mix in zip(items, separate.mixes, strict=True):
        total = item[0].astype(np.float32) + item[1]
        np.testing.assert_array_equal(total / np.float32(FULL_SCALE), mix)
        assert 0.05 < np.abs(mix).max() <= 0.95
        np.testing.assert_allclose(item[2] + item[3].astype(int), total, atol=2)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path, sources: list[Source]) -> None:
    first = build(tmp_path / "a", sources, FakeSeparator())
    again = build(tmp_path / "b", sources, FakeSeparator())
    other = build(tmp_path / "c", sources, FakeSeparator(), seed=8)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert first[0].read_bytes() != other[0].read_bytes()
    tracks = open_shard(first[0])[0]
    assert not np.array_equal(tracks[0], tracks[1])


def test_an_interrupted_run_continues_and_processes_can_share_it(tmp_path: Path, sources: list[Source]) -> None:
    whole = build(tmp_path / "whole", sources, FakeSeparator())
    late = build(tmp_path / "shared", sources, FakeSeparator(), shards=range(1, 2))
    assert [path.name for path in late] == ["shard_001.npy"]
    (tmp_path / "shared" / "train" / "shard_000.123.part").write_bytes(b"left by a killed process")
    separate = FakeSeparator()
    build(tmp_path / "shared", sources, separate)
    assert len(separate.mixes) == 3, "the finished shard was made again"
    assert build(tmp_path / "shared", sources, separate) == []
    shared = shard_paths(tmp_path / "shared" / "train")
    assert [p.read_bytes() for p in shared] == [p.read_bytes() for p in whole]


def test_the_held_out_song_is_never_in_training(sources: list[Source], stems: Path) -> None:
    assert {s.group for s in song_sources(stems) if s.split == "valid"} == {"francium"}
    remixer = Remixer([s for s in sources if s.split == "train"], LENGTH)
    for item in range(40):
        info = remixer.draw(np.random.default_rng([1, item])).info
        assert "francium" not in json.dumps(info)


def test_original_pairings_stay_in_sync(sources: list[Source]) -> None:
    songs = [s for s in sources if s.kind == "song" and s.split == "train"]
    by_name = {s.name: s for s in songs}
    inner = slice(500, LENGTH - 500)
    for item in range(10):
        info = Remixer(songs, LENGTH, RemixConfig(p_original=1.0)).draw(np.random.default_rng(item)).info
        plain = Remixer(songs, LENGTH, RemixConfig(p_original=1.0, vary=False)).draw(np.random.default_rng(item))
        band = by_name[plain.info["band"]]
        parts = tuple(part for part in band.parts if part.stem in plain.info["band_parts"])
        for got, source, chosen in (
            (plain.vocals, by_name[plain.info["vocals"]], None),
            (plain.band, band, parts),
        ):
            wanted = source.read(plain.info["vocals_start"], LENGTH, chosen)
            assert np.corrcoef(got[0, inner], wanted[0, inner])[0, 1] > 0.9999
        assert info["original_pairing"]
        assert info["vocals"].split("/")[0] == info["band"].split("/")[0]
        assert (info["vocals_start"], info["vocals_speed"]) == (info["band_start"], info["band_speed"])


def test_draws_cover_all_kinds_and_stay_in_their_ranges(sources: list[Source]) -> None:
    remixer = Remixer([s for s in sources if s.split == "train"], LENGTH)
    infos = [remixer.draw(np.random.default_rng([3, item])).info for item in range(80)]
    songs = [i for i in infos if "voices" not in i["vocals"] and "game" not in i["band"]]
    assert 0.3 < len(songs) / len(infos) < 0.6
    assert 0.25 < sum(i["original_pairing"] for i in songs) / len(songs) < 0.75
    assert {i["vocals"].split("/")[0] for i in infos} == {"alpha", "beta", "voices"}
    assert {i["band"].split("/")[0] for i in infos} == {"alpha", "beta", "game"}
    assert any(":" in part for i in infos for part in i["band_parts"]), "no stem was ever replaced by another song's"
    assert any(len(i["band_parts"]) == 1 and "game" not in i["band"] for i in infos), "no stem was ever left out"
    ratios_db = [i["ratio_db"] for i in infos if not i["original_pairing"] and i["ratio_db"] is not None]
    assert -10 <= min(ratios_db) < -5
    assert 2 < max(ratios_db) <= 6
    assert all(0.84 <= i["vocals_speed"] <= 1.19 and -12 <= i["gain_db"] <= 0 for i in infos)


def test_without_variation_the_band_is_the_file_times_one_gain(sources: list[Source]) -> None:
    game = [s for s in sources if s.name in ("voices/one", "game/music")]
    remix = Remixer(game, LENGTH, RemixConfig(vary=False)).draw(np.random.default_rng(5))
    plain = game[1].read(remix.info["band_start"], LENGTH)
    inner = slice(500, LENGTH - 500)
    gain = np.vdot(plain[:, inner], remix.band[:, inner]) / np.vdot(plain[:, inner], plain[:, inner])
    np.testing.assert_allclose(remix.band[:, inner], gain * plain[:, inner], atol=1e-5)


def test_a_whole_song_is_cut_into_consecutive_items(tmp_path: Path, sources: list[Source], stems: Path) -> None:
    separate = FakeSeparator()
    paths = build_songs(tmp_path, "valid", sources, separate, length=LENGTH, per_shard=4, say=lambda line: None)
    assert len(separate.mixes) == 1, "a song is separated in one go"
    tracks = np.concatenate([open_shard(path)[0] for path in paths])
    assert tracks.shape == (SONG_S, 6, 2, LENGTH)
    vocals = read_stereo(stems / "francium" / "vocals.flac")
    np.testing.assert_allclose(np.concatenate(list(tracks[:, 0]), axis=1) / FULL_SCALE, vocals, atol=1e-4)
    assert build_songs(tmp_path, "valid", sources, separate, length=LENGTH, per_shard=4) == []


def test_a_separator_that_raises_the_peak_never_clips() -> None:
    def loud(mix: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {e: dict.fromkeys(("vocals", "accompaniment"), 1.6 * mix) for e in ("zeros", "average")}

    rng = np.random.default_rng(0)
    stem = (0.4 * rng.uniform(-1, 1, (2, 1000))).astype(np.float32)
    tracks, _ = make_tracks(Remix(stem, stem, {}), loud)
    assert np.abs(tracks).max() < FULL_SCALE
    assert np.abs(tracks[2]).max() > 0.9 * FULL_SCALE
    np.testing.assert_allclose(tracks[2], 1.6 * (tracks[0].astype(float) + tracks[1]), atol=2)


@pytest.mark.parametrize(("error", "expected_db"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0)])
def test_sdr_of_a_known_error(error: float, expected_db: float) -> None:
    truth = np.random.default_rng(0).standard_normal((2, 4000))
    assert sdr_db(truth, truth * (1 - error)) == pytest.approx(expected_db, abs=0.01)
    assert sdr_db(np.zeros((2, 10)), np.ones((2, 10))) is None


def test_reading_pads_resamples_and_copies_mono_to_both_channels(tmp_path: Path) -> None:
    mono = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(22_050) / 22_050)
    sf.write(tmp_path / "mono.wav", mono, 22_050)
    audio = read_stereo(tmp_path / "mono.wav", 0, 50_000)
    np.testing.assert_array_equal(audio[0], audio[1])
    assert np.all(audio[:, 44_100:] == 0)
    wanted = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100)
    np.testing.assert_allclose(audio[0, 1000:43_000], wanted[1000:43_000], atol=1e-3)
    np.testing.assert_array_equal(read_stereo(tmp_path / "mono.wav", 300, 100), audio[:, 300:400])


def test_a_phrase_is_mostly_audible(sources: list[Source]) -> None:
    voice = next(s for s in sources if s.kind == "voice")
    for seed in range(4):
        audio = phrase(np.random.default_rng(seed), voice, 3 * SAMPLE_RATE)
        assert audio.shape == (2, 3 * SAMPLE_RATE)
        audible = np.mean(np.abs(audio[0].reshape(30, -1)).max(axis=1) > 0.01)
        assert audible > 0.5


def test_bad_input_gives_clear_errors(
    tmp_path: Path, sources: list[Source], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CorpusError, match="nowhere"):
        song_sources(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="0 bands"):
        Remixer([s for s in sources if s.role == "vocals"], LENGTH)
    with pytest.raises(CorpusError, match=r"1\.2"):
        RemixConfig(peak=1.2)
    (tmp_path / "bad.wav").write_text("not audio")
    with pytest.raises(CorpusError, match=r"bad\.wav"):
        read_stereo(tmp_path / "bad.wav")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--shards", "one"])
    assert "--shards one" in capsys.readouterr().err
    assert main([str(tmp_path), "--stems", str(tmp_path / "nowhere"), "--no-packages"]) == 2


def test_a_written_shard_opens_with_its_description(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 12, [np.ones((6, 2, 10), np.int16)], [{"item": 0}], split="train")
    assert path.name == "shard_012.npy"
    tracks, infos = open_shard(path)
    assert tracks.shape == (1, 6, 2, 10)
    assert infos == [{"item": 0}]


def test_two_processes_may_fetch_the_same_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one uses what the faster one unpacked, and leaves no files of its own."""
    monkeypatch.setattr(packages, "cache_dir", lambda: tmp_path)

    def run(command: list[str], **_: object) -> None:
        if command[0] == "apt-get":
            (tmp_path / "debian" / "songs_1_all.deb").touch()
            return
        for folder in (
            Path(command[-1]),
            tmp_path / "debian" / "songs",
        ):  # the second is the other process, a moment faster
            folder.mkdir()
            (folder / "song.ogg").touch()

    monkeypatch.setattr(packages.subprocess, "run", run)
    assert packages.fetch_package("songs") == tmp_path / "debian" / "songs"
    assert sorted(path.name for path in (tmp_path / "debian").iterdir()) == ["songs", "songs_1_all.deb"]
