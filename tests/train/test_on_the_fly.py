"""Material that is made during a run: from true stems, the same after resuming, and deleted in the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import SMALL
from stemprover.engine.errors import OptionError, TrainingError
from stemprover.engine.features import FeatureMaker
from stemprover.engine.train import on_the_fly, trainer
from stemprover.engine.train.corpus.pool import open_shard
from stemprover.engine.train.dataset import CropConfig, PoolBatches
from stemprover.engine.train.loop import train
from stemprover.engine.train.on_the_fly import OnTheFlyConfig, OnTheFlyMaker, OnTheFlyShards
from stemprover.engine.train.options import TrainOptions, load_options

CONFIG = OnTheFlyConfig(share=0.7, items=2, every=2, window=2)


def halves(mix: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    return {extension: dict.fromkeys(("vocals", "accompaniment"), mix / 2) for extension in ("zeros", "average")}


class Halver:
    """Replaces Spleeter, whose weights would have to be downloaded."""

    def __init__(self, device: object) -> None:
        self.separate_all = halves


def maker(pool: Path, folder: Path, seed: int = 1) -> OnTheFlyMaker:
    return OnTheFlyMaker(pool, OnTheFlyShards(folder, CONFIG), halves, seed)


def options(pool: Path, run: Path, **changes: object) -> TrainOptions:
    given = {
        "run": run, "pool": pool, "steps": 7, "threads": 1, "workers": 0, "device": "cpu", "bf16": False,
        "warmup": 2, "validate_every": 1000, "crop": CropConfig(batch=2, frames=8), "model": SMALL,
        "on_the_fly": CONFIG,
    } | changes  # fmt: skip
    return TrainOptions(**given)  # type: ignore[arg-type]


def test_a_shard_holds_new_mixes_of_true_stems_and_is_reproducible(pool: Path, tmp_path: Path) -> None:
    a, b = (open_shard(maker(pool, tmp_path / name).make(3))[0] for name in "ab")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, open_shard(maker(pool, tmp_path / "c").make(4))[0])
    assert not np.array_equal(a, open_shard(maker(pool, tmp_path / "d", seed=2).make(3))[0])
    for item in a.astype(float):
        assert np.abs(item[2] - (item[0] + item[1]) / 2).max() <= 1, "separated: half of the mix of both"
        assert np.square(item[:2]).mean(axis=(1, 2)).min() > 0


def test_the_window_of_shards_moves_with_the_batches() -> None:
    shards = OnTheFlyShards(Path("x"), OnTheFlyConfig(every=10, window=3))
    assert [list(shards.numbers(batch)) for batch in (0, 9, 10, 25, 47)] == [[0], [0], [0, 1], [0, 1, 2], [2, 3, 4]]


def test_a_run_trains_on_it_and_deletes_it_afterwards(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "Spleeter", Halver)
    drawn: list[int] = []
    draw = OnTheFlyShards.draw

    def note(self: OnTheFlyShards, rng: np.random.Generator, batch: int) -> np.ndarray:
        drawn.append(batch)
        return draw(self, rng, batch)

    monkeypatch.setattr(OnTheFlyShards, "draw", note)
    path = train(options(pool, tmp_path), lambda line: None)
    assert path.exists()
    assert len(set(drawn)) >= 4, "with a share of 0.7 most batches use it"
    assert not list(tmp_path.rglob("shard_*"))


def test_a_batch_is_the_same_after_resuming(pool: Path, tmp_path: Path) -> None:
    found = []
    for name in "ab":
        one = maker(pool, tmp_path / name)
        batches = PoolBatches(pool, "train", FeatureMaker(), CropConfig(batch=2, frames=8), 1, one.shards)
        one.start(5)
        found.append(batches[5])
        one.stop()
    assert np.array_equal(found[0].stem, found[1].stem)
    assert np.array_equal(found[0].truth, found[1].truth)


def test_a_failure_in_the_thread_ends_the_run(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Halver):
        def __init__(self, device: object) -> None:
            self.separate_all = None  # type: ignore[assignment]

    monkeypatch.setattr(trainer, "Spleeter", Failing)
    monkeypatch.setattr(on_the_fly, "_PATIENCE_S", 0.2)
    with pytest.raises(TrainingError, match="making material on the fly failed|was not made"):
        train(options(pool, tmp_path), lambda line: None)


def test_invalid_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"share=1.5 in \[on_the_fly\] is a fraction"):
        OnTheFlyConfig(share=1.5)
    with pytest.raises(TrainingError, match=r"every=0 in \[on_the_fly\]: use 1 or more"):
        OnTheFlyConfig(every=0)
    (tmp_path / "x.toml").write_text("[on_the_fly]\nshare = 0.5\nevry = 3\n")
    with pytest.raises(OptionError, match=r"unknown key 'evry' in \[on_the_fly\]; did you mean 'every'"):
        load_options(tmp_path / "x.toml")
