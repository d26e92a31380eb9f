"""Building a corpus from a user's stems: its contents, how an interrupted build continues, and what it refuses."""

import hashlib
import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from stemprover.engine.errors import TrainingError
from stemprover.engine.features import LAYOUT, FeatureMaker
from stemprover.engine.train.corpus import build, collect, manifest
from stemprover.engine.train.corpus.build import CorpusOptions, build_corpus
from stemprover.engine.train.corpus.collect import list_sources, make_sources, singers_per_song
from stemprover.engine.train.corpus.faulty import FIRST_VERSION, TRACKS, VERSIONS, faulty_shards
from stemprover.engine.train.corpus.four_stems import train_four_stems
from stemprover.engine.train.corpus.layouts import split_of
from stemprover.engine.train.corpus.pool import open_shard, shard_paths
from stemprover.engine.train.corpus.sources import SAMPLE_RATE, CorpusError, Source
from stemprover.engine.train.dataset import CropConfig, PoolBatches
from stemprover.engine.train.faults.factory import FAMILIES, known, unknown
from stemprover.engine.train.faults.registry import MECHANISMS

LENGTH = SAMPLE_RATE // 2
STEMS = ("mixture", "vocals", "drums", "bass", "other")


def halves(mix: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """A separator that returns half of the mix as each stem."""
    return {extension: dict.fromkeys(("vocals", "accompaniment"), mix / 2) for extension in ("zeros", "average")}


def quiet(line: str) -> None:
    pass


@pytest.fixture
def stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny MUSDB18-HQ: two training songs, one held out by its name, and two test songs. The cache is empty."""
    monkeypatch.setenv("STEMPROVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STEMPROVER_STEMS", raising=False)
    monkeypatch.setattr(collect, "make_singing", lambda source, say, per_song: [])
    names = [f"Artist - Song {n}" for n in range(100)]
    train, valid = ([name for name in names if split_of(name) == split] for split in ("train", "valid"))
    rng = np.random.default_rng(0)
    for subset, songs in (("train", [*train[:2], valid[0]]), ("test", train[2:4])):
        for song in songs:
            folder = tmp_path / "musdb" / subset / song
            folder.mkdir(parents=True)
            for stem in STEMS:
                sf.write(folder / f"{stem}.wav", 0.1 * rng.standard_normal((2 * SAMPLE_RATE, 2)), SAMPLE_RATE)
    return tmp_path / "musdb"


@pytest.fixture
def options(tmp_path: Path, stems: Path) -> CorpusOptions:
    """Four training items of half a second, in shards of two."""
    return CorpusOptions(
        tmp_path / "corpus", (stems,), hours=4 * 0.5 / 3600, packages=False, items_held_out=3, item_samples=LENGTH,
        per_shard=2, four_stems=0.0,
    )  # fmt: skip


def shards(folder: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(folder.rglob("shard_*.npy"))}


def test_songs_become_a_pool_with_a_manifest(options: CorpusOptions, stems: Path) -> None:
    lines: list[str] = []
    about = build_corpus(options, lines.append, halves)
    assert about == json.loads((options.folder / "manifest.json").read_text())
    assert {split: len(shard_paths(options.folder / split)) for split in ("train", "valid", "test")} == {
        "train": 2, "valid": 2, "test": 2,
    }  # fmt: skip
    assert about["pool"] == pytest.approx({"train": 2 / 3600, "valid": 2 / 3600, "test": 1.5 / 3600}, abs=1e-3)
    assert any(line.startswith("train shard_000.npy: 2 items") and "1 more" in line for line in lines)
    assert "valid-other: no sources, skipped" in lines
    entry = next(entry for entry in about["sources"] if entry["role"] == "accompaniment" and entry["split"] == "test")
    assert (entry["collection"], entry["kind"], entry["licence"]) == ("MUSDB18-HQ", "song", "not stated")
    assert entry["minutes"] == round(2 / 60, 2)
    assert len(entry["files"]) == 3
    for file in entry["files"]:
        data = (stems / file["file"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert not list(options.folder.rglob("*.part"))


def test_no_held_out_song_is_in_the_training_items(options: CorpusOptions) -> None:
    about = build_corpus(replace(options, hours=20 * 0.5 / 3600), quiet, halves)
    held = {entry["name"].split("/")[0] for entry in about["sources"] if entry["split"] != "train"}
    assert len(held) == 3
    for path in shard_paths(options.folder / "train"):
        for info in open_shard(path)[1]:
            assert not any(song in json.dumps(info) for song in held)
    for split, songs in (("valid", 1), ("test", 2)):
        infos = [info for path in shard_paths(options.folder / split) for info in open_shard(path)[1]]
        used = {info[role].split("/")[0] for info in infos for role in ("vocals", "band")}
        assert used == {entry["name"].split("/")[0] for entry in about["sources"] if entry["split"] == split}
        assert len(used) == songs


def test_a_held_out_song_without_vocals_is_skipped(options: CorpusOptions, stems: Path) -> None:
    song = next(path for path in (stems / "train").iterdir() if split_of(path.name) == "valid")
    (song / "vocals.wav").unlink()
    assert build_corpus(options, quiet, halves)["pool"].keys() == {"train", "test"}


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_an_interrupted_build_continues_and_gives_the_same_shards(
    options: CorpusOptions, tmp_path: Path, after: int
) -> None:
    whole = replace(options, folder=tmp_path / "whole")
    build_corpus(whole, quiet, halves)
    separated = []

    def stopping(mix: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        separated.append(mix)
        if len(separated) > after:
            raise KeyboardInterrupt
        return halves(mix)

    with pytest.raises(KeyboardInterrupt):
        build_corpus(options, quiet, stopping)
    times = {path: path.stat().st_mtime_ns for path in options.folder.rglob("shard_*.npy")}
    build_corpus(options, quiet, halves)
    assert shards(options.folder) == shards(whole.folder)
    assert {path: path.stat().st_mtime_ns for path in times} == times, "a finished shard was made again"
    separated.clear()
    build_corpus(options, quiet, stopping)
    assert not separated, "a finished corpus was built again"


def test_the_second_separator_adds_its_own_items(options: CorpusOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def train(sources: list[Source], out: Path, minutes: float, say: object) -> None:
        trained.append(minutes)
        train_four_stems(sources, out, minutes, batch=1, frames=16, steps=1, say=quiet)

    monkeypatch.setattr(build, "train_four_stems", train)
    build_corpus(options, quiet, halves)
    before = shards(options.folder)
    more = replace(options, four_stems=0.5)
    about = build_corpus(more, quiet, halves)
    after = shards(options.folder)
    assert {name: after[name] for name in before} == before
    names = sorted(set(after) - set(before))
    assert names == [f"{split}/shard_{number}.npy" for split in ("test", "train") for number in range(1000, 1004)]
    assert about["pool"]["train"] == pytest.approx((4 + 8) * 0.5 / 3600, abs=1e-3)
    held = {entry["name"].split("/")[0] for entry in about["sources"] if entry["split"] != "train"}
    for number, stem in enumerate(("drums", "bass", "other", "vocals"), 1000):
        tracks, infos = open_shard(options.folder / "train" / f"shard_{number}.npy")
        for item, info in zip(tracks, infos, strict=True):
            assert info["stem"] == stem
            assert not any(song in json.dumps(info) for song in held)
            true, rest, made, other = (item[i].astype(float) for i in (0, 1, 4, 5))
            assert np.abs(made + other - true - rest)[:, 4096:-4096].max() < 0.02 * 32767, "masks sum to one"
    build_corpus(more, quiet, halves)
    assert shards(options.folder) == after
    assert len(trained) == 1


def test_more_hours_add_shards_and_keep_the_old_ones(options: CorpusOptions) -> None:
    build_corpus(options, quiet, halves)
    before = shards(options.folder)
    about = build_corpus(replace(options, hours=2 * options.hours), quiet, halves)
    after = shards(options.folder)
    assert len(after) == len(before) + 2
    assert {name: after[name] for name in before} == before
    assert about["pool"]["train"] == round(4 / 3600, 3)


def test_changed_sources_and_foreign_folders_are_refused(options: CorpusOptions, stems: Path, tmp_path: Path) -> None:
    build_corpus(options, quiet, halves)
    before = shards(options.folder)
    song = next(path for path in sorted((stems / "train").iterdir()) if split_of(path.name) == "train")
    original = (song / "bass.wav").read_bytes()
    (song / "bass.wav").write_bytes(original[:-400] + bytes(400))
    with pytest.raises(CorpusError, match=rf"other sources \(changed: {song.name}/accompaniment\)"):
        build_corpus(options, quiet, halves)
    (song / "bass.wav").write_bytes(original)
    with pytest.raises(CorpusError, match="seed 1"):
        build_corpus(replace(options, seed=2), quiet, halves)
    assert shards(options.folder) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(CorpusError, match=r"something else \(notes\.txt\)"):
        build_corpus(replace(options, folder=other), quiet, halves)
    (other / "notes.txt").rename(other / "manifest.json")
    with pytest.raises(CorpusError, match="is not a manifest"):
        build_corpus(replace(options, folder=other), quiet, halves)
    (other / "manifest.json").unlink()
    (other / "train").mkdir()
    with pytest.raises(CorpusError, match=r"a pool without manifest\.json"):
        build_corpus(replace(options, folder=other), quiet, halves)
    with pytest.raises(CorpusError, match="is a file"):
        build_corpus(replace(options, folder=song / "bass.wav"), quiet, halves)


def test_a_full_disk_is_reported_before_anything_is_written(
    options: CorpusOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(build.shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 10**6))
    with pytest.raises(CorpusError, match=r"0\.0 GB are free: use fewer --hours"):
        build_corpus(replace(options, hours=1.0), quiet, halves)
    assert not shards(options.folder)


def test_checksums_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, store = tmp_path / "a.wav", tmp_path / "cache" / "hashes.json"
    file.write_bytes(b"sound")
    hashes = manifest.Hashes(store)
    first = hashes.of(file)
    hashes.save()
    calls = []
    whole = hashlib.file_digest
    monkeypatch.setattr(manifest.hashlib, "file_digest", lambda *given: calls.append(1) or whole(*given))
    assert manifest.Hashes(store).of(file) == first == hashlib.sha256(b"sound").hexdigest()
    assert not calls
    file.write_bytes(b"other sound")
    assert manifest.Hashes(store).of(file) != first
    assert calls == [1]


def test_unusable_options_and_stems_give_clear_errors(options: CorpusOptions, stems: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nothing to build from"):
        CorpusOptions(tmp_path / "x", packages=False)
    with pytest.raises(CorpusError, match="hours=0"):
        replace(options, hours=0.0)
    with pytest.raises(CorpusError, match=r"two songs are called .* in .*musdb and .*musdb"):
        make_sources([stems, stems], False, quiet)
    for path in stems.rglob("vocals.wav"):
        path.unlink()
    with pytest.raises(CorpusError, match="no vocals to train on"):
        build_corpus(options, quiet, halves)
    assert not options.folder.exists()


def test_many_songs_need_no_resynthesised_singers(tmp_path: Path) -> None:
    def songs(count: int) -> list[Source]:
        return [
            Source(f"{n}/vocals", "vocals", "song", str(n), "", "train", (tmp_path / "v.wav",)) for n in range(count)
        ]

    assert [singers_per_song(songs(n)) for n in (0, 4, 10, 40, 80)] == [0, 5, 4, 1, 0]


def test_the_command_line_builds_and_lists(
    run_cli, stems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = run_cli("corpus", "list", "--stems", stems, "--no-packages")
    assert listed.code == 0
    rows = [line.split("  ") for line in listed.out.splitlines()]
    assert [cell.strip() for cell in rows[0] if cell] == ["from", "kind", "split", "licence", "minutes"]
    assert sum(row[0] == "MUSDB18-HQ" for row in rows) == 6, "vocals and accompaniment of three splits"
    assert any(line.startswith("test: 0.00 h") for line in listed.out.splitlines())
    assert list_sources([stems], False, quiet)
    monkeypatch.setattr(build, "build_corpus", lambda *_, **__: {"pool": {"train": 8.0}, "sources": [1, 2]})
    built = run_cli("corpus", "build", tmp_path / "out", "--stems", stems, "--no-packages", "--hours", "8")
    assert (built.code, built.out) == (
        0, f"{tmp_path}/out: train 8.00 h; 2 sources in {tmp_path}/out/manifest.json\n",
    )  # fmt: skip

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "build_corpus", stopped)
    built = run_cli("corpus", "build", tmp_path / "out", "--stems", stems)
    assert (built.code, built.out) == (130, "Stopped; run the same command again to continue.\n")
    for arguments, message in (
        (["--no-packages"], "nothing to build from"),
        (["--stems", tmp_path / "no", "--hours", "0"], "--hours 0 is out of range"),
    ):
        wrong = run_cli("corpus", "build", tmp_path / "out", *arguments)
        assert wrong.code == 2
        assert wrong.err.startswith("Error: ")
        assert message in wrong.err
        assert len(wrong.err.splitlines()) == 1
    wrong = run_cli("corpus", "list", "--stems", tmp_path / "no")
    assert wrong.code == 2
    assert "is not a folder" in wrong.err


def test_only_held_out_splits_have_faulty_stems_with_held_out_mechanisms(options: CorpusOptions) -> None:
    build_corpus(options, quiet, halves)
    trained, held_out = {m.name for m in known()}, {m.name for m in unknown()}
    for split, count in (("train", 2), ("valid", 2), ("test", 2)):
        paths = faulty_shards(options.folder, split)
        assert len(paths) == count
        for path in paths:
            items, infos = open_shard(path)
            assert items.shape == (2, 2 + VERSIONS, 2, LENGTH)
            assert json.loads(path.with_suffix(".json").read_text())["tracks"] == list(TRACKS)
            for info in infos:
                for version, names in enumerate(info["faults"]):
                    assert set(names) <= (held_out if split != "train" and version % 2 == 0 else trained)
                    assert split == "train" or len(names) == 1
            stem, versions = items[:, 0], items[:, FIRST_VERSION:]
            assert (versions != stem[:, None]).any(axis=(2, 3)).mean() > 0.9


def test_faulty_shards_are_made_again_as_they_were(options: CorpusOptions) -> None:
    build_corpus(options, quiet, halves)
    path = faulty_shards(options.folder, "train")[1]
    before = path.read_bytes()
    path.unlink()
    build_corpus(options, quiet, halves)
    assert path.read_bytes() == before


def test_crops_are_cut_from_faulty_stems(options: CorpusOptions) -> None:
    build_corpus(replace(options, item_samples=3 * LENGTH), quiet, halves)
    config = CropConfig(batch=8, frames=8, history=4, lookahead=4, faulty=1.0, clean=0.0, mono=0.0, blend=0.0)
    batches = PoolBatches(options.folder, "train", FeatureMaker(), config, seed=1)
    again = PoolBatches(options.folder, "train", FeatureMaker(), config, seed=1)
    assert batches.paths == []
    np.testing.assert_array_equal(batches[3].stem, again[3].stem)
    assert not batches[0].clean.all()
    role = np.concatenate([batches[n].control[:, LAYOUT.role, 0, 0] for n in range(8)])
    assert set(role.sum(axis=1)) == {0.0, 1.0}, "in a quarter of the crops it is not told"
    with pytest.raises(TrainingError, match="has no faulty stems: build the pool again"):
        PoolBatches(options.folder, "valid-other", FeatureMaker(), config, seed=1)
    infos = [open_shard(path)[1] for path in batches.faulty_paths]
    for family in FAMILIES:
        wanted = {
            (shard, item, FIRST_VERSION + version)
            for shard, about in enumerate(infos)
            for item, info in enumerate(about)
            for version, names in enumerate(info["faults"])
            if family in {MECHANISMS[name].family for name in names}
        }
        if not wanted:
            with pytest.raises(TrainingError, match="has no faulty stems of these families"):
                PoolBatches(options.folder, "train", FeatureMaker(), replace(config, families=(family,)), seed=1)
            continue
        only = PoolBatches(options.folder, "train", FeatureMaker(), replace(config, families=(family,)), seed=1)
        assert {place[:3] for place in only._versions} == wanted
        assert np.abs(only[0].stem - only[0].truth).max() > 0.0
    with pytest.raises(TrainingError, match="families=\\['hum'\\]: use any of"):
        replace(config, families=("hum",))
