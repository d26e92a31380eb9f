"""The Schrödinger bridge between the separated stem and the true one, and its sampler.

Variance-exploding schedule (SB-VE; Chen et al., Schrodinger Bridges Beat Diffusion Models on Text-to-Speech Synthesis,
2023; Jukic et al., Schroedinger Bridge for Generative Speech Enhancement, 2024), data prediction. Plain arithmetic
only: works on floats, NumPy arrays and torch tensors alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .errors import OptionError


@dataclass(frozen=True)
class DiffusionSchedule:
    """sigma_t^2 = c (k^(2t) - 1) / (2 ln k), t from 0 (true stem) to 1 (separated stem)."""

    k: float = 2.6
    c: float = 0.081

    def __post_init__(self) -> None:
        if self.k <= 1.0 or self.c <= 0.0:
            raise OptionError(
                f"diffusion schedule k={self.k}, c={self.c}: k must be over 1 and c over 0, so that the variance grows"
            )

    def variance(self, t: Any) -> Any:
        """sigma_t^2."""
        return self.c * (self.k ** (2.0 * t) - 1.0) / (2.0 * math.log(self.k))

    def marginal(self, t: Any) -> tuple[Any, Any, Any]:
        """(w_x, w_y, sigma) at t: x_t = w_x x_0 + w_y y + sigma n, n standard normal."""
        total = self.variance(1.0)
        w_y = self.variance(t) / total
        w_x = 1.0 - w_y
        return w_x, w_y, (abs(w_x * w_y) * total) ** 0.5  # abs: rounding may carry w_x below 0

    def times(self, steps: int) -> list[float]:
        """The steps + 1 times of the sampler, from 1 down to 0."""
        if steps < 1:
            raise OptionError(f"steps={steps}: the sampler needs at least one step")
        return [1.0 - i / steps for i in range(steps)] + [0.0]


Denoise = Callable[[Any, float, int], Any]


def sample_sb_ve(denoise: Denoise, y: Any, schedule: DiffusionSchedule, times: list[float], x: Any = None) -> Any:
    """From the separated stem `y` (or from `x` at times[0]) to times[-1]: x_s = mu_s + (sigma_s / sigma_t) (x_t -
    mu_t).

    `denoise(x_t, t, step)` predicts the true stem. mu = w_x x_0 + w_y y. At t = 1 the bridge is pinned, so the first
    step is mu_s itself: the usual noise-prediction form loses everything to cancellation there. No noise is added, so
    the same input gives the same output.
    """
    x = y if x is None else x
    for step, (t, s) in enumerate(pairwise(times)):
        clean = denoise(x, t, step)
        x_t, x_s = schedule.marginal(t), schedule.marginal(s)
        if s == 0.0:
            x = clean
            continue
        mean_s = x_s[0] * clean + x_s[1] * y
        x = mean_s if x_t[2] == 0.0 else mean_s + (x_s[2] / x_t[2]) * (x - (x_t[0] * clean + x_t[1] * y))
    return x
