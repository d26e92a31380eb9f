"""The comparison with other methods: its arithmetic, and the methods that need no extra package."""

from __future__ import annotations

import numpy as np
import pytest
from stemprover.benchmarks.peers import Score, measure, noise_gate, render, soft_mask_wiener

RATE = 44100


def test_gains_of_a_method_that_helps_and_of_one_that_does_nothing() -> None:
    rng = np.random.default_rng(0)
    truth, rest = rng.standard_normal((2, 2, RATE)).astype(np.float32) * 0.1
    sounds = {"truth": truth, "degraded": truth + 0.1 * rest, "mix": truth + rest}
    nothing = measure("nothing", lambda stem, mix, rate: stem, "bleed", sounds, RATE)
    assert (nothing.si_sdr_gain, nothing.distance_gain) == (0.0, 0.0)
    assert nothing.clean_sdr_db == np.inf
    better = measure("helps", lambda stem, mix, rate: 0.5 * (stem + truth), "bleed", sounds, RATE)
    assert better.si_sdr_gain == pytest.approx(20 * np.log10(2), abs=0.01)
    assert better.distance_gain > 0.0


def test_the_soft_mask_takes_the_mix_in_bins_that_are_the_stems_alone() -> None:
    t = np.arange(RATE) / RATE
    truth, rest = (np.repeat(0.3 * np.sin(2 * np.pi * f * t)[None], 2, axis=0).astype(np.float32) for f in (440, 5000))
    made = soft_mask_wiener(0.9 * truth, truth + rest, RATE)
    inner = slice(8192, -8192)
    np.testing.assert_allclose(made[:, inner], truth[:, inner], rtol=0.0, atol=0.02)


def test_the_noise_gate_leaves_loud_audio_unchanged() -> None:
    stem = 0.5 * np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)
    made = noise_gate(stem, stem, RATE)
    assert made.shape == stem.shape
    np.testing.assert_allclose(made[:, 4410:], stem[:, 4410:], rtol=0.0, atol=0.05)


def test_the_table_has_the_medians_of_each_method() -> None:
    scores = [Score("a", kind, gain, -gain, 50.0, 0.25) for kind in ("x", "y") for gain in (1.0, 2.0, 9.0)]
    table = render([*scores, *(Score("b", kind, 0.0, 0.0, np.inf, 0.0) for kind in ("x", "y"))])
    rows = [" ".join(line.split()) for line in table.splitlines()]
    assert "| a | +2.00 / -2.00 | +2.00 / -2.00 | 50.0 dB | 0.250 |" in rows
    assert "| b | +0.00 / +0.00 | +0.00 / +0.00 | 120.0 dB | 0.000 |" in rows
