"""The benchmark of a user's own adapter: its pairs suit the training, and its figures are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from stemprover.benchmarks.custom_adapter import measured, songs, with_gated_reverb, write_pairs
from stemprover.engine.repair import Repairer
from stemprover.engine.train.pairs import find_pairs


def test_training_accepts_its_pairs(pool: Path, tmp_path: Path) -> None:
    write_pairs(pool, tmp_path, 2)
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["000", "001"]
    before, after, mix = (soundfile.read(path)[0] for path in (pairs[0].before, pairs[0].after, pairs[0].mix))
    assert before.shape == after.shape == mix.shape
    tail = before - after
    assert 0.1 < np.std(tail) / np.std(after) < 2.0


def test_the_gate_cuts_off_the_reverb_tail() -> None:
    knock = np.zeros((2, 88_200), np.float32)
    knock[:, :2000] = 0.5 * np.random.default_rng(0).standard_normal((2, 2000))
    wet = with_gated_reverb(knock) - knock
    assert np.abs(wet[:, 4000:8000]).max() > 0.01
    assert np.abs(wet[:, -20_000:]).max() < 1e-3


def test_a_model_that_corrects_nothing_gains_nothing(pool: Path, untrained_bundle: Path) -> None:
    cases = list(songs(pool, "valid", 1))
    repairer = Repairer(bundle=untrained_bundle, wet=0.0, jobs=1)
    assert measured(repairer, cases) == ("+0.00 dB (worst +0.00)", "+0.00 dB", "inf dB (worst inf)")
