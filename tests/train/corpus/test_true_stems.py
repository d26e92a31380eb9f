"""Pools of true stems of single instruments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stemprover.engine.train.cases import main as make_cases
from stemprover.engine.train.corpus import rendered_songs, true_stems
from stemprover.engine.train.corpus.layouts import Song
from stemprover.engine.train.corpus.pool import FULL_SCALE, ITEM_SAMPLES, open_shard, shard_paths
from stemprover.engine.train.corpus.sources import CorpusError
from stemprover.engine.train.corpus.true_stems import build_pool, excerpts


def make_song(folder: Path, name: str, split: str = "train", items: int = 2) -> Song:
    """Drums that are silent after the first item, and vocals that are a little longer."""
    rng, stems = np.random.default_rng(len(name)), {}
    (folder / name).mkdir(parents=True)
    for stem, extra in (("drums", 0), ("vocals", 100)):
        audio = 0.3 * rng.standard_normal((items * ITEM_SAMPLES + 500 + extra, 2))
        if stem == "drums":
            audio[ITEM_SAMPLES:] = 0.0
        stems[stem] = folder / name / f"{stem}.wav"
        soundfile.write(stems[stem], audio, 44100, subtype="FLOAT")
    return Song(name, "tests", split, "CC0-1.0", tuple(stems.items()))


def test_excerpts_skip_silence_and_sum_to_the_mix(tmp_path: Path) -> None:
    song = make_song(tmp_path, "one")
    assert [len(list(excerpts(song, name))) for name in ("drums", "vocals")] == [1, 2]
    for drums, vocals in zip(excerpts(song, "drums"), excerpts(song, "vocals"), strict=False):
        np.testing.assert_allclose(drums.sum(axis=0), vocals.sum(axis=0), atol=1e-5)
        assert np.abs(drums).max() <= 1.0


def test_files_of_a_stem_are_summed_and_a_lone_stem_has_no_excerpts(tmp_path: Path) -> None:
    song = make_song(tmp_path, "one")
    drums, vocals = (path for _, path in song.stems)
    twice = Song("one", "tests", "train", "CC0-1.0", (("drums", drums), ("drums", drums), ("vocals", vocals)))
    (one,), (two,) = list(excerpts(song, "drums")), list(excerpts(twice, "drums"))
    ratio = np.sqrt(np.mean(two[0] ** 2) / np.mean(two[1] ** 2)) / np.sqrt(np.mean(one[0] ** 2) / np.mean(one[1] ** 2))
    assert ratio == pytest.approx(2.0, rel=1e-3)
    assert build_pool(tmp_path / "pool", [twice], ["drums"]) == 1, "not once for each file"
    assert list(excerpts(Song("one", "tests", "train", "CC0-1.0", (("drums", drums),)), "drums")) == []


def test_a_pool_keeps_splits_apart_and_songs_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(true_stems, "ITEMS_PER_SHARD", 2)
    songs = [make_song(tmp_path / "songs", name, split) for name, split in (("a", "train"), ("bb", "valid"))]
    songs += [make_song(tmp_path / "songs", name) for name in ("ccc", "dddd")]
    assert build_pool(tmp_path / "pool", songs, ["drums"]) == 4
    shards = {split: shard_paths(tmp_path / "pool" / split) for split in ("train", "valid")}
    found = {split: [open_shard(path) for path in paths] for split, paths in shards.items()}
    assert [[info["song"] for info in infos] for _, infos in found["train"]] == [["a", "ccc"], ["dddd"]]
    assert [[info["song"] for info in infos] for _, infos in found["valid"]] == [["bb"]]
    item, wanted = found["valid"][0][0][0], next(excerpts(songs[1], "drums"))
    assert item.shape == (6, 2, ITEM_SAMPLES)
    for track in range(0, 6, 2):
        np.testing.assert_allclose(item[track : track + 2] / FULL_SCALE, wanted, atol=1 / FULL_SCALE)
    with pytest.raises(CorpusError, match="already has shards"):
        build_pool(tmp_path / "pool", songs, ["drums"])
    with pytest.raises(CorpusError, match="no song has 11.8 s of bass next to another stem"):
        build_pool(tmp_path / "other", songs, ["bass"])


def test_cases_can_be_cut_from_the_commands_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_song(tmp_path / "songs", "francium")  # held out by its name
    make_song(tmp_path / "songs", "sodium")
    command = ["true_stems", str(tmp_path / "pool"), "--stem", "drums", "--stems", str(tmp_path / "songs")]
    several = [*command[:1], str(tmp_path / "several"), "--stem", "vocals", "drums", *command[4:]]
    monkeypatch.setattr("sys.argv", several)
    true_stems.main()
    assert "6 items of 11.8 s" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*command, "--held-out"])
    monkeypatch.setattr(true_stems, "default_stems_folder", lambda: None)
    true_stems.main()
    assert "1 items of 11.8 s" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="already exists"):
        true_stems.main()
    monkeypatch.setattr("sys.argv", ["true_stems", str(tmp_path / "none"), "--stem", "drums"])
    with pytest.raises(SystemExit, match="pass a folder with --stems, or use --rendered-songs"):
        true_stems.main()
    monkeypatch.setattr("sys.argv", [*command[:1], str(tmp_path / "none"), "--stem", "bass", *command[4:]])
    with pytest.raises(SystemExit, match="no song has 11.8 s of bass"):
        true_stems.main()
    assert not list(tmp_path.glob("none*")), "no unfinished pool is left"
    arguments = ["cases", str(tmp_path / "pool"), str(tmp_path / "cases"), "--split", "valid", "--separated", "0"]
    monkeypatch.setattr("sys.argv", [*arguments, "--simulated", "1", "--roles", "v"])
    make_cases()
    cases = sorted((tmp_path / "cases" / "valid").glob("*/*"))
    assert len(cases) == 6
    monkeypatch.setattr("sys.argv", [*arguments[:-1], "1", "--roles", "v"])
    make_cases()
    clean = tmp_path / "cases" / "valid" / "clean"
    assert [path.name for path in clean.iterdir()] == ["000"], "the true stem, without the rest"
    assert sorted(path.name for path in (tmp_path / "cases" / "valid").iterdir())[1] == "clean"
    drums = soundfile.read(tmp_path / "songs" / "francium" / "drums.wav", stop=ITEM_SAMPLES)[0]
    for case in cases:
        truth = soundfile.read(case / "truth.flac")[0]
        assert np.corrcoef(truth[:, 0], drums[:, 0])[0, 1] > 0.999, "the truth is the drums, not the rest"


def test_cached_rendered_songs_are_listed_with_all_their_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMPROVER_CACHE", str(tmp_path))
    folder = rendered_songs.cache_folder() / "freedoom-song-1"
    folder.mkdir(parents=True)
    about = {
        "split": "valid-other", "origin": "freedoom", "stems": ["drums", "bass"],
        "made_of": {"kit": "A", "kit_licence": "GPL-2", "bank_licence": "MIT", "score_licence": "GPL-2"},
    }  # fmt: skip
    (folder / "take.json").write_text(json.dumps(about))
    scores = [rendered_songs.Score(tmp_path / f"{name}.mid", "freedoom", "", True) for name in ("song", "not-rendered")]
    monkeypatch.setattr(rendered_songs, "find_scores", lambda: scores)
    monkeypatch.setattr(rendered_songs, "is_fetched", lambda package: True)
    song = Song(
        "freedoom-song-1", "rendered-freedoom", "valid-other", "GPL-2, MIT",
        (("drums", folder / "drums.flac"), ("bass", folder / "bass.flac")),
    )  # fmt: skip
    assert rendered_songs.list_rendered_songs() == [song]
