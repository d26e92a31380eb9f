"""What a codec, a limiter or an equaliser did to a mix, measured where the stem is alone or loud.

Mix minus stem is taken for the rest of the song. If the mix was coded or processed and the stem was not, it also holds
the difference between the two worlds, which would be repaired into the stem. A tone control is measured as one gain for
each band and undone; what remains as noise is measured relative to the mix, and what is below it is not taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dsp.fifo import Fifo
from ..dsp.stft import Stft, StftConfig

WINDOW_S = 0.0464
#: A place counts for the tone control if the mix is the stem times one gain there, but for this part of its power.
ALONE = 0.03
MIN_ALONE_SHARE = 0.03  # of a band's energy
MAX_TONE_DB, MIN_TONE_DB = 6.0, 1.0
#: Above this, a mix that is louder than the stem is a stem that lost its highs, not a tone control.
HIGHS_HZ, MAX_HIGHS_DB = 3000.0, 0.75
QUANTILE, AUDIBLE = 0.1, 1e-3
#: The noise of a codec is below LOW_DB in the best of the lower bands and above HIGH_DB in the higher ones: a stem that
#: is damaged itself is so everywhere, and between a clean mix and a clean stem there is none. A codec also takes energy
#: away, so that the stem is less than itself in the mix, which the rest of a song cannot do.
LOW_HZ, LOW_DB, HIGH_HZ, HIGHEST_HZ, HIGH_DB, MAX_PROJECTION = 1000.0, -18.0, 5000.0, 16000.0, -22.0, 0.99
#: With such a difference between low and high bands, the energy need not be looked at.
VERY_LOW_DB, VERY_HIGH_DB = -33.0, -16.0
MAX_LEVEL_DB = 1.5  # mix against stem in places that count: more is bleed alone, or something that the stem lost
MARGIN = 12.0  # times the noise that was measured


@dataclass(frozen=True)
class MixCondition:
    """edges_hz (B + 1,). tone (B,): gain of the stem's sound in the mix. noise (B,): power of the noise relative to the
    mix's, 0 for none. is_coded: whether it is a lossy codec's, which the mix went through and the stem did not."""

    edges_hz: np.ndarray
    tone: np.ndarray
    noise: np.ndarray
    is_coded: bool = False

    def apply(self, stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
        """The mix without what is below the noise: spectra (..., F, N) without their Nyquist bin, to the same."""
        tone, noise = self._bins(stem.shape[-2], sample_rate)
        flat = mix / tone[:, None] if (tone != 1.0).any() else mix
        if not noise.any():
            return flat
        rest = flat - stem
        floor = MARGIN * noise[:, None] * _smooth(np.square(np.abs(flat)))
        power = _smooth(np.square(np.abs(rest))) + np.float32(1e-20)
        kept: np.ndarray = stem + np.sqrt(np.clip(1.0 - floor / power, 0.0, 1.0)).astype(np.float32) * rest
        return kept

    def _bins(self, bins: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Tone, interpolated between the middles of the bands, and noise of each bin."""
        hz = np.arange(bins) * (sample_rate / 2 / bins)
        middles = np.sqrt(self.edges_hz[1:] * self.edges_hz[:-1])
        tone = np.exp(np.interp(np.log(hz + 1.0), np.log(middles), np.log(self.tone)))
        band = np.clip(np.searchsorted(self.edges_hz, hz, side="right") - 1, 0, len(self.noise) - 1)
        return tone.astype(np.float32), self.noise[band].astype(np.float32)


