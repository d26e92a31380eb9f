"""The gate on the change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.errors import OptionError
from stemprover.engine.features import FEATURES, LEAK_COHERENCE, MIX_FLAG, Features
from stemprover.engine.trust import CONTESTED_BANDS, EVIDENCE, NO_RAMPS, Caution, Gate, Ramp, over_bins

LAYOUT, LOOKAHEAD = BandLayout(), 16


def features(control: np.ndarray, masked: np.ndarray | None = None, balance: np.ndarray | None = None) -> Features:
    """What the gate looks at of them: a control input, not masked and with no rest unless given."""
    frames = np.zeros((len(control), control.shape[-1]), np.float32)
    bands = np.ones((len(control), *control.shape[2:]), np.float32)
    return Features(
        control, control, control, control, frames if masked is None else masked, bands if balance is None else balance
    )


def control_of(severity: np.ndarray) -> np.ndarray:
    """Severities (5, K, N) where the control branch has them."""
    control = np.full((1, FEATURES, *severity.shape[1:]), 9.0, np.float32)
    control[0, FEATURES - 5 :] = severity
    return control


def test_it_is_shut_for_clean_sound_and_open_for_faults() -> None:
    gate = Gate(Ramp(0.1, 0.3))
    severity = np.zeros((5, LAYOUT.bands, 60), np.float32)
    severity[2, 10, 30] = 0.2
    severity[4, 11, 30] = 0.9
    share, _ = gate(features(control_of(severity)), gate.start(1, LAYOUT, LOOKAHEAD))
    # Frame n of the answer is frame n - 16 of the sound, and sees up to 16 frames ahead.
    assert not share[0, 12].any()
    assert share[0, 10, 30 : 30 + LOOKAHEAD + 1] == pytest.approx(0.5, abs=1e-6)
    assert share[0, 11, 30 : 30 + LOOKAHEAD + 1] == pytest.approx(1.0)
    assert not share[0, 10, :30].any()
    assert not share[0, 11, 30 + LOOKAHEAD + 1 :].any()


@pytest.mark.parametrize("cautious", [False, True])
@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 12), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_any_split_gives_the_same(cautious: bool, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(0.2, 0.4, (2, 3, len(EVIDENCE)))
    cautions = [
        Caution((0, 20, 50), np.stack([a, b]), a, knots=(0.2, 0.6), contested=0.3) for a, b in (weights, weights[::-1])
    ]
    gate = Gate(cautions=((cautions[0], 0.6),), base=cautions[1]) if cautious else Gate()
    control = control_of(rng.random((5, LAYOUT.bands, sum(cuts))).astype(np.float32) ** 3)
    masked = rng.random((1, sum(cuts))).astype(np.float32)
    balance = rng.random((1, LAYOUT.bands, sum(cuts))).astype(np.float32)
    whole, _ = gate(features(control, masked, balance), gate.start(1, LAYOUT, LOOKAHEAD))
    state, parts, at = gate.start(1, LAYOUT, LOOKAHEAD), [], 0
    for cut in cuts:
        cut_out = np.s_[..., at : at + cut]
        part, state = gate(features(control[cut_out], masked[cut_out], balance[cut_out]), state)
        parts.append(part)
        at += cut
    assert np.array_equal(np.concatenate(parts, axis=-1), whole)
    assert whole.min() >= 0.0
    assert whole.max() <= 1.0


def test_caution_lets_a_part_through_by_what_is_heard_and_by_whether_there_is_a_song() -> None:
    with_mix, without = np.zeros((2, 2, len(EVIDENCE)))
    with_mix[:, 0], with_mix[1, 3], with_mix[0, 6] = 0.1, 1.0, 0.5  # phasiness in the upper bands, a leak below
    without[:, 0] = 0.7
    gate = Gate(base=Caution((0, 40), with_mix, without, (Ramp(0.1, 0.2), Ramp(0.1, 0.2))))
    severity = np.full((5, LAYOUT.bands, 40), 0.3, np.float32)
    control = control_of(severity)
    control[:, MIX_FLAG], control[:, LEAK_COHERENCE] = 1.0, 0.2
    share, _ = gate(features(control), gate.start(1, LAYOUT, LOOKAHEAD))
    assert share[0, :40, LOOKAHEAD:] == pytest.approx(0.1 + 0.5 * 0.2)
    assert share[0, 40:, LOOKAHEAD:] == pytest.approx(0.1 + 0.3)
    control[:, MIX_FLAG] = 0.0
    alone, _ = gate(features(control), gate.start(1, LAYOUT, LOOKAHEAD))
    assert alone[..., LOOKAHEAD:] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("apart_db", "share"), [(0.0, 0.2), (3.9, 0.2), (-3.9, 0.2), (5.5, 0.5), (-7.1, 0.8), (7.1, 0.8), (60.0, 0.8)]
)
def test_less_is_let_through_where_stem_and_rest_are_about_as_loud_in_the_lowest_band(
    apart_db: float, share: float
) -> None:
    one = np.zeros((1, len(EVIDENCE)))
    one[0, 0] = 0.8
    caution = Caution.from_dict(Caution((0,), one, one, NO_RAMPS, contested=0.25).to_dict())
    control = control_of(np.full((5, LAYOUT.bands, 40), 0.5, np.float32))
    power = 10 ** (apart_db / 10)
    made = features(control, None, np.full((1, LAYOUT.bands, 40), power / (1 + power), np.float32))
    for gate, wanted in ((Gate(base=caution), share), (Gate(base=replace(caution, contested=1.0)), 0.8)):
        found = gate(made, gate.start(1, LAYOUT, LOOKAHEAD))[0][..., LOOKAHEAD:]
        assert found[:, :CONTESTED_BANDS] == pytest.approx(wanted, abs=1e-3)
        assert found[:, CONTESTED_BANDS:] == pytest.approx(0.8, abs=1e-6)
    control[:, MIX_FLAG] = 0.0
    found = Gate(base=caution)(made, Gate().start(1, LAYOUT, LOOKAHEAD))[0][..., LOOKAHEAD:]
    assert found == pytest.approx(0.8, abs=1e-6), "nobody knows the rest without the song"
    with pytest.raises(OptionError, match="contested = 1.5"):
        replace(caution, contested=1.5)


def test_caution_goes_from_one_set_of_weights_to_the_next_by_how_far_the_stem_is_masked() -> None:
    one = np.eye(1, len(EVIDENCE))
    caution = Caution((0,), np.stack([0.9 * one, 0.5 * one, 0.1 * one]), 0.3 * one, NO_RAMPS, (0.1, 0.4, 0.7))
    gate = Gate(base=caution)
    control = control_of(np.full((5, LAYOUT.bands, 40), 0.3, np.float32))
    control[:, MIX_FLAG] = 1.0
    for masked, share in ((0.0, 0.9), (0.1, 0.9), (0.25, 0.7), (0.4, 0.5), (0.55, 0.3), (0.7, 0.1), (1.0, 0.1)):
        found, _ = gate(features(control, np.full((1, 40), masked, np.float32)), gate.start(1, LAYOUT, LOOKAHEAD))
        assert found[..., LOOKAHEAD:] == pytest.approx(share, abs=1e-6), masked


def test_a_caution_of_before_is_read_as_it_was() -> None:
    old = np.random.default_rng(0).normal(0.2, 0.3, (2, 1, 7)).round(4)
    about = {"starts": [0], "with_mix": old[0].tolist(), "without_mix": old[1].tolist()}
    caution = Caution.from_dict(about)
    assert caution.ramps == (Ramp(), Ramp())
    assert Caution.from_dict(about | {"gated": False}).ramps == NO_RAMPS
    heard = np.random.default_rng(1).random((1, 7, LAYOUT.bands, 5)).astype(np.float32)
    for with_mix, weights in ((True, old[0, 0]), (False, old[1, 0])):
        wanted = np.clip(weights[0] + np.tensordot(weights[1:], heard[0, :6], 1), 0, 1)
        assert caution.share(heard, with_mix)[0] == pytest.approx(wanted, abs=1e-5)


def test_each_caution_has_a_ramp_with_the_song_and_one_without() -> None:
    one = np.eye(1, len(EVIDENCE))
    caution = Caution((0,), one, one, (Ramp(0.0, 0.5), Ramp(0.2, 0.5)))
    assert Caution.from_dict(caution.to_dict()).ramps == caution.ramps
    assert Caution.from_dict(Caution((0,), one, one, (None, Ramp())).to_dict()).ramps == (None, Ramp())
    gate = Gate(base=caution)
    control = control_of(np.full((5, LAYOUT.bands, 40), 0.3, np.float32))
    for mix, share in ((1.0, 0.6), (0.0, 1 / 3)):
        control[:, MIX_FLAG] = mix
        found, _ = gate(features(control), gate.start(1, LAYOUT, LOOKAHEAD))
        assert found[..., LOOKAHEAD:] == pytest.approx(share, abs=1e-6)


def test_several_cautions_go_together_as_chances_do_and_one_may_do_without_the_detectors() -> None:
    shy, bold, free = (
        Caution((0,), *np.full((2, 1, len(EVIDENCE)), share) * np.eye(1, len(EVIDENCE)), ramps)
        for share, ramps in ((0.1, (Ramp(), Ramp())), (0.6, (Ramp(), Ramp())), (0.3, NO_RAMPS))
    )
    heard = control_of(np.full((5, LAYOUT.bands, 40), 0.5, np.float32))
    silent = control_of(np.zeros((5, LAYOUT.bands, 40), np.float32))
    for cautions, when_heard, when_not in (
        ((shy,), 0.1, 0.0), ((shy, bold), 0.64, 0.0), ((bold, shy), 0.64, 0.0), ((free,), 0.3, 0.3),
        ((free, bold), 0.72, 0.3), ((shy, free, bold), 0.748, 0.3),
    ):  # fmt: skip
        gate = Gate(cautions=tuple((one, 1.0) for one in cautions))
        for control, share in ((heard, when_heard), (silent, when_not)):
            found = gate(features(control), gate.start(1, LAYOUT, LOOKAHEAD))[0][..., LOOKAHEAD:]
            assert found == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((0.0, 0.0), 0.2), ((1.0, 0.0), 0.6), ((1.5, 0.0), 0.6), ((0.0, 1.0), 0.4), ((1.0, 1.0), 0.76),
        ((0.5, 0.0), 0.5 * 0.6 + 0.5 * 0.2),
        ((0.5, 0.9), 1 - (1 - 0.5 * 0.6) * (1 - 0.9 * 0.4) + 0.1 * 0.2),
    ],
)  # fmt: skip
def test_an_adapter_is_followed_by_its_weight_and_the_rest_is_the_bases(
    weights: tuple[float, float], expected: float
) -> None:
    bold, shy, base = (
        Caution((0,), *np.full((2, 1, len(EVIDENCE)), share) * np.eye(1, len(EVIDENCE))) for share in (0.6, 0.4, 0.2)
    )
    gate = Gate(cautions=tuple(zip((bold, shy), weights, strict=True)), base=base)
    control = control_of(np.full((5, LAYOUT.bands, 40), 0.5, np.float32))
    found = gate(features(control), gate.start(1, LAYOUT, LOOKAHEAD))[0][..., LOOKAHEAD:]
    assert found == pytest.approx(expected, abs=1e-6)


def test_for_a_separators_stem_the_cautions_speak_alone_with_the_song() -> None:
    bold, base = (
        Caution((0,), *np.full((2, 1, len(EVIDENCE)), share) * np.eye(1, len(EVIDENCE))) for share in (0.6, 0.2)
    )
    gate = Gate(cautions=((bold, 0.5),), base=base)
    silent = control_of(np.zeros((5, LAYOUT.bands, 40), np.float32))
    for has_song, share in ((1.0, 0.5 * 0.6 + 0.5 * 0.2), (0.0, 0.0)):
        silent[:, MIX_FLAG] = has_song
        for one, expected in ((gate, 0.0), (gate.for_separated(), share)):
            found = one(features(silent), gate.start(1, LAYOUT, LOOKAHEAD))[0][..., LOOKAHEAD:]
            assert found == pytest.approx(expected, abs=1e-6)
    assert Gate().for_separated() == Gate(), "without a caution the detectors alone know"


def test_every_bin_has_its_band() -> None:
    share = np.arange(LAYOUT.bands, dtype=np.float32)[None, :, None]
    bins = over_bins(share, LAYOUT)
    assert bins.shape == (1, 1, LAYOUT.bins, 1)
    starts = np.concatenate([[0], np.cumsum(LAYOUT.widths)[:-1]])
    assert np.array_equal(bins[0, 0, starts, 0], np.arange(LAYOUT.bands))


@pytest.mark.parametrize(("closed", "opened"), [(0.3, 0.3), (0.4, 0.3), (-0.1, 0.3), (0.1, 1.1), (float("nan"), 0.5)])
def test_limits_that_make_no_sense(closed: float, opened: float) -> None:
    with pytest.raises(OptionError, match="rising"):
        Ramp(closed, opened)
