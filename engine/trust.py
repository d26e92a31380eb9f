"""How much of the network's correction is let through: where the detectors find something wrong, and as much of it as
proved right on held-out material with the same evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .detect.detectors import TYPES
from .dsp.latent import BandLayout
from .errors import OptionError
from .features import LAYOUT, Features

#: Rows of the evidence (B, 8, K, N): the severity of each type, leakage coherence, mask likelihood, and the stem's
#: share of the power of stem and residual (dsp/leakage.py).
EVIDENCE_ROWS = len(TYPES) + 3
LEAKAGE, MASK_LIKELIHOOD, BALANCE = EVIDENCE_ROWS - 3, EVIDENCE_ROWS - 2, EVIDENCE_ROWS - 1
#: What the amount is a linear function of: a constant, the severities, the leakage coherence, and how far that is above
#: CLEAR_LEAKAGE, where a separator's mask hardly ever is.
TERMS = ("always", *TYPES, "leakage", "clear leakage")
CLEAR_LEAKAGE = 0.6
#: The number of lowest bands in which a bass drum and a bass share a few bins, and within how many dB stem and residual
#: are about equally loud there: fully up to the first number, in part up to the second.
CONTESTED_BANDS, CONTESTED_DB = 1, (4.0, 7.0)


@dataclass(frozen=True)
class Ramp:
    """The highest severity of any type to the part of the correction that the detectors let through: none up to
    `closed`, all from `opened` on, and linear between."""

    closed: float = 0.12
    opened: float = 0.35

    def __post_init__(self) -> None:
        if not 0.0 <= self.closed < self.opened <= 1.0:
            raise OptionError(f"ramp from {self.closed:g} to {self.opened:g}: use two rising numbers from 0 to 1")

    @classmethod
    def of(cls, limits: Sequence[float]) -> Ramp:
        """From a list, as in files and recipes. Raises OptionError unless it is two such numbers."""
        try:
            closed, opened = map(float, limits)
        except (TypeError, ValueError):
            raise OptionError(f"ramp {limits!r}: use two rising numbers from 0 to 1") from None
        return cls(closed, opened)

    def __call__(self, evidence: np.ndarray) -> np.ndarray:
        """Evidence (B, 8, K, N) to amounts (B, K, N)."""
        highest = evidence[:, : len(TYPES)].max(axis=1)
        return np.clip((highest - self.closed) / (self.opened - self.closed), 0.0, 1.0)


#: For the trust curve of a fault that the detectors do not know.
NO_RAMPS = (None, None)


@dataclass(frozen=True)
class TrustCurve:
    """The amount of the correction that was right on held-out material, as a linear function of the evidence, clipped
    to 0 and 1; for each group of bands, with the mix and without. With the mix there is one such function at each of
    some mask likelihoods, interpolated linearly between them. Fitted by least squares (train/fit_trust.py): a network
    is more certain of its correction in some bands and on some material than it should be, and what it gets right on a
    separator's stem is not what it gets right on a true one.

    starts: first band of each group. knots: rising mask likelihoods. with_mix: weights (knots, groups, 8), or (groups,
    8) for a single knot; columns as in TERMS. without_mix: (groups, 8). ramps: what the detectors let through besides,
    with the mix and without; None if they do not know the fault. contested: factor of the amount, 0 to 1, where stem
    and residual are about equally loud in the lowest band.
    """

    starts: tuple[int, ...]
    with_mix: np.ndarray
    without_mix: np.ndarray
    ramps: tuple[Ramp | None, Ramp | None] = (Ramp(), Ramp())
    knots: tuple[float, ...] = (0.0,)
    contested: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.contested <= 1.0:
            raise OptionError(f"trust curve: contested = {self.contested:g} is not from 0 to 1")
        if not self.starts or self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise OptionError(f"trust curve: starts {self.starts} are not rising band numbers from 0 on")
        if not self.knots or list(self.knots) != sorted(set(self.knots)) or not np.isfinite(self.knots).all():
            raise OptionError(f"trust curve: knots {self.knots} are not rising numbers")
        size = (len(self.starts), len(TERMS))
        for name, shape in (("with_mix", (len(self.knots), *size)), ("without_mix", size)):
            weights = np.asarray(getattr(self, name), np.float32)
            weights = weights[None] if name == "with_mix" and weights.ndim == 2 else weights
            if weights.shape != shape or not np.isfinite(weights).all():
                wanted = " x ".join(str(n) for n in shape)
                raise OptionError(f"trust curve: {name} of shape {weights.shape} is not {wanted} finite numbers")
            object.__setattr__(self, name, weights)

    def amount(self, evidence: np.ndarray, with_mix: bool) -> np.ndarray:
        """Evidence (B, 8, K, N) to amounts (B, K, N)."""
        bands = evidence.shape[2]
        widths = np.diff([*self.starts, bands])
        known = np.moveaxis(evidence_terms(np.moveaxis(evidence, 1, 0))[1:], 0, 1)

        def linear(weights: np.ndarray) -> np.ndarray:
            by_band = np.repeat(weights, widths, axis=0)
            found: np.ndarray = by_band[:, :1] + np.einsum("kj,bjkn->bkn", by_band[:, 1:], known)
            return found

        if not with_mix:
            return np.clip(linear(self.without_mix), 0.0, 1.0)
        near = knot_weights(evidence[:, MASK_LIKELIHOOD, :1], self.knots)  # the same in all bands
        amount = np.clip(sum(n * linear(w) for n, w in zip(near, self.with_mix, strict=True)), 0.0, 1.0)
        if self.contested < 1.0:
            lowest = evidence[:, BALANCE, :CONTESTED_BANDS]
            amount[:, :CONTESTED_BANDS] *= 1.0 - (1.0 - self.contested) * how_contested(lowest)
        return amount

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = {name: np.round(getattr(self, name), 4).tolist() for name in ("with_mix", "without_mix")}
        ramps = [None if ramp is None else [ramp.closed, ramp.opened] for ramp in self.ramps]
        limits = {"ramps": ramps, "contested": self.contested}
        return {"starts": list(self.starts), "knots": list(self.knots), **rows, **limits}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrustCurve:
        """From JSON. Raises OptionError, KeyError, TypeError or ValueError where it is not a trust curve."""
        with_mix, without_mix = (np.array(values[name], np.float32) for name in ("with_mix", "without_mix"))
        starts = tuple(int(start) for start in values["starts"])
        knots = tuple(float(knot) for knot in values["knots"])
        first, second = (None if ramp is None else Ramp.of(ramp) for ramp in values["ramps"])
        return cls(starts, with_mix, without_mix, (first, second), knots, float(values["contested"]))


@dataclass(frozen=True)
class Trust:
    """The amount 0..1 of the correction for each band and frame: what the detectors let through by the highest severity
    of any type within the look-ahead, times what the trust curves of a blend's adapters and of the base say.
    `trust_curves`: each with its adapter's weight.

    Each adapter knows its own fault best, and of two faults either is a reason: so their amounts, each in proportion to
    its weight (1 and more: fully), combine as probabilities do, 1 - (1 - a)(1 - b). The base's curve gets 1 minus the
    largest weight. Without any trust curve only `ramp` counts.
    """

    ramp: Ramp = Ramp()
    trust_curves: tuple[tuple[TrustCurve, float], ...] = ()
    base: TrustCurve | None = None

    def for_separated(self) -> Trust:
        """The same for a stem that is known to come from a mask-based separator, with its mix: something is wrong
        everywhere, so the trust curves decide without ramps. Without a curve the detectors still do."""

        def without_ramp(curve: TrustCurve) -> TrustCurve:
            return replace(curve, ramps=(None, curve.ramps[1]))

        curves = tuple((without_ramp(curve), weight) for curve, weight in self.trust_curves)
        return replace(self, trust_curves=curves, base=self.base and without_ramp(self.base))

    def start(self, batch: int, layout: BandLayout, lookahead: int) -> np.ndarray:
        """State before the first frame: the evidence (B, 8, K, L) of the frames that wait for their look-ahead."""
        return np.zeros((batch, EVIDENCE_ROWS, layout.bands, lookahead), np.float32)

    def __call__(self, made: Features, waiting: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features to amounts (B, K, N) for the frames that leave the look-ahead, which are L frames earlier, and the
        state after them."""
        joined = np.concatenate([waiting, evidence(made)], axis=-1)
        count = made.control.shape[-1]
        highest = highest_within(joined, waiting.shape[-1])
        has_mix = bool(made.control[:, LAYOUT.has_mix].any())

        def amount_by(curve: TrustCurve | None) -> np.ndarray:
            if curve is None:
                return self.ramp(highest)
            amount, ramp = curve.amount(highest, has_mix), curve.ramps[0 if has_mix else 1]
            return amount if ramp is None else amount * ramp(highest)

        amount, decided = np.zeros_like(highest[:, 0]), 0.0
        for curve, weight in self.trust_curves:
            part = min(weight, 1.0)
            amount, decided = amount + (1.0 - amount) * part * amount_by(curve), max(decided, part)
        if decided < 1.0:
            amount = np.minimum(amount + (1.0 - decided) * amount_by(self.base), 1.0)
        return amount.astype(np.float32), joined[..., count:]


