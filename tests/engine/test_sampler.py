"""The diffusion bridge and its sampler, compared with cases that have an exact solution."""

from __future__ import annotations

import numpy as np
import pytest
from stemprover.engine.errors import OptionError
from stemprover.engine.sampler import DiffusionSchedule, sample_sb_ve

BRIDGE = DiffusionSchedule()


def test_the_bridge_is_pinned_at_both_ends() -> None:
    assert BRIDGE.marginal(0.0) == pytest.approx((1.0, 0.0, 0.0))
    assert BRIDGE.marginal(1.0) == pytest.approx((0.0, 1.0, 0.0))


def test_the_variance_follows_its_formula() -> None:
    # sigma_t^2 = c (k^(2t) - 1) / (2 ln k); at t = 1/2 with k = e: c (e - 1) / 2
    assert DiffusionSchedule(k=np.e, c=0.5).variance(0.5) == pytest.approx(0.25 * (np.e - 1))


def test_an_oracle_is_reached_exactly_in_any_number_of_steps() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50))
    for steps in (1, 2, 5, 25):
        assert np.allclose(sample_sb_ve(lambda *_: x, y, BRIDGE, BRIDGE.times(steps)), x, atol=1e-12)


def test_predicting_the_stem_itself_returns_it_exactly() -> None:
    y = np.random.default_rng(1).standard_normal(50).astype(np.float32)
    for steps in (1, 2, 4, 8):
        assert np.array_equal(sample_sb_ve(lambda *_: y, y, BRIDGE, BRIDGE.times(steps)), y)


def test_it_converges_at_first_order_to_the_exact_flow_of_gaussian_data() -> None:
    """For x_0 ~ N(m, v) given y, x_t ~ N(mu_t(m), w_x^2 v + sigma_t^2), the ideal prediction is linear, and the flow
    carries each quantile of one Gaussian to the same quantile of the other."""
    m, v, y = 0.7, 0.3, -1.2

    def ideal(x_t: np.ndarray, t: float, _: int) -> np.ndarray:
        w_x, w_y, sigma = BRIDGE.marginal(t)
        gain = w_x * v / (w_x**2 * v + sigma**2)
        return m + gain * (x_t - w_x * m - w_y * y)

    t_0, quantile = 0.9, np.array([-2.0, -0.5, 0.0, 1.0, 2.5])
    w_x, w_y, sigma = BRIDGE.marginal(t_0)
    start = w_x * m + w_y * y + quantile * np.sqrt(w_x**2 * v + sigma**2)
    exact = m + quantile * np.sqrt(v)
    errors = [
        np.abs(sample_sb_ve(ideal, y, BRIDGE, list(np.linspace(t_0, 0.0, n + 1)), x=start) - exact).max()
        for n in (40, 80, 160, 320)
    ]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 0.02
    assert np.all(rates > 0.6), (errors, rates)


def test_the_first_step_does_not_suffer_from_cancellation() -> None:
    y = np.full(4, 1e4, np.float32)
    x = (y + np.float32(1e-2)).astype(np.float32)
    seen: list[np.ndarray] = []
    sample_sb_ve(lambda x_t, *_: (seen.append(x_t), x)[1], y, BRIDGE, BRIDGE.times(3))
    assert all(np.isfinite(s).all() and np.all(s >= y) and np.all(s <= x) for s in seen)


@pytest.mark.parametrize("wrong", [{"k": 1.0}, {"c": 0.0}])
def test_a_schedule_without_growing_variance_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="the variance grows"):
        DiffusionSchedule(**wrong)
    with pytest.raises(OptionError, match="steps=0"):
        BRIDGE.times(0)
