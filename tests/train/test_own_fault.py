"""The benchmark of an adapter of one's own: pairs that training takes, and figures that say what they mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from stemprover.benchmarks.own_fault import measured, songs, with_gated_reverb, write_pairs
from stemprover.engine.repair import Repairer
from stemprover.engine.train.pairs import find_pairs


def test_its_pairs_are_what_training_takes(pool: Path, tmp_path: Path) -> None:
    write_pairs(pool, tmp_path, 2)
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["000", "001"]
    before, after, mix = (soundfile.read(path)[0] for path in (pairs[0].before, pairs[0].after, pairs[0].mix))
    assert before.shape == after.shape == mix.shape
    tail = before - after
    assert 0.1 < np.std(tail) / np.std(after) < 2.0


def test_the_tail_is_cut_off() -> None:
    knock = np.zeros((2, 88_200), np.float32)
    knock[:, :2000] = 0.5 * np.random.default_rng(0).standard_normal((2, 2000))
    wet = with_gated_reverb(knock) - knock
    assert np.abs(wet[:, 4000:8000]).max() > 0.01
    assert np.abs(wet[:, -20_000:]).max() < 1e-3


def test_who_does_nothing_gains_nothing(pool: Path, untrained_bundle: Path) -> None:
    cases = list(songs(pool, "valid", 1))
    repairer = Repairer(bundle=untrained_bundle, jobs=1)
    assert measured(repairer, cases) == ("+0.00 dB (worst +0.00)", "+0.00 dB", "inf dB (worst inf)")
