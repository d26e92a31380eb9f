"""A pool of one instrument's true stems."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stemprover.engine.train.cases import main as make_cases
from stemprover.engine.train.corpus import rendered_songs as takes
from stemprover.engine.train.corpus import true_stems
from stemprover.engine.train.corpus.layouts import Song
from stemprover.engine.train.corpus.pool import FULL_SCALE, ITEM_SAMPLES, open_shard, shard_paths
from stemprover.engine.train.corpus.sources import CorpusError
from stemprover.engine.train.corpus.true_stems import build_pool, excerpts


def make_song(folder: Path, name: str, split: str = "train", items: int = 2) -> Song:
    """Drums that fall silent after the first item, and vocals that are a little longer."""
    rng, stems = np.random.default_rng(len(name)), {}
    (folder / name).mkdir(parents=True)
    for stem, extra in (("drums", 0), ("vocals", 100)):
        sound = 0.3 * rng.standard_normal((items * ITEM_SAMPLES + 500 + extra, 2))
        if stem == "drums":
            sound[ITEM_SAMPLES:] = 0.0  # a pause, which is no material
        stems[stem] = folder / name / f"{stem}.wav"
        soundfile.write(stems[stem], sound, 44100, subtype="FLOAT")
    return Song(name, "tests", split, "CC0-1.0", tuple(stems.items()))


def test_an_instrument_is_heard_alone_and_each_item_sums_to_the_song(tmp_path: Path) -> None:
    song = make_song(tmp_path, "one")
    assert [len(list(excerpts(song, name))) for name in ("drums", "vocals")] == [1, 2]
    for drums, vocals in zip(excerpts(song, "drums"), excerpts(song, "vocals"), strict=False):
        np.testing.assert_allclose(drums.sum(axis=0), vocals.sum(axis=0), atol=1e-5)
        assert np.abs(drums).max() <= 1.0


def test_several_files_are_one_stem_and_one_alone_is_no_song(tmp_path: Path) -> None:
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
    with pytest.raises(CorpusError, match="has shards already"):
        build_pool(tmp_path / "pool", songs, ["drums"])
    with pytest.raises(CorpusError, match="no song has bass that sounds for 11.8 s beside another stem"):
        build_pool(tmp_path / "other", songs, ["bass"])


def test_the_command_makes_a_pool_that_cases_are_cut_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_song(tmp_path / "songs", "francium")  # a song that is held out by its name
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
    with pytest.raises(SystemExit, match="is there already"):
        true_stems.main()
    monkeypatch.setattr("sys.argv", ["true_stems", str(tmp_path / "none"), "--stem", "drums"])
    with pytest.raises(SystemExit, match="give a folder with --stems, or --takes"):
        true_stems.main()
    monkeypatch.setattr("sys.argv", [*command[:1], str(tmp_path / "none"), "--stem", "bass", *command[4:]])
    with pytest.raises(SystemExit, match="no song has bass"):
        true_stems.main()
    assert not list(tmp_path.glob("none*")), "nothing half made is left"
    arguments = ["cases", str(tmp_path / "pool"), str(tmp_path / "cases"), "--split", "valid", "--separated", "0"]
    monkeypatch.setattr("sys.argv", [*arguments, "--simulated", "1", "--roles", "v"])
    make_cases()
    cases = sorted((tmp_path / "cases" / "valid").glob("*/*"))
    assert len(cases) == 6
    monkeypatch.setattr("sys.argv", [*arguments[:-1], "1", "--roles", "v"])
    make_cases()
    clean = tmp_path / "cases" / "valid" / "clean"
    assert [path.name for path in clean.iterdir()] == ["000"], "a true stem is called so, and the rest is left out"
    assert sorted(path.name for path in (tmp_path / "cases" / "valid").iterdir())[1] == "clean"
    drums = soundfile.read(tmp_path / "songs" / "francium" / "drums.wav", stop=ITEM_SAMPLES)[0]
    for case in cases:
        truth = soundfile.read(case / "truth.flac")[0]
        assert np.corrcoef(truth[:, 0], drums[:, 0])[0, 1] > 0.999, "of the drums, not of the rest"


def test_takes_are_songs_of_several_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "take"
    folder.mkdir()
    about = {
        "split": "valid-other", "origin": "freedoom", "stems": ["drums", "bass"],
        "made_of": {"kit": "A", "kit_licence": "GPL-2", "bank_licence": "MIT", "score_licence": "GPL-2"},
    }  # fmt: skip
    (folder / "take.json").write_text(json.dumps(about))
    monkeypatch.setattr(takes, "_take_folders", lambda: [folder, tmp_path / "not-made-yet"])
    song = Song(
        "take", "takes-freedoom", "valid-other", "GPL-2, MIT",
        (("drums", folder / "drums.flac"), ("bass", folder / "bass.flac")),
    )  # fmt: skip
    assert takes.take_songs() == [song]
