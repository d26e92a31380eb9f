"""The measures of other packages: right way round, right rate, nothing for silence."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from places import DEMO
from stemprover.engine.errors import OptionError
from stemprover.engine.metrics import listening as lm
from stemprover.engine.metrics.scorecard import KINDS, WITH_TRUTH, check_extras, measure

RATE = 44100


@pytest.fixture(scope="module")
def voice() -> dict[str, np.ndarray]:
    return {
        name: soundfile.read(DEMO / f"{name}.flac", dtype="float32")[0].T[:, 2 * RATE : 5 * RATE]
        for name in ("truth", "separated", "song")
    }


@pytest.mark.parametrize(("score", "best"), [(lm.pesq_score, 4.64), (lm.stoi_score, 1.0)])
def test_speech_scores_fall_with_the_noise(score, best: float, voice: dict[str, np.ndarray]) -> None:  # type: ignore[no-untyped-def]
    truth = voice["truth"]
    noise = np.random.default_rng(0).standard_normal(truth.shape) * np.sqrt(np.mean(truth**2))
    found = [score(truth + share * noise, truth, RATE) for share in (0.0, 0.1, 1.0)]
    assert found[0] == pytest.approx(best, abs=0.01)
    assert found[0] > found[1] > found[2]
    assert np.isnan(score(truth, np.zeros_like(truth), RATE))
    assert np.isnan(score(truth[:, :400], truth[:, :400], RATE))


def test_bss_eval_knows_what_leaks(voice: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    truth, rest, noise = rng.standard_normal((3, 2, RATE))
    leaky = lm.bss_eval(truth + 0.1 * rest, truth, truth + rest)
    assert leaky["SIR"] == pytest.approx(20.0, abs=1.0)
    assert leaky["SAR"] > leaky["SIR"] + 10
    noisy = lm.bss_eval(truth + 0.1 * noise, truth)
    assert noisy["SDR"] == pytest.approx(20.0, abs=1.0)
    assert "SIR" not in noisy
    assert lm.bss_eval(truth, np.zeros_like(truth)) == {}


def test_the_perceptual_score() -> None:
    """In a process of its own and without compiling, which would take a minute: two seconds of sound."""
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


def test_the_scorecard_has_every_measure_once(voice: dict[str, np.ndarray]) -> None:
    found = measure(voice["separated"], voice["truth"], voice["truth"], voice["song"], RATE, ("speech", "bsseval"))
    assert found.keys() <= KINDS.keys()
    assert {one.name for one in WITH_TRUTH} | {"PESQ", "STOI", "BSSEval SDR", "BSSEval SIR"} <= found.keys()
    for name, (before, after) in found.items():
        better = KINDS[name][1]
        if better and "Kurtosis" not in name:
            assert (after > before) == (better == "higher"), name
    assert "PESQ" not in measure(voice["truth"], voice["truth"], voice["truth"], None, RATE)


def test_an_unknown_extra() -> None:
    with pytest.raises(OptionError, match="'mos' is unknown; choose from perceptual, speech, bsseval"):
        check_extras(["speech", "mos"])
