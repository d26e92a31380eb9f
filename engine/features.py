"""What the control branch is shown, made from the packed spectra of the stem and, if there is one, of the mix."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from .detect.detectors import TYPES, Detectors, DetectorState
from .detect.measures import MEMORY
from .dsp.latent import SLOTS, BandLayout, Latent
from .dsp.leakage import Leakage, LeakageCanceller, LeakageState, left_right, masked_mix, mid_side
from .dsp.stft import StftConfig
from .stem_names import ROLES, check_role

#: What the network's gates act on, in this order: fields of `Features`.
REFERENCES = ("stem", "mix", "cancelled", "masked")


class FeatureLayout(NamedTuple):
    """Which rows of the control features (B, rows, K, N) hold what."""

    stem: slice  # latent of the stem
    residual: slice  # latent of mix minus stem
    log_stem: slice  # log-magnitudes: of the stem,
    log_mix: slice  # of the mix,
    log_residual: slice  # of mix minus stem
    coherence_in_time: slice  # phase coherence of mid and side of stem and mix, in time
    coherence_in_frequency: slice  # and over frequency
    has_mix: slice  # 1 with the mix, 0 without
    leakage_gain: slice  # of mid and side
    leakage_coherence: slice
    log_cancelled: slice  # log-magnitudes of the stem without its leakage
    severity: slice  # the detectors' severities, in the order of TYPES
    role: slice  # 1 for the stem's role, in the order of ROLES, and 0 for the others; zeros if it is not known

    @property
    def rows(self) -> int:
        """Rows in all."""
        return int(self.role.stop)


def _layout(**sizes: int) -> FeatureLayout:
    ends = list(accumulate(sizes.values()))
    return FeatureLayout(*(slice(end - size, end) for end, size in zip(ends, sizes.values(), strict=True)))


LAYOUT = _layout(
    stem=4 * SLOTS, residual=4 * SLOTS, log_stem=2 * SLOTS, log_mix=2 * SLOTS, log_residual=2 * SLOTS,
    coherence_in_time=4, coherence_in_frequency=4, has_mix=1, leakage_gain=2, leakage_coherence=2,
    log_cancelled=2 * SLOTS, severity=len(TYPES), role=len(ROLES),
)  # fmt: skip


@dataclass(frozen=True)
class FeatureState:
    """The last frame of mid and side of stem and mix, what the leakage is measured from, the detectors' state for each
    pair, and the role."""

    phase: PhaseState
    leakage: LeakageState
    detectors: tuple[DetectorState, ...]
    role: str | None


@dataclass(frozen=True)
class Features:
    """The inputs of the model for a run of frames; B batch, K bands, N frames.

    control (B, LAYOUT.rows, K, N). stem, mix, cancelled, masked (B, 64, K, N): the latents of the stem, of the mix, of
    the stem without its leakage, and of the mix through the mask of the latter (dsp/leakage.py); without a mix all four
    are the stem's. leakage: what was measured of the residual; None without a mix.
    """

    control: np.ndarray
    stem: np.ndarray
    mix: np.ndarray
    cancelled: np.ndarray
    masked: np.ndarray
    leakage: Leakage | None

    @property
    def references(self) -> np.ndarray:
        """REFERENCES as one array (B, 4, 64, K, N)."""
        return np.stack([getattr(self, name) for name in REFERENCES], axis=1)


@dataclass(frozen=True)
class FeatureMaker:
    """Packed left/right spectra (B, 2, F, N) to Features, frame by frame, with `memory_frames` of memory."""

    latent: Latent = field(default_factory=Latent)
    stft: StftConfig = field(default_factory=StftConfig)

    @property
    def memory_frames(self) -> int:
        """Frames after which nothing is left of what was before."""
        return MEMORY

    @cached_property
    def detectors(self) -> Detectors:
        """The detectors whose maps the control branch sees."""
        return Detectors(stft=self.stft)

    @cached_property
    def _perceptual(self) -> np.ndarray:
        """The perceptual band around the middle of each band of the latent (K,)."""
        layout = self.latent.layout
        middle = layout.starts + layout.widths / 2
        return np.searchsorted(self.detectors.bands.starts, middle, side="right") - 1

    @cached_property
    def _leakage(self) -> LeakageCanceller:
        return LeakageCanceller(self.latent.layout)

    def start(self, batch: int, role: str | None = None) -> FeatureState:
        """State before the first frame of stems with a role of ROLES; None if it is not known. Raises OptionError for
        another role."""
        return FeatureState(
            start_phase((batch, 4, self.latent.layout.bins)),
            self._leakage.start(batch),
            tuple(self.detectors.start() for _ in range(batch)),
            check_role(role),
        )

    def __call__(self, stem: np.ndarray, mix: np.ndarray | None, state: FeatureState) -> tuple[Features, FeatureState]:
        """Features of the frames and the state after them."""
        z_stem = self.latent.encode(stem)
        batch, _, bands, frames = z_stem.shape
        control = np.zeros((batch, LAYOUT.rows, bands, frames), np.float32)
        control[:, LAYOUT.stem] = z_stem
        control[:, LAYOUT.log_stem] = log_magnitude(z_stem)
        z_mix = z_cancelled = z_masked = z_stem
        both, leakage = _mid_side_of_both(stem, mix), state.leakage
        found = None
        if mix is not None:
            z_mix = self.latent.encode(mix)
            z_residual = self.latent.encode(mix - stem)
            control[:, LAYOUT.residual] = z_residual
            control[:, LAYOUT.log_mix] = log_magnitude(z_mix)
            control[:, LAYOUT.log_residual] = log_magnitude(z_residual)
            control[:, LAYOUT.has_mix] = 1.0
            own, residual = both[:, 0:2], both[:, 2:4] - both[:, 0:2]
            found, leakage = self._leakage.measure(own, residual, leakage)
            leaked = self._leakage.part(residual, found.gain)
            z_cancelled = self.latent.encode(stem - left_right(leaked))  # exactly the stem where there is none
            z_masked = self.latent.encode(left_right(masked_mix(own - leaked, both[:, 2:4])))
            control[:, LAYOUT.leakage_gain] = found.gain
            control[:, LAYOUT.leakage_coherence] = found.coherence
        control[:, LAYOUT.log_cancelled] = log_magnitude(z_cancelled)
        in_time, in_frequency, phase = phase_coherence(both, self.latent.layout, state.phase)
        control[:, LAYOUT.coherence_in_time] = in_time
        control[:, LAYOUT.coherence_in_frequency] = in_frequency
        severity, detectors = self._detect(stem, mix, state.detectors)
        control[:, LAYOUT.severity] = severity[:, :, self._perceptual]
        if state.role is not None:
            control[:, LAYOUT.role.start + ROLES.index(state.role)] = 1.0
        made = Features(control, z_stem, z_mix, z_cancelled, z_masked, found)
        return made, FeatureState(phase, leakage, detectors, state.role)

    def listen(self, stem: np.ndarray, mix: np.ndarray | None, state: FeatureState) -> FeatureState:
        """The state after the frames, without their features."""
        both, leakage = _mid_side_of_both(stem, mix), state.leakage
        _, _, phase = phase_coherence(both[..., -1:], self.latent.layout, state.phase)
        if mix is not None:
            leakage = self._leakage.measure(both[:, 0:2], both[:, 2:4] - both[:, 0:2], leakage)[1]
        return FeatureState(phase, leakage, self._detect(stem, mix, state.detectors)[1], state.role)

    def _detect(
        self, stem: np.ndarray, mix: np.ndarray | None, states: tuple[DetectorState, ...]
    ) -> tuple[np.ndarray, tuple[DetectorState, ...]]:
        found = [
            self.detectors(stem[pair], None if mix is None else mix[pair], state) for pair, state in enumerate(states)
        ]
        return np.stack([severity for severity, _ in found]), tuple(state for _, state in found)


def _mid_side_of_both(stem: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
    """Mid and side of stem and mix (B, 4, F, N); zeros for a mix that is not there."""
    both = np.zeros((len(stem), 4, *stem.shape[2:]), np.complex64)
    both[:, 0:2] = mid_side(stem)
    if mix is not None:
        both[:, 2:4] = mid_side(mix)
    return both


def log_magnitude(latent: np.ndarray) -> np.ndarray:
    """Latent (B, 64, K, N) to a quarter of the natural logarithm of its slots' power (B, 32, K, N), floored at -2.3."""
    power = np.square(latent[:, : 2 * SLOTS]) + np.square(latent[:, 2 * SLOTS :])
    return np.float32(0.25) * np.log(power + np.float32(1e-4))


