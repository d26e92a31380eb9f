"""Measures from other packages: direction, sample rate, and nan for silence."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from paths import DEMO
from stemprover.engine.errors import OptionError
from stemprover.engine.metrics import listening as lm
from stemprover.engine.metrics.scorecard import MEASURE_INFO, WITH_TRUTH, check_extras, measure

RATE = 44100


@pytest.fixture(scope="module")
def voice() -> dict[str, np.ndarray]:
    return {
        name: soundfile.read(DEMO / f"{name}.flac", dtype="float32")[0].T[:, 2 * RATE : 5 * RATE]
        for name in ("truth", "separated", "song")
    }


@pytest.mark.parametrize(("score", "best"), [(lm.pesq_score, 4.64), (lm.stoi_score, 1.0)])
def test_speech_scores_fall_as_noise_rises(score, best: float, voice: dict[str, np.ndarray]) -> None:  # type: ignore[no-untyped-def]
    truth = voice["truth"]
    noise = np.random.default_rng(0).standard_normal(truth.shape) * np.sqrt(np.mean(truth**2))
    scores = [score(truth + gain * noise, truth, RATE) for gain in (0.0, 0.1, 1.0)]
    assert scores[0] == pytest.approx(best, abs=0.01)
    assert scores[0] > scores[1] > scores[2]
    assert np.isnan(score(truth, np.zeros_like(truth), RATE))
    assert np.isnan(score(truth[:, :400], truth[:, :400], RATE))


def test_bss_eval_tells_leakage_from_noise(voice: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    truth, residual, noise = rng.standard_normal((3, 2, RATE))
    leaky = lm.bss_eval(truth + 0.1 * residual, truth, truth + residual)
    assert leaky["SIR"] == pytest.approx(20.0, abs=1.0)
    assert leaky["SAR"] > leaky["SIR"] + 10
    noisy = lm.bss_eval(truth + 0.1 * noise, truth)
    assert noisy["SDR"] == pytest.approx(20.0, abs=1.0)
    assert "SIR" not in noisy
    assert lm.bss_eval(truth, np.zeros_like(truth)) == {}


def test_the_perceptual_score_falls_as_noise_rises() -> None:
    """Runs in a separate process without compilation, which would take a minute, on two seconds of audio."""
    script = (
        "import numpy as np\n"
        "from stemprover.engine.metrics.listening import perceptual_score\n"
        "rng = np.random.default_rng(0)\n"
        "t = np.arange(2 * 44100) / 44100\n"
        "bursts = np.exp(-5.0 * (3.1 * t % 1.0))\n"
        "truth = np.stack([np.sin(2 * np.pi * f * t) for f in (440, 660)]) * 0.3 * bursts\n"
        "noise = rng.standard_normal(truth.shape)\n"
        "scores = [perceptual_score(truth + a * noise, truth, 44100) for a in (0.0, 0.003, 0.1)]\n"
        "assert scores[0] > 95 and scores[0] > scores[1] > scores[2], scores\n"
        "assert np.isnan(perceptual_score(truth, 0 * truth, 44100))\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_the_scorecard_contains_every_measure(voice: dict[str, np.ndarray]) -> None:
    values = measure(voice["separated"], voice["truth"], voice["truth"], voice["song"], RATE, ("speech", "bsseval"))
    assert values.keys() <= MEASURE_INFO.keys()
    assert {one.name for one in WITH_TRUTH} | {"PESQ", "STOI", "BSSEval SDR", "BSSEval SIR"} <= values.keys()
    for name, (before, after) in values.items():
        better = MEASURE_INFO[name][1]
        if better and "kurtosis" not in name:
            assert (after > before) == (better == "higher"), name
    assert "PESQ" not in measure(voice["truth"], voice["truth"], voice["truth"], None, RATE)


def test_an_unknown_extra_raises_an_error() -> None:
    with pytest.raises(OptionError, match="unknown measure 'mos'; choose from perceptual, speech, bsseval"):
        check_extras(["speech", "mos"])
