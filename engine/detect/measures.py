"""The detectors' input: local measures of a stem, alone and against its mix, for each perceptual band and frame.

Every measure is a ratio of two sums over the last frames, (num + prior * little) / (den + little). Evidence is weighted
by its amount; without any, the measure equals its prior. `little` scales with the band's own level in these frames, so
no measure depends on the gain of the stem, and each band adapts by itself. Every window ends at the current frame and
has a fixed length, so a stream can start anywhere: after MEMORY frames nothing of what came before has any effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..dsp.bands import LONGEST, WIDTHS, PerceptualBands, moving_sums, no_sums
from ..dsp.stft import StftConfig

LAG = 4  # frames: at 75% overlap, the first frame that shares no samples
HISTORY = 12  # frames of band levels that are searched for an attack
MEMORY = LONGEST + HISTORY  # frames


@dataclass(frozen=True)
class Measure:
    """One ratio. prior: its value without evidence; frames: how many are summed (a power of two); needs_mix: whether it
    can only be computed with the mix."""

    name: str
    prior: float
    frames: int
    needs_mix: bool = False


MEASURES = (
    Measure("fluctuation", 100.0, 32),
    Measure("mask_fluctuation", 400.0, 32, needs_mix=True),
    Measure("leak", 0.0, 64, needs_mix=True),
    Measure("likeness", 0.0, 64, needs_mix=True),
    Measure("borrowed_phase", 0.5, 64, needs_mix=True),
    Measure("own_phase", 0.98, 64, needs_mix=True),
    Measure("lobe_phase", -0.95, 64),
    Measure("sharpness", 0.9, 128),
    Measure("attack_phase", 0.8, 128),
    Measure("attack_kept", 1.0, 128, needs_mix=True),
    Measure("excess", 0.0, 64, needs_mix=True),
)
INDEX = {measure.name: i for i, measure in enumerate(MEASURES)}
TRACKS = ("stem", "mix", "left", "right", "cross_re", "cross_im", "slow_stem", "slow_mix")
TRACK_FRAMES = (64, 64, 64, 64, 64, 64, 128, 128)
MEASURE_ROWS, TRACK_ROWS = (
    [np.flatnonzero(np.array(frames) == width) for width in WIDTHS]
    for frames in ([measure.frames for measure in MEASURES], TRACK_FRAMES)
)
LITTLE = 0.05
NAMES = (
    *(measure.name for measure in MEASURES),
    "channel_coherence",
    "cliff",
    "edge",
    "level",
    "level_in_song",
    "height",
    "height_squared",
)
NEEDS_MIX = (*(measure.needs_mix for measure in MEASURES), False, False, False, False, True, False, False)


@dataclass(frozen=True)
class MeasureState:
    """The last frames of the spectra, the band levels and the summed values."""

    stem: np.ndarray
    mix: np.ndarray
    levels: np.ndarray
    pairs: tuple[np.ndarray, ...]
    instant: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Measures:
    """Packed spectra of stem and mix (2, F, N) to measures (J, K, N); J in the order of NAMES, K perceptual bands."""

    bands: PerceptualBands = field(default_factory=PerceptualBands)
    stft: StftConfig = field(default_factory=StftConfig)

    @cached_property
    def _heights(self) -> np.ndarray:
        """Position of each band, 0 (lowest) to 1, and its square: (2, K, 1)."""
        height = np.linspace(0.0, 1.0, len(self.bands), dtype=np.float32)[:, None]
        return np.stack([height, np.square(height)])

    def start(self) -> MeasureState:
        """State before the first frame: silence."""
        k, zeros = len(self.bands), np.zeros((2, self.stft.bins, LAG), np.complex64)
        return MeasureState(
            zeros,
            zeros,
            np.zeros((2, k, HISTORY), np.float32),
            no_sums((2, len(MEASURES), k)),
            no_sums((1, len(TRACKS), k)),
        )

    def __call__(
        self, stem: np.ndarray, mix: np.ndarray | None, state: MeasureState
    ) -> tuple[np.ndarray, np.ndarray, MeasureState]:
        """Measures of these frames, the stem's activity (N,) in 0..1, and the state after them. Without a mix, the
        measures that need it equal their priors."""
        frames = stem.shape[-1]
        y = np.concatenate([state.stem, stem], axis=-1)
        m = np.concatenate([state.mix, np.zeros_like(stem) if mix is None else mix], axis=-1)
        power = np.square(y.real) + np.square(y.imag)
        total = power.sum(axis=0)
        energy = self.bands.sum(total[:, LAG:])
        mix_energy = np.zeros_like(energy)
        pairs = np.zeros((2, len(MEASURES), len(self.bands), frames), np.float32)
        levels = np.concatenate([state.levels, np.stack([energy, mix_energy])], axis=-1)
        if mix is not None:
            mix_power = (np.square(m.real) + np.square(m.imag)).sum(axis=0)
            mix_energy = self.bands.sum(mix_power[:, LAG:])
            levels[1, :, HISTORY:] = mix_energy
            self._against_mix(pairs, y, m, total, mix_power)
        self._alone(pairs, y, total, energy)
        self._attacks(pairs, levels, y, has_mix=mix is not None)
        cross = self.bands.sum((y[0] * y[1].conj())[:, LAG:])
        side = [self.bands.sum(p[:, LAG:]) for p in power]
        instant = np.stack([energy, mix_energy, side[0], side[1], cross.real, cross.imag, energy, mix_energy])
        sums, pair_sums = moving_sums(pairs, MEASURE_ROWS, state.pairs)
        (tracks,), track_sums = moving_sums(instant[None], TRACK_ROWS, state.instant)
        measures = self._derive(sums, tracks)
        after = MeasureState(y[..., frames:], m[..., frames:], levels[..., frames:], pair_sums, track_sums)
        return measures, _activity(tracks), after

    def _alone(self, pairs: np.ndarray, y: np.ndarray, total: np.ndarray, energy: np.ndarray) -> None:
        """Measures that need no mix, written into `pairs` (2, measures, K, N) of numerators and denominators.

        fluctuation: mean square, in dB^2, of the mixed second difference of the log-power over LAG frames and three
        bins. It is 0 for steady partials and clicks, about 120 for noise, and higher for isolated islands and holes.
        lobe_phase: cosine of the phase step next to a spectral peak, -1 for a partial under a Hann window (Harris
        1978).
        """
        loud = np.maximum(self.bands.sum(total[:, LAG:]), self.bands.sum(total[:, :-LAG])) / self.bands.widths[:, None]
        pairs[:, INDEX["fluctuation"]] = self._mixed_difference(total, total, loud * np.float32(1e-4), energy)
        now, power = y[..., LAG:], total[:, LAG:]
        peak = np.zeros(power.shape, np.float32)
        centre = power[2:-2]
        peak[2:-2] = (
            (centre > power[1:-3]) & (centre > power[3:-1]) & (centre > 4 * power[:-4]) & (centre > 4 * power[4:])
        )
        step = now[:, 1:] * now[:, :-1].conj()
        size = np.sqrt(np.square(step.real) + np.square(step.imag)).sum(axis=0)
        real = step.real.sum(axis=0)
        next_to_peak = peak[:-1] + peak[1:]  # the steps on either side of a peak
        pairs[0, INDEX["lobe_phase"], :, :] = self._band_rows(real * next_to_peak)
        pairs[1, INDEX["lobe_phase"], :, :] = self._band_rows(size * next_to_peak)

    def _against_mix(
        self, pairs: np.ndarray, y: np.ndarray, m: np.ndarray, total: np.ndarray, mix_power: np.ndarray
    ) -> None:
        """Measures of the stem against the mix, written into `pairs` (2, measures, K, N); residual r = mix - stem.

        leak: gain of the residual in the stem, Re<y, r> / <r, r>; likeness: the same over the root of both powers.
        borrowed_phase: cosine between stem and mix in bins where the stem is the smaller part (a mask copies the phase
        of the mix there); own_phase: the same where the stem is nearly all of the mix. excess: fraction of the stem's
        power that exceeds the mix.
        """
        stem, mix = y[..., LAG:], m[..., LAG:]
        residual = mix - stem
        residual_power = (np.square(residual.real) + np.square(residual.imag)).sum(axis=0)
        p, q = total[:, LAG:], mix_power[:, LAG:]
        energy, residual_energy, mix_energy = self.bands.sum(p), self.bands.sum(residual_power), self.bands.sum(q)
        product = (stem.real * residual.real + stem.imag * residual.imag).sum(axis=0)
        cross = self.bands.sum(product)
        pairs[:, INDEX["leak"]] = cross, residual_energy
        pairs[:, INDEX["likeness"]] = cross, np.sqrt(energy * residual_energy)
        match = (stem.real * mix.real + stem.imag * mix.imag).sum(axis=0)
        size = np.sqrt(p * q)
        small = (p < 0.36 * q) & (p > 0.01 * q)
        large = (p > 0.5 * q) & (p < 2.0 * q)
        for name, mask in (("borrowed_phase", small), ("own_phase", large)):
            pairs[:, INDEX[name]] = self.bands.sum(match * mask), self.bands.sum(size * mask)
        pairs[:, INDEX["excess"]] = np.maximum(energy - 1.3 * mix_energy, 0.0), energy
        loud = np.maximum(mix_energy, self.bands.sum(mix_power[:, :-LAG])) / self.bands.widths[:, None]
        pairs[:, INDEX["mask_fluctuation"]] = self._mixed_difference(total, mix_power, loud * np.float32(1e-4), energy)

    def _mixed_difference(
        self, power: np.ndarray, reference: np.ndarray, floor: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        floor = self.bands.spread(floor) + np.float32(1e-20)
        logs = []
        for part in (slice(LAG, None), slice(None, -LAG)):
            level = np.log(np.maximum(power[1:, part], floor))
            if reference is not power:
                level -= np.log(np.maximum(reference[1:, part], floor))
            logs.append(level)
        step = (logs[0] - logs[1]) * np.float32(10 / np.log(10))
        mixed = np.zeros((power.shape[0], step.shape[1]), np.float32)
        mixed[1:-3] = np.square(np.clip(step[3:] - step[:-3], -45.0, 45.0))
        return self.bands.sum(mixed) / self.bands.widths[:, None] * weight, weight

    def _attacks(self, pairs: np.ndarray, levels: np.ndarray, y: np.ndarray, *, has_mix: bool) -> None:
        """Measures of attacks, written into `pairs` (2, measures, K, N).

        sharpness: fraction of an attack's rise that falls into three frames. attack_phase: agreement of the group delay
        over the bins of a rising band, 1 for a click. attack_kept: rise of the stem over that of the mix, where the
        stem is most of the mix.
        """
        recent = np.lib.stride_tricks.sliding_window_view(levels[0], HISTORY, axis=-1)[:, 1:]
        decibel = 10 * np.log10(recent + np.float32(1e-6) * recent.max(axis=-1, keepdims=True) + np.float32(1e-14))
        rise = decibel[..., -1] - decibel[..., -9]
        steps = decibel[..., 3:] - decibel[..., :-3]
        steepest = steps[..., -6:].max(axis=-1)
        attack = np.clip((rise - 10.0) / 10.0, 0.0, 1.0)
        energy = levels[0, :, HISTORY:]
        pairs[:, INDEX["sharpness"]] = attack * np.minimum(steepest / np.maximum(rise, 1.0), 1.5), attack
        rising = np.clip((steps[..., -1] - 6.0) / 10.0, 0.0, 1.0)
        now = y[..., LAG:]
        step = now[:, 1:] * now[:, :-1].conj()
        root = np.sqrt(np.sqrt(np.square(step.real) + np.square(step.imag)) + np.float32(1e-20))
        agreement = self._band_rows((step / root).sum(axis=0))
        size = self._band_rows(root.sum(axis=0))
        agreement = np.sqrt(np.square(agreement.real) + np.square(agreement.imag)) / (size + np.float32(1e-10))
        pairs[:, INDEX["attack_phase"]] = rising * agreement, rising
        if has_mix:
            mix = levels[1, :, HISTORY - 1 :]
            stem = levels[0, :, HISTORY - 1 :]
            flux = [np.maximum(np.diff(np.sqrt(e), axis=-1), 0.0) for e in (stem, mix)]
            dominant = (energy > 0.5 * mix[:, 1:]).astype(np.float32)
            pairs[:, INDEX["attack_kept"]] = flux[0] * dominant, flux[1] * dominant

    def _band_rows(self, steps: np.ndarray) -> np.ndarray:
        """Sums over bands of values (F - 1, N) between neighbouring bins."""
        return np.add.reduceat(steps, np.minimum(self.bands.starts, len(steps) - 1), axis=0)

    def _derive(self, sums: np.ndarray, tracks: np.ndarray) -> np.ndarray:
        """Sums (2, measures, K, N) and tracks (tracks, K, N) to the measures (J, K, N)."""
        out = np.empty((len(NAMES), *tracks.shape[1:]), np.float32)
        stem, mix, left, right, cross_re, cross_im, slow_stem, slow_mix = tracks
        residual = np.maximum(mix - stem, np.float32(0.01) * mix)
        unit = {
            "attack_kept": np.sqrt(stem),
            "leak": residual,
            "likeness": np.sqrt(stem * residual),
            "borrowed_phase": np.sqrt(stem * mix),
        }
        for i, measure in enumerate(MEASURES):
            attack = measure.name in ("sharpness", "attack_phase")
            little = LITTLE * (1.0 if attack else unit.get(measure.name, stem)) + np.float32(1e-12)
            out[i] = (sums[0, i] + measure.prior * little) / (sums[1, i] + little)
        out[: INDEX["mask_fluctuation"] + 1] = np.sqrt(np.maximum(out[: INDEX["mask_fluctuation"] + 1], 0.0)) / 10
        row = len(MEASURES)
        size = np.sqrt(np.square(cross_re) + np.square(cross_im))
        out[row] = size / (np.sqrt(left * right) + np.float32(1e-12))
        widths = self.bands.widths[:, None]
        level = 10 * np.log10(slow_stem / widths + np.float32(1e-12))
        mix_level = 10 * np.log10(slow_mix / widths + np.float32(1e-12))
        level = np.maximum(level - level.max(axis=0), -90.0)
        cliff, edge = _cliff(level)
        relative = level - np.maximum(mix_level - mix_level.max(axis=0), -90.0)
        in_mix = np.where(slow_mix.max(axis=0) > 0.0, np.clip(relative, -40.0, 20.0), 0.0)
        out[row + 1 : row + 5] = np.stack([cliff, edge, level, in_mix]) / 10
        out[row + 5 : row + 7] = self._heights
        return out


def _cliff(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steepest fall of a mean spectrum (K, N, in dB) at or below each band, and the level it falls from.

    A fall at a band is measured from two bands below it to the loudest of that band and all above. The level is 0 where
    the spectrum does not fall. A low-pass cuts off while the signal is still strong; a naturally dark sound has faded
    long before its spectrum ends.
    """
    above = np.maximum.accumulate(level[::-1], axis=0)[::-1]
    drop = np.zeros_like(level)
    drop[3:] = np.minimum(level[1:-2], level[:-3] + 6.0) - above[3:]
    drop[:8] = 0.0
    steepest = np.maximum.accumulate(drop, axis=0)
    index = np.arange(len(level))[:, None]
    at = np.maximum.accumulate(np.where((drop >= steepest) & (drop > 0.0), index, 0), axis=0)
    edge = np.take_along_axis(level, np.maximum(at - 2, 0), axis=0)
    return steepest, np.where(at > 0, edge, 0.0)


def _activity(tracks: np.ndarray) -> np.ndarray:
    """The stem's activity (N,): 1 where it sounds, falling to 0 at 50 dB below its own level of the last seconds."""
    recent, usual = (tracks[TRACKS.index(name)].sum(axis=0) for name in ("stem", "slow_stem"))
    return np.clip(np.log10(recent / (usual + np.float32(1e-7)) + np.float32(1e-10)) + 5.0, 0.0, 1.0)
