"""Trust: how much of the correction is let through."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.errors import OptionError
from stemprover.engine.features import LAYOUT, Features
from stemprover.engine.trust import (
    CONTESTED_BANDS,
    EVIDENCE_ROWS,
    NO_RAMPS,
    TERMS,
    Ramp,
    Trust,
    TrustCurve,
    bands_to_bins,
)

BANDS, LOOKAHEAD = BandLayout(), 16


def features(control: np.ndarray, likelihood: np.ndarray | None = None, balance: np.ndarray | None = None) -> Features:
    """The features that trust depends on: the control input; by default a mask likelihood of 0 and no residual."""
    frames = np.zeros((len(control), control.shape[-1]), np.float32)
    bands = np.ones((len(control), *control.shape[2:]), np.float32)
    return Features(
        control,
        control,
        control,
        control,
        frames if likelihood is None else likelihood,
        bands if balance is None else balance,
    )


def control_of(severity: np.ndarray) -> np.ndarray:
    """Control features with these severities (5, K, N)."""
    control = np.full((1, LAYOUT.rows, *severity.shape[1:]), 9.0, np.float32)
    control[0, LAYOUT.severity] = severity
    return control


def test_trust_is_zero_for_clean_audio_and_rises_with_the_severity() -> None:
    trust = Trust(Ramp(0.1, 0.3))
    severity = np.zeros((5, BANDS.bands, 60), np.float32)
    severity[2, 10, 30] = 0.2
    severity[4, 11, 30] = 0.9
    amount, _ = trust(features(control_of(severity)), trust.start(1, BANDS, LOOKAHEAD))
    # Frame n of the amounts belongs to frame n - 16 of the audio, and sees 16 frames ahead.
    assert not amount[0, 12].any()
    assert amount[0, 10, 30 : 30 + LOOKAHEAD + 1] == pytest.approx(0.5, abs=1e-6)
    assert amount[0, 11, 30 : 30 + LOOKAHEAD + 1] == pytest.approx(1.0)
    assert not amount[0, 10, :30].any()
    assert not amount[0, 11, 30 + LOOKAHEAD + 1 :].any()


@pytest.mark.parametrize("restrained", [False, True])
@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 12), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_any_split_gives_the_same(restrained: bool, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(0.2, 0.4, (2, 3, len(TERMS)))
    trust_curves = [
        TrustCurve((0, 20, 50), np.stack([a, b]), a, knots=(0.2, 0.6), contested=0.3)
        for a, b in (weights, weights[::-1])
    ]
    trust = Trust(trust_curves=((trust_curves[0], 0.6),), base=trust_curves[1]) if restrained else Trust()
    control = control_of(rng.random((5, BANDS.bands, sum(cuts))).astype(np.float32) ** 3)
    likelihood = rng.random((1, sum(cuts))).astype(np.float32)
    balance = rng.random((1, BANDS.bands, sum(cuts))).astype(np.float32)
    whole, _ = trust(features(control, likelihood, balance), trust.start(1, BANDS, LOOKAHEAD))
    state, parts, at = trust.start(1, BANDS, LOOKAHEAD), [], 0
    for cut in cuts:
        frames = np.s_[..., at : at + cut]
        part, state = trust(features(control[frames], likelihood[frames], balance[frames]), state)
        parts.append(part)
        at += cut
    assert np.array_equal(np.concatenate(parts, axis=-1), whole)
    assert whole.min() >= 0.0
    assert whole.max() <= 1.0


def test_a_curve_depends_on_the_evidence_and_on_whether_there_is_a_mix() -> None:
    with_mix, without = np.zeros((2, 2, len(TERMS)))
    with_mix[:, 0], with_mix[1, 3], with_mix[0, 6] = 0.1, 1.0, 0.5  # phasiness in the upper bands, leakage below
    without[:, 0] = 0.7
    trust = Trust(base=TrustCurve((0, 40), with_mix, without, (Ramp(0.1, 0.2), Ramp(0.1, 0.2))))
    severity = np.full((5, BANDS.bands, 40), 0.3, np.float32)
    control = control_of(severity)
    control[:, LAYOUT.has_mix], control[:, LAYOUT.leakage_coherence] = 1.0, 0.2
    amount, _ = trust(features(control), trust.start(1, BANDS, LOOKAHEAD))
    assert amount[0, :40, LOOKAHEAD:] == pytest.approx(0.1 + 0.5 * 0.2)
    assert amount[0, 40:, LOOKAHEAD:] == pytest.approx(0.1 + 0.3)
    control[:, LAYOUT.has_mix] = 0.0
    alone, _ = trust(features(control), trust.start(1, BANDS, LOOKAHEAD))
    assert alone[..., LOOKAHEAD:] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("apart_db", "expected"), [(0.0, 0.2), (3.9, 0.2), (-3.9, 0.2), (5.5, 0.5), (-7.1, 0.8), (7.1, 0.8), (60.0, 0.8)]
)
def test_less_is_let_through_if_stem_and_residual_are_about_equally_loud_in_the_lowest_band(
    apart_db: float, expected: float
) -> None:
    one = np.zeros((1, len(TERMS)))
    one[0, 0] = 0.8
    trust_curve = TrustCurve.from_dict(TrustCurve((0,), one, one, NO_RAMPS, contested=0.25).to_dict())
    control = control_of(np.full((5, BANDS.bands, 40), 0.5, np.float32))
    power = 10 ** (apart_db / 10)
    made = features(control, None, np.full((1, BANDS.bands, 40), power / (1 + power), np.float32))
    for trust, wanted in ((Trust(base=trust_curve), expected), (Trust(base=replace(trust_curve, contested=1.0)), 0.8)):
        found = trust(made, trust.start(1, BANDS, LOOKAHEAD))[0][..., LOOKAHEAD:]
        assert found[:, :CONTESTED_BANDS] == pytest.approx(wanted, abs=1e-3)
        assert found[:, CONTESTED_BANDS:] == pytest.approx(0.8, abs=1e-6)
    control[:, LAYOUT.has_mix] = 0.0
    found = Trust(base=trust_curve)(made, Trust().start(1, BANDS, LOOKAHEAD))[0][..., LOOKAHEAD:]
    assert found == pytest.approx(0.8, abs=1e-6), "there is no residual without the mix"
    with pytest.raises(OptionError, match="contested = 1.5"):
        replace(trust_curve, contested=1.5)


def test_a_curve_interpolates_between_its_knots_by_the_mask_likelihood() -> None:
    one = np.eye(1, len(TERMS))
    trust_curve = TrustCurve((0,), np.stack([0.9 * one, 0.5 * one, 0.1 * one]), 0.3 * one, NO_RAMPS, (0.1, 0.4, 0.7))
    trust = Trust(base=trust_curve)
    control = control_of(np.full((5, BANDS.bands, 40), 0.3, np.float32))
    control[:, LAYOUT.has_mix] = 1.0
    for likelihood, amount in ((0.0, 0.9), (0.1, 0.9), (0.25, 0.7), (0.4, 0.5), (0.55, 0.3), (0.7, 0.1), (1.0, 0.1)):
        found, _ = trust(features(control, np.full((1, 40), likelihood, np.float32)), trust.start(1, BANDS, LOOKAHEAD))
        assert found[..., LOOKAHEAD:] == pytest.approx(amount, abs=1e-6), likelihood


def test_a_curve_is_the_same_after_saving_and_loading() -> None:
    rng = np.random.default_rng(0)
    curve = TrustCurve(
        (0, 30), rng.normal(0.2, 0.3, (2, 2, len(TERMS))).round(4), rng.normal(0.2, 0.3, (2, len(TERMS))).round(4),
        (Ramp(0.1, 0.4), None), (0.1, 0.5), 0.25,
    )  # fmt: skip
    again = TrustCurve.from_dict(json.loads(json.dumps(curve.to_dict())))
    evidence = rng.random((1, EVIDENCE_ROWS, BANDS.bands, 5)).astype(np.float32)
    assert (again.ramps, again.knots, again.contested, again.starts) == (curve.ramps, curve.knots, 0.25, (0, 30))
    for with_mix in (True, False):
        assert np.array_equal(again.amount(evidence, with_mix), curve.amount(evidence, with_mix))


def test_a_curve_has_one_ramp_with_the_mix_and_one_without() -> None:
    one = np.eye(1, len(TERMS))
    trust_curve = TrustCurve((0,), one, one, (Ramp(0.0, 0.5), Ramp(0.2, 0.5)))
    assert TrustCurve.from_dict(trust_curve.to_dict()).ramps == trust_curve.ramps
    assert TrustCurve.from_dict(TrustCurve((0,), one, one, (None, Ramp())).to_dict()).ramps == (None, Ramp())
    trust = Trust(base=trust_curve)
    control = control_of(np.full((5, BANDS.bands, 40), 0.3, np.float32))
    for mix, amount in ((1.0, 0.6), (0.0, 1 / 3)):
        control[:, LAYOUT.has_mix] = mix
        found, _ = trust(features(control), trust.start(1, BANDS, LOOKAHEAD))
        assert found[..., LOOKAHEAD:] == pytest.approx(amount, abs=1e-6)


def test_several_curves_combine_as_probabilities_and_a_curve_may_ignore_the_detectors() -> None:
    shy, bold, free = (
        TrustCurve((0,), *np.full((2, 1, len(TERMS)), amount) * np.eye(1, len(TERMS)), ramps)
        for amount, ramps in ((0.1, (Ramp(), Ramp())), (0.6, (Ramp(), Ramp())), (0.3, NO_RAMPS))
    )
    faulty = control_of(np.full((5, BANDS.bands, 40), 0.5, np.float32))
    clean = control_of(np.zeros((5, BANDS.bands, 40), np.float32))
    for trust_curves, when_faulty, when_clean in (
        ((shy,), 0.1, 0.0), ((shy, bold), 0.64, 0.0), ((bold, shy), 0.64, 0.0), ((free,), 0.3, 0.3),
        ((free, bold), 0.72, 0.3), ((shy, free, bold), 0.748, 0.3),
    ):  # fmt: skip
        trust = Trust(trust_curves=tuple((one, 1.0) for one in trust_curves))
        for control, amount in ((faulty, when_faulty), (clean, when_clean)):
            found = trust(features(control), trust.start(1, BANDS, LOOKAHEAD))[0][..., LOOKAHEAD:]
            assert found == pytest.approx(amount, abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((0.0, 0.0), 0.2), ((1.0, 0.0), 0.6), ((1.5, 0.0), 0.6), ((0.0, 1.0), 0.4), ((1.0, 1.0), 0.76),
        ((0.5, 0.0), 0.5 * 0.6 + 0.5 * 0.2),
        ((0.5, 0.9), 1 - (1 - 0.5 * 0.6) * (1 - 0.9 * 0.4) + 0.1 * 0.2),
    ],
)  # fmt: skip
def test_an_adapters_curve_counts_by_its_weight_and_the_base_for_the_rest(
    weights: tuple[float, float], expected: float
) -> None:
    bold, shy, base = (
        TrustCurve((0,), *np.full((2, 1, len(TERMS)), amount) * np.eye(1, len(TERMS))) for amount in (0.6, 0.4, 0.2)
    )
    trust = Trust(trust_curves=tuple(zip((bold, shy), weights, strict=True)), base=base)
    control = control_of(np.full((5, BANDS.bands, 40), 0.5, np.float32))
    found = trust(features(control), trust.start(1, BANDS, LOOKAHEAD))[0][..., LOOKAHEAD:]
    assert found == pytest.approx(expected, abs=1e-6)


def test_for_a_separators_stem_with_its_mix_the_curves_decide_without_the_detectors() -> None:
    bold, base = (
        TrustCurve((0,), *np.full((2, 1, len(TERMS)), amount) * np.eye(1, len(TERMS))) for amount in (0.6, 0.2)
    )
    trust = Trust(trust_curves=((bold, 0.5),), base=base)
    clean = control_of(np.zeros((5, BANDS.bands, 40), np.float32))
    for has_mix, amount in ((1.0, 0.5 * 0.6 + 0.5 * 0.2), (0.0, 0.0)):
        clean[:, LAYOUT.has_mix] = has_mix
        for one, expected in ((trust, 0.0), (trust.for_separated(), amount)):
            found = one(features(clean), trust.start(1, BANDS, LOOKAHEAD))[0][..., LOOKAHEAD:]
            assert found == pytest.approx(expected, abs=1e-6)
    assert Trust().for_separated() == Trust(), "without a trust curve the detectors alone decide"


def test_every_bin_gets_the_amount_of_its_band() -> None:
    amount = np.arange(BANDS.bands, dtype=np.float32)[None, :, None]
    bins = bands_to_bins(amount, BANDS)
    assert bins.shape == (1, 1, BANDS.bins, 1)
    starts = np.concatenate([[0], np.cumsum(BANDS.widths)[:-1]])
    assert np.array_equal(bins[0, 0, starts, 0], np.arange(BANDS.bands))


@pytest.mark.parametrize(("closed", "opened"), [(0.3, 0.3), (0.4, 0.3), (-0.1, 0.3), (0.1, 1.1), (float("nan"), 0.5)])
def test_an_invalid_ramp_is_an_error(closed: float, opened: float) -> None:
    with pytest.raises(OptionError, match="rising"):
        Ramp(closed, opened)
