"""Trust: how much of the correction is let through."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.dsp.leakage import Leakage
from stemprover.engine.errors import OptionError
from stemprover.engine.features import LAYOUT, Features
from stemprover.engine.trust import EVIDENCE, TERMS, Trust, TrustCurve, bands_to_bins

BANDS, LOOKAHEAD = BandLayout(), 16


def features(control: np.ndarray, measured: np.ndarray | None = None) -> Features:
    """The features that trust depends on: the control input, and the leakage's certainty, the mask likelihood and the
    dependence (3, N), in all bands and by default 0."""
    certainty, likelihood, dependence = np.zeros((3, control.shape[-1]), np.float32) if measured is None else measured
    bands = np.repeat(certainty[None, None], BANDS.bands, axis=1)
    gain = np.stack([bands, bands], axis=1)
    leakage = Leakage(gain, gain, likelihood[None], dependence[None], bands)
    return Features(control, control, control, control, control, leakage)


def control_of(severity: np.ndarray) -> np.ndarray:
    """Control features with these severities (5, K, N), with a mix."""
    control = np.full((1, LAYOUT.rows, *severity.shape[1:]), 9.0, np.float32)
    control[0, LAYOUT.severity] = severity
    control[:, LAYOUT.has_mix] = 1.0
    return control


def constant(amount: float) -> TrustCurve:
    weights = amount * np.eye(1, len(TERMS))
    return TrustCurve((0,), weights, weights)


def test_an_amount_follows_the_highest_evidence_within_the_look_ahead() -> None:
    weights = np.zeros((1, len(TERMS)))
    weights[0, 1 + 2] = 1.0  # phasiness
    trust = Trust(base=TrustCurve((0,), weights, weights))
    severity = np.zeros((5, BANDS.bands, 60), np.float32)
    severity[2, 10, 30], severity[4, 11, 30] = 0.5, 0.9
    amount, _ = trust(features(control_of(severity)), trust.start(1, BANDS, LOOKAHEAD))
    # Frame n of the amounts belongs to frame n - 16 of the audio, and sees 16 frames ahead.
    np.testing.assert_allclose(amount[0, 10, 30 : 30 + LOOKAHEAD + 1], 0.5, rtol=0.0, atol=1e-6)
    assert not amount[0, 10, :30].any()
    assert not amount[0, 10, 30 + LOOKAHEAD + 1 :].any()
    assert not amount[0, 11:].any()


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 12), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_any_split_gives_the_same(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(0.2, 0.4, (2, 2, 3, len(TERMS)))
    first, second = (TrustCurve((0, 20, 50), *pair) for pair in weights)
    trust = Trust(trust_curves=((first, 0.6),), base=second)
    control = control_of(rng.random((5, BANDS.bands, sum(cuts))).astype(np.float32) ** 3)
    measured = rng.random((3, sum(cuts))).astype(np.float32)
    whole, _ = trust(features(control, measured), trust.start(1, BANDS, LOOKAHEAD))
    state, parts, at = trust.start(1, BANDS, LOOKAHEAD), [], 0
    for cut in cuts:
        frames = np.s_[..., at : at + cut]
        part, state = trust(features(control[frames], measured[frames]), state)
        parts.append(part)
        at += cut
    assert np.array_equal(np.concatenate(parts, axis=-1), whole)
    assert whole.min() >= 0.0
    assert whole.max() <= 1.0


def test_a_curve_depends_on_the_evidence_and_on_whether_there_is_a_mix() -> None:
    with_mix, without = np.zeros((2, 2, len(TERMS)))
    with_mix[:, 0], with_mix[1, 3], with_mix[0, 6:9] = 0.1, 1.0, (0.5, 0.4, 0.3)
    without[:, 0] = 0.7
    trust = Trust(base=TrustCurve((0, 40), with_mix, without))
    control = control_of(np.full((5, BANDS.bands, 40), 0.3, np.float32))
    measured = np.repeat(np.float32([[0.2], [0.6], [0.1]]), 40, axis=1)
    amount, _ = trust(features(control, measured), trust.start(1, BANDS, LOOKAHEAD))
    assert amount[0, :40, LOOKAHEAD:] == pytest.approx(0.1 + 0.5 * 0.2 + 0.4 * 0.6 + 0.3 * 0.1)
    assert amount[0, 40:, LOOKAHEAD:] == pytest.approx(0.1 + 0.3)
    control[:, LAYOUT.has_mix] = 0.0
    alone, _ = trust(features(control), trust.start(1, BANDS, LOOKAHEAD))
    assert alone[..., LOOKAHEAD:] == pytest.approx(0.7)


def test_a_curve_is_the_same_after_saving_and_loading() -> None:
    rng = np.random.default_rng(0)
    curve = TrustCurve((0, 30), *rng.normal(0.2, 0.3, (2, 2, len(TERMS))).round(4))
    again = TrustCurve.from_dict(json.loads(json.dumps(curve.to_dict())))
    evidence = rng.random((1, len(EVIDENCE), BANDS.bands, 5)).astype(np.float32)
    assert again.starts == (0, 30)
    for with_mix in (True, False):
        assert np.array_equal(again.amount(evidence, with_mix), curve.amount(evidence, with_mix))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), spread=st.floats(0.0, 3.0))
def test_an_amount_is_within_0_and_1_whatever_the_weights(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, spread, (2, 2, len(TERMS)))
    trust_curve = TrustCurve((0, 30), a, b)
    rows = rng.random((2, len(EVIDENCE), BANDS.bands, 5)).astype(np.float32)
    for with_mix, weights in ((True, a), (False, b)):
        amount = trust_curve.amount(rows, with_mix)
        assert amount.shape == (2, BANDS.bands, 5)
        assert amount.min() >= 0.0
        assert amount.max() <= 1.0
        one = float(weights[1, 0] + weights[1, 1:] @ rows[1, :, 30, 4])
        assert amount[1, 30, 4] == pytest.approx(np.clip(one, 0, 1), abs=1e-5)


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
    trust = Trust(trust_curves=tuple(zip((constant(0.6), constant(0.4)), weights, strict=True)), base=constant(0.2))
    control = control_of(np.zeros((5, BANDS.bands, 40), np.float32))
    found = trust(features(control), trust.start(1, BANDS, LOOKAHEAD))[0][..., LOOKAHEAD:]
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-6)


def test_without_a_curve_everything_is_let_through() -> None:
    control = control_of(np.zeros((5, BANDS.bands, 40), np.float32))
    assert (Trust()(features(control), Trust().start(1, BANDS, LOOKAHEAD))[0] == 1.0).all()


def test_every_bin_gets_the_amount_of_its_band() -> None:
    amount = np.arange(BANDS.bands, dtype=np.float32)[None, :, None]
    bins = bands_to_bins(amount, BANDS)
    assert bins.shape == (1, 1, BANDS.bins, 1)
    starts = np.concatenate([[0], np.cumsum(BANDS.widths)[:-1]])
    assert np.array_equal(bins[0, 0, starts, 0], np.arange(BANDS.bands))


def test_an_invalid_curve_is_an_error_that_says_why() -> None:
    one = np.zeros((1, len(TERMS)))
    with pytest.raises(OptionError, match="not rising band"):
        TrustCurve((1, 2), np.zeros((2, len(TERMS))), np.zeros((2, len(TERMS))))
    with pytest.raises(OptionError, match="with_mix of shape"):
        TrustCurve((0,), np.zeros((2, len(TERMS))), one)
    with pytest.raises(OptionError, match="without_mix of shape"):
        TrustCurve((0,), one, np.full_like(one, np.nan))
