"""Lets the change through where the detectors hear something wrong, and as much of it as has proved right where things
sounded like this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .detect.bank import TYPES
from .dsp.latent import BandLayout
from .errors import OptionError
from .features import FEATURES, LEAK_COHERENCE, MIX_FLAG, Features

#: What the share hangs on: one, the severity of each type, how much of the stem a leak of the rest explains, and how
#: far that is above CLEAR_LEAK, where it is hardly ever a separator's mask.
EVIDENCE = ("always", *TYPES, "leak", "clear leak")
CLEAR_LEAK = 0.6
#: What the gate hears: severities, leak, how far the stem is what a mask has made of its song (`leak.Leak.masked`), by
#: which the share goes from one set of weights to the next, and the stem's part of the power of stem and rest.
HEARD = len(TYPES) + 3
LEAK, MASKED, BALANCE = HEARD - 3, HEARD - 2, HEARD - 1
#: The bands, of the lowest, where a bass drum and a bass share a few bins, and within how many dB stem and rest are
#: about as loud there: up to the first, and up to the second in part.
CONTESTED_BANDS, CONTESTED_DB = 1, (4.0, 7.0)


@dataclass(frozen=True)
class Ramp:
    """The worst severity of any type to the part of the change that the detectors let through: none up to `closed`,
    all from `opened` on, and linear between."""

    closed: float = 0.12
    opened: float = 0.35

    def __post_init__(self) -> None:
        if not 0.0 <= self.closed < self.opened <= 1.0:
            raise OptionError(f"ramp from {self.closed:g} to {self.opened:g}: give two rising numbers in 0 to 1")

    @classmethod
    def of(cls, limits: Sequence[float]) -> Ramp:
        """From a list, as files and recipes have it. Raises OptionError for what is not two such numbers."""
        try:
            closed, opened = map(float, limits)
        except (TypeError, ValueError):
            raise OptionError(f"ramp {limits!r}: give two rising numbers in 0 to 1") from None
        return cls(closed, opened)

    def __call__(self, heard: np.ndarray) -> np.ndarray:
        """What was heard (B, 8, K, N) to parts (B, K, N)."""
        worst = heard[:, : len(TYPES)].max(axis=1)
        return np.clip((worst - self.closed) / (self.opened - self.closed), 0.0, 1.0)


#: Of a caution for a fault that the detectors know nothing of.
NO_RAMPS = (None, None)


@dataclass(frozen=True)
class Caution:
    """The share of the change that was right on held-out sounds, as a linear function of the evidence, cut off at 0 and
    1; for each group of bands its own, with the mixture and without. With the mixture there is one such function for
    each of some values of how far the stem is masked, and between them the share goes on straight lines. Fitted by
    least squares (`engine/train/fit_trust.py`): a network is surer of its change in some bands and on some sounds
    than it should be, and what it is right about on a separator's stem is not what it is right about on a true one.

    starts: the first band of each group. knots: rising values of how far a stem is masked. with_mix: weights (knots,
    groups, 8), columns as in EVIDENCE, or (groups, 8) for all stems alike. without_mix: (groups, 8). Without the last
    column, as files of before have them, it is zero. ramps: what the detectors let through besides, with the mixture
    and without; None where they know nothing of the fault, so that the share alone counts. contested: factor of the
    share, 0 to 1, where stem and rest are about as loud in the lowest band.
    """

    starts: tuple[int, ...]
    with_mix: np.ndarray
    without_mix: np.ndarray
    ramps: tuple[Ramp | None, Ramp | None] = (Ramp(), Ramp())
    knots: tuple[float, ...] = (0.0,)
    contested: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.contested <= 1.0:
            raise OptionError(f"caution: contested = {self.contested:g} is not in 0 to 1")
        if not self.starts or self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise OptionError(f"caution: starts {self.starts} are not rising bands from 0 on")
        if not self.knots or list(self.knots) != sorted(set(self.knots)) or not np.isfinite(self.knots).all():
            raise OptionError(f"caution: knots {self.knots} are not rising numbers")
        with_mix, without_mix = (_with_all_columns(weights) for weights in (self.with_mix, self.without_mix))
        with_mix = with_mix[None] if with_mix.ndim == 2 else with_mix
        size = (len(self.starts), len(EVIDENCE))
        for name, weights, shape in (
            ("with_mix", with_mix, (len(self.knots), *size)),
            ("without_mix", without_mix, size),
        ):
            if weights.shape != shape or not np.isfinite(weights).all():
                wanted = " x ".join(str(n) for n in shape)
                raise OptionError(f"caution: {name} of shape {weights.shape} is not {wanted} numbers")
            object.__setattr__(self, name, weights)

    def share(self, heard: np.ndarray, with_mix: bool) -> np.ndarray:
        """What was heard (B, 8, K, N) to shares (B, K, N)."""
        bands = heard.shape[2]
        widths = np.diff([*self.starts, bands])
        known = np.moveaxis(terms(np.moveaxis(heard, 1, 0))[1:], 0, 1)

        def linear(weights: np.ndarray) -> np.ndarray:
            by_band = np.repeat(weights, widths, axis=0)
            found: np.ndarray = by_band[:, :1] + np.einsum("kj,bjkn->bkn", by_band[:, 1:], known)
            return found

        if not with_mix:
            return np.clip(linear(self.without_mix), 0.0, 1.0)
        near = nearness(heard[:, MASKED, :1], self.knots)  # it is the same in all bands
        share = np.clip(sum(n * linear(w) for n, w in zip(near, self.with_mix, strict=True)), 0.0, 1.0)
        if self.contested < 1.0:
            lowest = heard[:, BALANCE, :CONTESTED_BANDS]
            share[:, :CONTESTED_BANDS] *= 1.0 - (1.0 - self.contested) * how_contested(lowest)
        return share

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = {name: np.round(getattr(self, name), 4).tolist() for name in ("with_mix", "without_mix")}
        ramps = [None if ramp is None else [ramp.closed, ramp.opened] for ramp in self.ramps]
        limits = {"ramps": ramps, "contested": self.contested}
        return {"starts": list(self.starts), "knots": list(self.knots), **rows, **limits}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Caution:
        """From JSON; a file of before has `gated` in place of ramps. Raises OptionError, KeyError, TypeError or
        ValueError for what is none."""
        with_mix, without_mix = (np.array(values[name], np.float32) for name in ("with_mix", "without_mix"))
        starts = tuple(int(start) for start in values["starts"])
        knots = tuple(float(knot) for knot in values.get("knots", (0.0,)))
        usual = [[Ramp.closed, Ramp.opened] if values.get("gated", True) else None] * 2
        with_song, alone = (None if ramp is None else Ramp.of(ramp) for ramp in values.get("ramps", usual))
        contested = float(values.get("contested", 1.0))
        return cls(starts, with_mix, without_mix, (with_song, alone), knots, contested)


@dataclass(frozen=True)
class Gate:
    """A share 0..1 of the change for each band and frame: what the detectors let through by the worst severity of any
    type there within the look-ahead, and of that a part by what the adapters of a blend say and the base: `cautions`,
    each with its adapter's weight, and `base`.

    Each adapter knows its own fault best, and of two faults either is a reason: so their shares, each in proportion to
    its weight (1 and over: all the way), go together as chances do, 1 - (1 - a)(1 - b). What the largest weight leaves
    of 1 is the base's to say. Without any caution `ramp` alone counts.
    """

    ramp: Ramp = Ramp()
    cautions: tuple[tuple[Caution, float], ...] = ()
    base: Caution | None = None

    def for_separated(self) -> Gate:
        """The same for a stem that is known to be a separator's, with its song: something is wrong everywhere, so the
        cautions speak alone, without ramps. Without any the detectors still do."""

        def freed(caution: Caution) -> Caution:
            return replace(caution, ramps=(None, caution.ramps[1]))

        cautions = tuple((freed(caution), weight) for caution, weight in self.cautions)
        return replace(self, cautions=cautions, base=self.base and freed(self.base))

    def start(self, batch: int, layout: BandLayout, lookahead: int) -> np.ndarray:
        """State before the first frame: the evidence (B, 8, K, L) of the frames that wait for their look-ahead."""
        return np.zeros((batch, HEARD, layout.bands, lookahead), np.float32)

    def __call__(self, made: Features, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features to shares (B, K, N) for the frames that leave the look-ahead, which are L frames earlier, and the
        state after them."""
        joined = np.concatenate([held, evidence(made)], axis=-1)
        count = made.control.shape[-1]
        heard = most_within(joined, held.shape[-1])
        has_mix = bool(made.control[:, MIX_FLAG].any())

        def share_by(caution: Caution | None) -> np.ndarray:
            if caution is None:
                return self.ramp(heard)
            share, ramp = caution.share(heard, has_mix), caution.ramps[0 if has_mix else 1]
            return share if ramp is None else share * ramp(heard)

        share, spoken = np.zeros_like(heard[:, 0]), 0.0
        for caution, weight in self.cautions:
            part = min(weight, 1.0)
            share, spoken = share + (1.0 - share) * part * share_by(caution), max(spoken, part)
        if spoken < 1.0:
            share = np.minimum(share + (1.0 - spoken) * share_by(self.base), 1.0)
        return share.astype(np.float32), joined[..., count:]


