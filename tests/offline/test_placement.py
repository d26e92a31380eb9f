"""The common time of a set of stems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sounds import noise
from stemprover.engine.mix.fit import MixFit, Routing
from stemprover.engine.mix.timing import Stretch, TimeMap
from stemprover.offline.audiofile import probe
from stemprover.offline.placement import Placement, common_fit

RATE, SAMPLES = 44100, 88200
FIT = MixFit.shifted(2, 0)


def test_most_stems_decide_and_of_two_the_one_in_step() -> None:
    late, early = MixFit.shifted(2, -1), MixFit.shifted(2, 500)
    assert common_fit([late, FIT], SAMPLES) is FIT
    assert common_fit([late, early, early], SAMPLES) is early
    assert common_fit([MixFit.shifted(2, 0, -1.0), FIT], SAMPLES) is FIT


def test_a_stem_in_step_with_the_others_stays_as_it_is() -> None:
    common = MixFit.shifted(2, 500, -0.5)
    assert Placement.between(common, common, SAMPLES).is_plain


@given(st.integers(-5000, 5000), st.integers(-5000, 5000))
def test_a_stem_comes_to_the_common_time(own: int, common: int) -> None:
    placement = Placement.between(MixFit.shifted(2, own), MixFit.shifted(2, common), SAMPLES)
    assert placement.time == TimeMap.constant(common - own)


@given(st.floats(-1e-4, 1e-4), st.integers(-100, 100), st.integers(10_000, 80_000))
def test_drifts_and_slips_are_undone(drift: float, offset: int, slip: int) -> None:
    own = TimeMap((Stretch(0, offset, drift), Stretch(slip, offset + 20, 0.0)))
    placement = Placement.between(replace(FIT, time=own), FIT, SAMPLES)
    at = np.linspace(0, SAMPLES - 1, 50)
    there = at + placement.time.offsets(at)
    away = np.abs(there - slip) > 200
    np.testing.assert_allclose((there + own.offsets(there))[away], at[away], atol=0.1)


def test_channels_and_polarity_are_undone(make_audio: Callable[..., Path]) -> None:
    audio = noise(1.0, RATE)
    info = probe(make_audio("stem.wav", levels=audio, subtype="FLOAT"))
    fit = replace(FIT, routing=Routing((1, 0), (-1, 1)))
    placement = Placement.between(fit, FIT, SAMPLES)
    found = np.concatenate(list(placement.scaled(0.5).read(info, RATE)), axis=1)
    np.testing.assert_array_equal(found, 0.5 * np.stack([audio[1], -audio[0]]))
    assert placement.describe() == ["has inverted polarity in some channels", "has its channels swapped"]


@pytest.mark.parametrize(
    ("offset", "told"), [(-1, "is 1 sample late"), (2, "is 2 samples early"), (-0.5, "is 0.50 samples late")]
)
def test_a_stem_that_is_off_is_described(offset: float, told: str) -> None:
    assert Placement.between(MixFit.shifted(2, offset), FIT, SAMPLES).describe() == [told]