def evidence(made: Features) -> np.ndarray:
    """Features to what trust depends on (B, 8, K, N)."""
    coherence = made.control[:, LAYOUT.leakage_coherence].max(axis=1, keepdims=True)
    in_all_bands = np.broadcast_to(made.mask_likelihood[:, None, None], coherence.shape)
    severities = made.control[:, LAYOUT.severity]
    return np.concatenate([severities, coherence, in_all_bands, made.balance[:, None]], axis=1)


def how_contested(balance: np.ndarray) -> np.ndarray:
    """The stem's share of the power of stem and residual to 1 where they are about equally loud, 0 where they are
    not."""
    apart = np.abs(10 * np.log10((balance + 1e-9) / (1.0 - balance + 1e-9)))
    return np.interp(apart, CONTESTED_DB, (1.0, 0.0)).astype(np.float32)


def evidence_terms(rows: np.ndarray) -> np.ndarray:
    """Evidence (8, ...) to the values of TERMS (8, ...)."""
    clear = np.clip((rows[LEAKAGE : LEAKAGE + 1] - CLEAR_LEAKAGE) / (1.0 - CLEAR_LEAKAGE), 0.0, 1.0)
    return np.concatenate([np.ones_like(rows[:1]), rows[:MASK_LIKELIHOOD], clear])


def knot_weights(values: np.ndarray, knots: tuple[float, ...]) -> list[np.ndarray]:
    """For each knot how near the values are to it: 1 at the knot, 0 from its neighbours on, linear between; beyond the
    outer knots 1. They sum to 1."""
    return [np.interp(values, knots, row).astype(np.float32) for row in np.eye(len(knots))]


def highest_within(values: np.ndarray, lookahead: int) -> np.ndarray:
    """The highest of each value and the `lookahead` that follow it: (..., N + lookahead) to (..., N)."""
    return np.lib.stride_tricks.sliding_window_view(values, lookahead + 1, axis=-1).max(axis=-1)


def bands_to_bins(amount: np.ndarray, layout: BandLayout) -> np.ndarray:
    """Each band's amount to its bins: (B, K, N) to (B, 1, F, N), for both channels."""
    return np.repeat(amount, layout.widths, axis=1)[:, None]