def evidence(made: Features) -> np.ndarray:
    """Features to what the gate looks at (B, 8, K, N)."""
    coherence = made.control[:, LEAK_COHERENCE].max(axis=1, keepdims=True)
    everywhere = np.broadcast_to(made.masked[:, None, None], coherence.shape)
    severities = made.control[:, FEATURES - len(TYPES) :]
    return np.concatenate([severities, coherence, everywhere, made.balance[:, None]], axis=1)


def how_contested(balance: np.ndarray) -> np.ndarray:
    """The stem's part of the power of stem and rest to 1 where they are about as loud, 0 where they are not."""
    apart = np.abs(10 * np.log10((balance + 1e-9) / (1.0 - balance + 1e-9)))
    return np.interp(apart, CONTESTED_DB, (1.0, 0.0)).astype(np.float32)


def terms(heard: np.ndarray) -> np.ndarray:
    """What was heard (8, ...) to the terms of EVIDENCE (8, ...)."""
    clear = np.clip((heard[LEAK : LEAK + 1] - CLEAR_LEAK) / (1.0 - CLEAR_LEAK), 0.0, 1.0)
    return np.concatenate([np.ones_like(heard[:1]), heard[:MASKED], clear])


def _with_all_columns(weights: np.ndarray) -> np.ndarray:
    """A file of before knows nothing of a clear leak."""
    found = np.asarray(weights, np.float32)
    if found.shape[-1:] != (len(EVIDENCE) - 1,):
        return found
    return np.concatenate([found, np.zeros_like(found[..., :1])], axis=-1)


def nearness(values: np.ndarray, knots: tuple[float, ...]) -> list[np.ndarray]:
    """For each knot how near the values are to it: 1 at the knot, 0 from its neighbours on, linear between; beyond the
    outer knots 1. They sum to 1."""
    return [np.interp(values, knots, row).astype(np.float32) for row in np.eye(len(knots))]


def most_within(values: np.ndarray, lookahead: int) -> np.ndarray:
    """The largest of each value and the `lookahead` that follow it: (..., N + lookahead) to (..., N)."""
    return np.lib.stride_tricks.sliding_window_view(values, lookahead + 1, axis=-1).max(axis=-1)


def over_bins(share: np.ndarray, layout: BandLayout) -> np.ndarray:
    """Each band's share to its bins: (B, K, N) to (B, 1, F, N), for both channels."""
    return np.repeat(share, layout.widths, axis=1)[:, None]
