"""What a separator's mask left is repaired from both sides and beside a Wiener filter, in files as in streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sound, streamed
from places import DEMO
from stemprover.engine.errors import OptionError
from stemprover.engine.repair import BOTH_SIDES, ONE_SIDE, Repairer
from stemprover.engine.segments import SegmentConfig
from stemprover.engine.stream import Shares, change_limit

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def from_both(lively_bundle: Path) -> Repairer:
    return Repairer(bundle=lively_bundle, steps=1, jobs=1, separated=True)


def test_what_repairs_the_rest_is_taken_from_the_stem() -> None:
    stem, song = (
        soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=3 * 44100)[0].T for name in ("separated", "song")
    )
    alone = Repairer(jobs=1, gated=False)
    change, other = alone.process(stem, 44100, song) - stem, alone.process(song - stem, 44100, song) - (song - stem)
    separated = Repairer(jobs=1, gated=False, separated=True)
    separated.shares = replace(BOTH_SIDES, wiener=0.0)
    found = separated.process(stem, 44100, song) - stem
    wanted = BOTH_SIDES.stem * change - BOTH_SIDES.rest * other
    assert np.sum(other**2) > 1e-2 * np.sum(change**2), "it must do something for this to say anything"
    assert np.sum((found - wanted) ** 2) < 1e-3 * np.sum(wanted**2), "all but what the song's limit takes"


def masked(seconds: float, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A stem in phase with the rest of its song, as a separator's mask leaves it, and the song."""
    stem = sound(seconds, channels=channels)
    song = stem + np.linspace(0.4, 0.8, channels, dtype=np.float32)[:, None] * stem
    return stem, song + np.float32(0.3) * sound(seconds, seed=2, channels=channels)


def test_the_wiener_filters_part_is_added_to_the_frames_that_it_belongs_to(from_both: Repairer) -> None:
    delta = replace(from_both.delta_stream(), shares=Shares(0.0, 0.0, 0.5))
    stem, song = (x[None, :, : 150 * delta.hop] for x in masked(2.0))
    change, before, _ = delta._spectra(stem, song, delta.start(), False)
    y, m = (delta.stft.analysis(x[0], delta.stft.start_analysis(2))[0][None] for x in (stem, song))
    places, _ = delta.wiener.measure(y, m - y, delta.wiener.start(1))
    ahead = delta.runtime.bundle.lookahead
    assert np.allclose(before[..., ahead:], y[..., :-ahead], atol=1e-4)
    wanted = 0.5 * delta.wiener.change(y[..., :-ahead], m[..., :-ahead], places[..., ahead:])
    error, size = (np.square(np.abs(x[..., 20:])).sum() for x in (change[..., ahead:] - wanted, wanted))
    assert error < 1e-3 * size, "all but what the song's limit takes"


def test_the_wiener_filter_is_for_what_a_mask_left(from_both: Repairer) -> None:
    delta = replace(from_both.delta_stream(), shares=Shares(0.0, 0.0, 0.5))
    true, rest = (0.1 * np.random.default_rng(n).standard_normal((1, 2, 90112)).astype(np.float32) for n in (1, 2))
    change, _ = delta.process(true, true + rest, delta.start())
    assert np.sum(change[..., 45056:] ** 2) < 1e-6 * np.sum(true[..., 45056:] ** 2), "a true stem is left alone"


@pytest.mark.parametrize("name", ["stem", "rest", "wiener"])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_wrong_shares_are_named(name: str, share: float) -> None:
    with pytest.raises(OptionError, match=f"{name}={share:g}"):
        replace(BOTH_SIDES, **{name: share})


def test_one_side_is_repaired_where_time_is_short(lively_bundle: Path) -> None:
    delta = Repairer(bundle=lively_bundle, separated=True, both_sides=False).delta_stream()
    assert delta.shares == ONE_SIDE
    assert len(delta.start().sides) == 1


@pytest.fixture(scope="module", params=["both sides", "one side"])
def from_sides(request: pytest.FixtureRequest, from_both: Repairer, lively_bundle: Path) -> Repairer:
    if request.param == "both sides":
        return from_both
    return Repairer(bundle=lively_bundle, steps=1, jobs=1, separated=True, both_sides=False)


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 40), st.integers(100, 20000))
def test_a_separated_stem_streamed_equals_whole(from_sides: Repairer, frames: int, block: int) -> None:
    stem, mix = masked(0.9)
    stem[:, 9000:30000] = 0.0
    whole = from_sides.process(stem, 44100, mix)
    assert np.abs(streamed(from_sides, stem, mix, 44100, block, frames) - whole).max() <= TOLERANCE


def test_from_both_sides_segments_equal_the_single_run_and_silence_stays_silent(lively_bundle: Path) -> None:
    stem, mix = masked(9.0, channels=4)
    stem[:, 150000:220000] = 0.0
    single, several = (
        Repairer(bundle=lively_bundle, steps=1, separated=True, jobs=jobs, segments=segments)
        for jobs, segments in ((1, SegmentConfig(10**6, 10**6)), (3, SegmentConfig(60, 130)))
    )
    whole = single.process(stem, 44100, mix)
    assert np.abs(several.process(stem, 44100, mix) - whole).max() <= TOLERANCE
    assert np.abs(whole - stem).max() > 0.01
    assert not whole[:, 152000:218000].any(), "though the rest sounds on"


def test_from_both_sides_no_bin_exceeds_what_it_may(from_both: Repairer) -> None:
    stem = sound(1.0)
    mix = np.float32(1.3) * stem  # in phase with its rest, so that the filter has its part in it
    delta = replace(from_both.delta_stream(), shares=Shares(0.5, 0.5, 1.0), gate=None)
    length = stem.shape[1] // delta.hop * delta.hop
    sounds = stem[None, :, :length], mix[None, :, :length]
    change, before, _ = delta._spectra(*sounds, delta.start(), False)
    without = replace(delta, shares=Shares(0.5, 0.5, 0.0))
    assert np.abs(change - without._spectra(*sounds, without.start(), False)[0]).max() > 0.1
    spectra = delta.stft.analysis(mix[:, :length], delta.stft.start_analysis(2))[0]
    late = delta.runtime.bundle.lookahead
    limit = change_limit(before[..., late:], spectra[None, ..., :-late])
    assert np.all(np.abs(before + change)[..., late:] <= limit * 1.0001 + 1e-5)


def test_without_the_song_there_is_no_other_side(from_both: Repairer, lively_bundle: Path) -> None:
    stem = sound(1.0)
    alone = Repairer(bundle=lively_bundle, steps=1, jobs=1)
    assert np.array_equal(from_both.process(stem, 44100), alone.process(stem, 44100))