class ConditionFilter:
    """Blocks of stem and mix (C, n) to blocks of the mix as `MixCondition.apply` leaves it, `delay_samples` late."""

    def __init__(self, condition: MixCondition, sample_rate: int, channels: int) -> None:
        size = 1 << round(np.log2(WINDOW_S * sample_rate))
        self._condition, self._rate = condition, sample_rate
        self._stft = Stft(StftConfig(size, size // 4))
        self._analysis = self._stft.start_analysis(2 * channels)
        self._synthesis = self._stft.start_synthesis(channels)
        self._waiting = Fifo()
        self.delay_samples = self._stft.config.delay_samples

    def process(self, stem: np.ndarray, mix: np.ndarray) -> np.ndarray:
        """The samples (C, m) that are ready."""
        self._waiting.push(np.concatenate([stem, mix]))
        channels, hop = len(stem), self._stft.config.hop
        if not (count := len(self._waiting) // hop * hop):
            return np.zeros((channels, 0), np.float32)
        spectra, self._analysis = self._stft.analysis(self._waiting.pop(count), self._analysis)
        kept = self._condition.apply(spectra[:channels], spectra[channels:], self._rate)
        out, self._synthesis = self._stft.synthesis(kept, self._synthesis)
        return out


def _smooth(power: np.ndarray) -> np.ndarray:
    """Mean over seven neighbouring bins."""
    padded = np.pad(power, [(0, 0)] * (power.ndim - 2) + [(3, 3), (0, 0)], mode="edge")
    found: np.ndarray = np.lib.stride_tricks.sliding_window_view(padded, 7, axis=-2).mean(axis=-1)
    return found


def measure_condition(
    cross: np.ndarray, stem: np.ndarray, mix: np.ndarray, edges_hz: np.ndarray, lanes: Callable[..., Any]
) -> tuple[MixCondition | None, Any]:
    """The condition of a mix from sums over patches (P, C, B), None if nothing stands out; and the sums with the tone
    undone."""
    tone = _tone(cross, stem, mix, edges_hz)
    cross, mix = cross / tone, mix / tone**2
    noise = _noise(cross, stem, mix, edges_hz)
    found = MixCondition(edges_hz, tone, noise, bool(noise.any())) if (tone != 1.0).any() or noise.any() else None
    return found, lanes(cross, stem, mix)


def _tone(cross: np.ndarray, stem: np.ndarray, mix: np.ndarray, edges_hz: np.ndarray) -> np.ndarray:
    bands = stem.shape[-1]
    tone = np.ones(bands)
    energy = stem.sum(axis=(0, 1), dtype=np.float64)
    known = np.zeros(bands, bool)
    for b in range(bands):
        c, s, m = (x[..., b].ravel() for x in (cross, stem, mix))
        audible = s > AUDIBLE * s.max(initial=0.0)
        alone = audible & (c.real > 0) & (np.abs(c) ** 2 > (1.0 - ALONE) * s * m)
        if energy[b] <= 0 or s[alone].sum() < MIN_ALONE_SHARE * energy[b] or alone.sum() < 5:
            continue
        gains = c[alone].real / s[alone]
        tone[b] = _weighted_median(gains, s[alone])
        # A gain that differs from place to place is a mask's or a compressor's.
        spread = np.quantile(np.abs(20 * np.log10(gains / tone[b])), 0.6)
        known[b] = spread < 0.5
    heard = energy > 1e-5 * energy.max(initial=0.0)
    if known[heard].sum() < max(3, 0.6 * heard.sum()):
        return np.ones(bands)
    db = np.where(known, 20 * np.log10(np.clip(tone, 1e-3, 1e3)), np.nan)
    highs = edges_hz[:-1] >= HIGHS_HZ
    if np.nanmax(np.abs(db)) > MAX_TONE_DB or np.nanmax(np.abs(db)) < MIN_TONE_DB:
        return np.ones(bands)
    if np.nanmax(np.where(highs, db, -np.inf)) > MAX_HIGHS_DB:
        db = np.where(highs, np.minimum(db, 0.0), db)
        if np.nanmax(np.abs(db)) < MIN_TONE_DB:
            return np.ones(bands)
    places = np.arange(bands)
    filled = np.interp(places, places[known], db[known])
    return 10 ** (filled / 20)


def _noise(cross: np.ndarray, stem: np.ndarray, mix: np.ndarray, edges_hz: np.ndarray) -> np.ndarray:
    bands = stem.shape[-1]
    noise_db, projection = np.full(bands, np.nan), np.full(bands, np.nan)
    for b in range(bands):
        c, s, m = (x[..., b].ravel() for x in (cross, stem, mix))
        alike = np.abs(10 * np.log10((m + 1e-30) / (s + 1e-30))) < MAX_LEVEL_DB
        audible = (s > AUDIBLE * s.max(initial=0.0)) & alike
        if audible.sum() < 20:
            continue
        c, s, m = c[audible], s[audible], m[audible]
        residue = np.clip(1.0 - np.abs(c) ** 2 / (s * m + 1e-30), 1e-9, 1.0)
        limit = np.quantile(residue, QUANTILE)
        best = residue <= limit
        noise_db[b], projection[b] = 10 * np.log10(limit), c[best].real.sum() / s[best].sum()
    low, high = edges_hz[:-1] < LOW_HZ, (edges_hz[:-1] >= HIGH_HZ) & (edges_hz[:-1] < HIGHEST_HZ)
    none = np.zeros(bands)
    if np.isnan(noise_db[low]).all() or np.isnan(noise_db[high]).all():
        return none
    loses = np.nanmedian(projection[high]) < MAX_PROJECTION * np.nanmedian(projection[low])
    lowest, highest = np.nanmin(noise_db[low]), np.nanmedian(noise_db[high])
    if not (loses and lowest < LOW_DB and highest > HIGH_DB) and not (lowest < VERY_LOW_DB and highest > VERY_HIGH_DB):
        return none
    places = np.arange(bands)
    known = ~np.isnan(noise_db)
    return 10 ** (np.interp(places, places[known], noise_db[known]) / 10)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])
