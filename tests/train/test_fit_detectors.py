"""How the detectors' thresholds are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from models import sound
from stemprover.engine.detect.detectors import TYPES, WEIGHTS, Detectors
from stemprover.engine.detect.score import file_scores
from stemprover.engine.train.fit_detectors import FLOORS, Clip, area_under_curve, levels, spectrum


def test_the_worst_class_sets_the_thresholds() -> None:
    """A class whose true stems score high sets the threshold, however many others there are."""
    residual = sound(4.0, seed=9)
    clips = [Clip(sound(4.0, seed=i), sound(4.0, seed=i) + residual, None, {}, "easy") for i in range(3)]
    leaky = [
        Clip(sound(4.0, seed=i) + 0.5 * residual, sound(4.0, seed=i) + residual, None, {}, "leaky") for i in range(2)
    ]
    faults = {name: sound(4.0, seed=20) + 0.3 * residual for name in TYPES}
    music = Clip(sound(4.0, seed=20), sound(4.0, seed=20) + residual, None, faults, "music")
    found = levels([*clips, *leaky, music], WEIGHTS)
    detectors = Detectors()
    bleed = TYPES.index("bleed")

    def score(clip: Clip) -> float:
        return file_scores(detectors(spectrum(clip.stem), spectrum(clip.mix), detectors.start())[0])[bleed]

    worst = sorted(score(clip) for clip in leaky)
    assert worst[0] <= found["song_threshold"][bleed] <= worst[1]
    assert found["song_threshold"][bleed] > max(score(clip) for clip in clips)
    for given in ("song", "alone"):
        assert found[f"{given}_beside"] == pytest.approx(FLOORS * found[f"{given}_typical"], rel=1e-5)
        assert (found[f"{given}_threshold"] >= found[f"{given}_beside"] * 0.9999).all()


def test_area_under_the_curve_of_separable_and_equal_scores() -> None:
    low, high = np.array([0.0, 1.0, 2.0]), np.array([3.0, 4.0])
    assert area_under_curve(low, high) == 1.0
    assert area_under_curve(high, low) == 0.0
    assert area_under_curve(low, low) == 0.5
