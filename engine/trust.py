"""How much of the network's correction is let through: as much as proved right, with the same evidence, on faults that
it was never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .detect.detectors import TYPES
from .dsp.latent import BandLayout
from .errors import OptionError
from .features import LAYOUT, Features

#: Rows of the evidence (B, 8, K, N): the severity of each type, and what stem and residual say (dsp/leakage.py): the
#: leakage's certainty, the mask likelihood and the dependence.
EVIDENCE = (*TYPES, "leakage", "mask likelihood", "dependence")
#: What the amount is a linear function of.
TERMS = ("always", *EVIDENCE)


@dataclass(frozen=True)
class TrustCurve:
    """The amount of the correction that was right on held-out material, as a linear function of the evidence, clipped
    to 0 and 1; for each group of bands, with the mix and without. Fitted by least squares (train/fit_trust.py), because
    a network is more certain of its correction in some bands and on some material than it should be.

    starts: first band of each group. with_mix, without_mix: weights (groups, 9), columns as in TERMS.
    """

    starts: tuple[int, ...]
    with_mix: np.ndarray
    without_mix: np.ndarray

    def __post_init__(self) -> None:
        if not self.starts or self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise OptionError(f"trust curve: starts {self.starts} are not rising band numbers from 0 on")
        shape = (len(self.starts), len(TERMS))
        for name in ("with_mix", "without_mix"):
            weights = np.asarray(getattr(self, name), np.float32)
            if weights.shape != shape or not np.isfinite(weights).all():
                wanted = " x ".join(str(n) for n in shape)
                raise OptionError(f"trust curve: {name} of shape {weights.shape} is not {wanted} finite numbers")
            object.__setattr__(self, name, weights)

    def amount(self, evidence: np.ndarray, with_mix: bool) -> np.ndarray:
        """Evidence (B, 8, K, N) to amounts (B, K, N)."""
        widths = np.diff([*self.starts, evidence.shape[2]])
        by_band = np.repeat(self.with_mix if with_mix else self.without_mix, widths, axis=0)
        found: np.ndarray = by_band[:, :1] + np.einsum("kj,bjkn->bkn", by_band[:, 1:], evidence)
        return np.clip(found, 0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = {name: np.round(getattr(self, name).astype(float), 4).tolist() for name in ("with_mix", "without_mix")}
        return {"starts": list(self.starts), **rows}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrustCurve:
        """From JSON. Raises OptionError, KeyError, TypeError or ValueError where it is not a trust curve."""
        with_mix, without_mix = (np.array(values[name], np.float32) for name in ("with_mix", "without_mix"))
        return cls(tuple(int(start) for start in values["starts"]), with_mix, without_mix)


@dataclass(frozen=True)
class Trust:
    """The amount 0..1 of the correction for each band and frame: what the trust curves of a blend's adapters and of the
    base say. `trust_curves`: each with its adapter's weight.

    Each adapter knows its own fault best, and of two faults either is a reason: so their amounts, each in proportion to
    its weight (1 and more: fully), combine as probabilities do, 1 - (1 - a)(1 - b). The base's curve gets 1 minus the
    largest weight. Without a curve everything is let through.
    """

    trust_curves: tuple[tuple[TrustCurve, float], ...] = ()
    base: TrustCurve | None = None

    def start(self, batch: int, layout: BandLayout, lookahead: int) -> np.ndarray:
        """State before the first frame: the evidence (B, 8, K, L) of the frames that wait for their look-ahead."""
        return np.zeros((batch, len(EVIDENCE), layout.bands, lookahead), np.float32)

    def __call__(self, made: Features, waiting: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features to amounts (B, K, N) for the frames that leave the look-ahead, which are L frames earlier, and the
        state after them."""
        joined = np.concatenate([waiting, evidence(made)], axis=-1)
        count = made.control.shape[-1]
        highest = highest_within(joined, waiting.shape[-1])
        has_mix = bool(made.control[:, LAYOUT.has_mix].any())
        amount, decided = np.zeros_like(highest[:, 0]), 0.0
        for curve, weight in self.trust_curves:
            part = min(weight, 1.0)
            amount, decided = amount + (1.0 - amount) * part * curve.amount(highest, has_mix), max(decided, part)
        if decided < 1.0:
            rest = 1.0 if self.base is None else self.base.amount(highest, has_mix)
            amount = np.minimum(amount + (1.0 - decided) * rest, 1.0)
        return amount.astype(np.float32), joined[..., count:]


def evidence(made: Features) -> np.ndarray:
    """Features to what trust depends on (B, 8, K, N)."""
    severity = made.control[:, LAYOUT.severity]
    rows = np.zeros((len(severity), len(EVIDENCE), *severity.shape[2:]), np.float32)
    rows[:, : len(TYPES)] = severity
    if made.leakage is not None:
        in_all_bands = np.stack([made.leakage.mask_likelihood, made.leakage.dependence], axis=1)
        rows[:, len(TYPES)], rows[:, len(TYPES) + 1 :] = made.leakage.certainty, in_all_bands[:, :, None]
    return rows


def highest_within(values: np.ndarray, lookahead: int) -> np.ndarray:
    """The highest of each value and the `lookahead` that follow it: (..., N + lookahead) to (..., N)."""
    return np.lib.stride_tricks.sliding_window_view(values, lookahead + 1, axis=-1).max(axis=-1)


def bands_to_bins(amount: np.ndarray, layout: BandLayout) -> np.ndarray:
    """Each band's amount to its bins: (B, K, N) to (B, 1, F, N), for both channels."""
    return np.repeat(amount, layout.widths, axis=1)[:, None]