@dataclass(frozen=True)
class PhaseState:
    """The last frame of the spectrum (..., F, 1)."""

    last: np.ndarray


def start_phase(shape: tuple[int, ...]) -> PhaseState:
    """State before the first frame of a spectrum (..., F, N); `shape` is (..., F)."""
    return PhaseState(np.zeros((*shape, 1), np.complex64))


def _band_mean(values: np.ndarray, layout: BandLayout) -> np.ndarray:
    """Mean over the bins of each band: (..., F, N) to (..., K, N)."""
    parts, start = [], 0
    for count, width in layout.runs:
        run = values[..., start : start + count * width, :]
        parts.append(run.reshape(*run.shape[:-2], count, width, run.shape[-1]).mean(axis=-2))
        start += count * width
    return np.concatenate(parts, axis=-2)


def phase_coherence(
    spectrum: np.ndarray, layout: BandLayout, state: PhaseState
) -> tuple[np.ndarray, np.ndarray, PhaseState]:
    """How coherent the phase of each band is in time and over frequency.

    spectrum (..., F, N) complex -> (temporal, spectral), each (..., K, N) in 0..1, and the next state. Temporal:
    resultant length of the phase advance over one hop (the instantaneous frequency, which all bins of one partial
    share), 1 where one steady partial fills the band. Spectral: resultant length of the phase step from bin to bin
    (the group delay), 1 for a single impulse. Both weight by magnitude (mean resultant length: Fisher, Statistical
    Analysis of Circular Data, 1993).
    """
    unit = spectrum / np.maximum(np.abs(spectrum), np.float32(1e-12))
    root = np.sqrt(np.abs(spectrum))
    flat = unit * root
    before = np.concatenate([state.last, flat[..., :-1]], axis=-1)
    in_time = flat * before.conj()
    above = np.concatenate([flat[..., 1:, :], flat[..., -1:, :]], axis=-2)
    in_frequency = above * flat.conj()
    floor = np.float32(1e-7)
    temporal = np.abs(_band_mean(in_time, layout)) / (_band_mean(np.abs(in_time), layout) + floor)
    spectral = np.abs(_band_mean(in_frequency, layout)) / (_band_mean(np.abs(in_frequency), layout) + floor)
    return temporal.astype(np.float32), spectral.astype(np.float32), PhaseState(flat[..., -1:])
