"""What the detectors look at: local measures of a stem, and of the stem against its song, for each perceptual band
and frame.

Every measure is a ratio of two sums over the last frames, (num + prior * little) / (den + little): evidence is
weighed by how much of it there is, and where there is none the measure rests at its prior. `little` refers to the
band's own level in these frames, so all measures are independent of the stem's gain and adapt to each band by itself.
The windows end with the frame and are of a fixed length, so that a stream may be taken up anywhere: after MEMORY
frames nothing is left of what was before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..dsp.bands import PerceptualBands
from ..dsp.moving_sums import LONGEST, WIDTHS, moving_sums, no_sums
from ..dsp.stft import StftConfig

LAG = 4  # frames: at an overlap of 75% the first without common samples
HISTORY = 12  # frames of band levels that an attack is looked for in
MEMORY = LONGEST + HISTORY  # frames


@dataclass(frozen=True)
class Measure:
    """One ratio: its name, its value where nothing is known, the frames that are summed (a power of two), whether it
    needs the song."""

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
TRACKS = ("stem", "song", "left", "right", "cross_re", "cross_im", "slow_stem", "slow_song")
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
    """The last frames of the spectra, of the band levels, and of what is summed."""

    stem: np.ndarray
    mix: np.ndarray
    levels: np.ndarray
    pairs: tuple[np.ndarray, ...]
    instant: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Measures:
    """Packed spectra of stem and song (2, F, N) to measures (J, K, N); J as in NAMES, K perceptual bands."""

    bands: PerceptualBands = field(default_factory=PerceptualBands)
    stft: StftConfig = field(default_factory=StftConfig)

    @cached_property
    def _heights(self) -> np.ndarray:
        """Where a band is, 0 to 1, and the square of it: (2, K, 1)."""
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
        """Measures of these frames, how active the stem is (N,) in 0..1, and the state after them. Without the song,
        what needs it rests at its prior."""
        frames = stem.shape[-1]
        y = np.concatenate([state.stem, stem], axis=-1)
        m = np.concatenate([state.mix, np.zeros_like(stem) if mix is None else mix], axis=-1)
        power = np.square(y.real) + np.square(y.imag)
        total = power.sum(axis=0)
        energy = self.bands.sum(total[:, LAG:])
        song = np.zeros_like(energy)
        pairs = np.zeros((2, len(MEASURES), len(self.bands), frames), np.float32)
        levels = np.concatenate([state.levels, np.stack([energy, song])], axis=-1)
        if mix is not None:
            song_power = (np.square(m.real) + np.square(m.imag)).sum(axis=0)
            song = self.bands.sum(song_power[:, LAG:])
            levels[1, :, HISTORY:] = song
            self._against_song(pairs, y, m, total, song_power)
        self._alone(pairs, y, total, energy)
        self._attacks(pairs, levels, y, with_song=mix is not None)
        cross = self.bands.sum((y[0] * y[1].conj())[:, LAG:])
        side = [self.bands.sum(p[:, LAG:]) for p in power]
        instant = np.stack([energy, song, side[0], side[1], cross.real, cross.imag, energy, song])
        sums, pair_sums = moving_sums(pairs, MEASURE_ROWS, state.pairs)
        (tracks,), track_sums = moving_sums(instant[None], TRACK_ROWS, state.instant)
        found = self._derive(sums, tracks)
        after = MeasureState(y[..., frames:], m[..., frames:], levels[..., frames:], pair_sums, track_sums)
        return found, _activity(tracks), after

    def _alone(self, pairs: np.ndarray, y: np.ndarray, total: np.ndarray, energy: np.ndarray) -> None:
        """fluctuation: mean square, in dB^2, of the mixed second difference of the log-power over LAG frames and three
        bins: 0 for steady partials and for clicks, about 120 for noise, more for islands and holes. lobe_phase: cosine
        of the phase step beside a spectral peak: -1 for a partial under a Hann window (Harris 1978)."""
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
        beside = peak[:-1] + peak[1:]  # the steps on either side of a peak
        pairs[0, INDEX["lobe_phase"], :, :] = self._band_rows(real * beside)
        pairs[1, INDEX["lobe_phase"], :, :] = self._band_rows(size * beside)

    def _against_song(
        self, pairs: np.ndarray, y: np.ndarray, m: np.ndarray, total: np.ndarray, song_power: np.ndarray
    ) -> None:
        """leak: gain with which the rest of the song stands in the stem, Re<y, r> / <r, r>; likeness: the same over
        the root of both powers. borrowed_phase, own_phase: cosine between stem and song where the stem is the smaller
        part of a bin (a mask copies the song's phase there) and where it is nearly all of it. excess: share of the
        stem's power that the song does not have."""
        stem, whole = y[..., LAG:], m[..., LAG:]
        rest = whole - stem
        rest_power = (np.square(rest.real) + np.square(rest.imag)).sum(axis=0)
        p, q = total[:, LAG:], song_power[:, LAG:]
        energy, other, song = self.bands.sum(p), self.bands.sum(rest_power), self.bands.sum(q)
        shared = (stem.real * rest.real + stem.imag * rest.imag).sum(axis=0)
        cross = self.bands.sum(shared)
        pairs[:, INDEX["leak"]] = cross, other
        pairs[:, INDEX["likeness"]] = cross, np.sqrt(energy * other)
        match = (stem.real * whole.real + stem.imag * whole.imag).sum(axis=0)
        size = np.sqrt(p * q)
        small = (p < 0.36 * q) & (p > 0.01 * q)
        large = (p > 0.5 * q) & (p < 2.0 * q)
        for name, mask in (("borrowed_phase", small), ("own_phase", large)):
            pairs[:, INDEX[name]] = self.bands.sum(match * mask), self.bands.sum(size * mask)
        pairs[:, INDEX["excess"]] = np.maximum(energy - 1.3 * song, 0.0), energy
        loud = np.maximum(song, self.bands.sum(song_power[:, :-LAG])) / self.bands.widths[:, None]
        pairs[:, INDEX["mask_fluctuation"]] = self._mixed_difference(total, song_power, loud * np.float32(1e-4), energy)

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

    def _attacks(self, pairs: np.ndarray, levels: np.ndarray, y: np.ndarray, *, with_song: bool) -> None:
        """sharpness: share of an attack's rise that falls into three frames. attack_phase: agreement of the group delay
        over the bins of a band while it rises: 1 for a click. attack_kept: rise of the stem over that of the song
        where the stem is most of it."""
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
        if with_song:
            song = levels[1, :, HISTORY - 1 :]
            stem = levels[0, :, HISTORY - 1 :]
            flux = [np.maximum(np.diff(np.sqrt(e), axis=-1), 0.0) for e in (stem, song)]
            own = (energy > 0.5 * song[:, 1:]).astype(np.float32)
            pairs[:, INDEX["attack_kept"]] = flux[0] * own, flux[1] * own

    def _band_rows(self, steps: np.ndarray) -> np.ndarray:
        """Sums over bands of (F - 1, N) values between neighbouring bins."""
        return np.add.reduceat(steps, np.minimum(self.bands.starts, len(steps) - 1), axis=0)

    def _derive(self, sums: np.ndarray, tracks: np.ndarray) -> np.ndarray:
        found = np.empty((len(NAMES), *tracks.shape[1:]), np.float32)
        stem, song, left, right, cross_re, cross_im, slow_stem, slow_song = tracks
        rest = np.maximum(song - stem, np.float32(0.01) * song)
        unit = {
            "attack_kept": np.sqrt(stem),
            "leak": rest,
            "likeness": np.sqrt(stem * rest),
            "borrowed_phase": np.sqrt(stem * song),
        }
        for i, measure in enumerate(MEASURES):
            attack = measure.name in ("sharpness", "attack_phase")
            little = LITTLE * (1.0 if attack else unit.get(measure.name, stem)) + np.float32(1e-12)
            found[i] = (sums[0, i] + measure.prior * little) / (sums[1, i] + little)
        found[: INDEX["mask_fluctuation"] + 1] = np.sqrt(np.maximum(found[: INDEX["mask_fluctuation"] + 1], 0.0)) / 10
        row = len(MEASURES)
        size = np.sqrt(np.square(cross_re) + np.square(cross_im))
        found[row] = size / (np.sqrt(left * right) + np.float32(1e-12))
        widths = self.bands.widths[:, None]
        level = 10 * np.log10(slow_stem / widths + np.float32(1e-12))
        of_song = 10 * np.log10(slow_song / widths + np.float32(1e-12))
        level = np.maximum(level - level.max(axis=0), -90.0)
        cliff, edge = _cliff(level)
        relative = level - np.maximum(of_song - of_song.max(axis=0), -90.0)
        in_song = np.where(slow_song.max(axis=0) > 0.0, np.clip(relative, -40.0, 20.0), 0.0)
        found[row + 1 : row + 5] = np.stack([cliff, edge, level, in_song]) / 10
        found[row + 5 : row + 7] = self._heights
        return found


def _cliff(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a mean spectrum (K, N) in dB: its steepest fall at or below each band, from two bands under it to the loudest
    of it and all above; and the level at the edge of that fall, 0 where there is none. A cut falls from where the sound
    still is, a dark sound from where it has long faded."""
    above = np.maximum.accumulate(level[::-1], axis=0)[::-1]
    drop = np.zeros_like(level)
    drop[3:] = np.minimum(level[1:-2], level[:-3] + 6.0) - above[3:]
    drop[:8] = 0.0
    steepest = np.maximum.accumulate(drop, axis=0)
    place = np.arange(len(level))[:, None]
    at = np.maximum.accumulate(np.where((drop >= steepest) & (drop > 0.0), place, 0), axis=0)
    edge = np.take_along_axis(level, np.maximum(at - 2, 0), axis=0)
    return steepest, np.where(at > 0, edge, 0.0)


def _activity(tracks: np.ndarray) -> np.ndarray:
    """1 where the stem sounds, 0 where it is 50 dB under its own level of the last seconds: (N,)."""
    recent, usual = (tracks[TRACKS.index(name)].sum(axis=0) for name in ("stem", "slow_stem"))
    return np.clip(np.log10(recent / (usual + np.float32(1e-7)) + np.float32(1e-10)) + 5.0, 0.0, 1.0)
