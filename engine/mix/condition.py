"""What a codec or an equaliser did to a mix, measured where the stem is alone or loud.

Mix minus stem is taken for the rest of the song. If the mix was coded or processed and the stem was not, it also holds
the difference between the two worlds, which would be repaired into the stem. A tone control is measured as one gain for
each band and undone; a mix that a lossy codec has added noise to is recognised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dsp.fifo import Fifo
from ..dsp.stft import Stft, StftConfig
from .statistics import AUDIBLE, WINDOW_S

#: A place counts for the tone control if the mix is the stem times one gain there, but for this part of its power.
ALONE = 0.03
MIN_ALONE_SHARE = 0.03  # of a band's energy
MAX_TONE_DB, MIN_TONE_DB = 6.0, 1.0
MIN_KNOWN, MIN_KNOWN_SHARE = 4, 0.4  # bands, and their share of those that are heard; between them it is interpolated
#: Above this, a mix that is louder than the stem is a stem that lost its highs, not a tone control.
HIGHS_HZ, MAX_HIGHS_DB = 3000.0, 0.75
QUANTILE = 0.1
#: The noise of a codec is below LOW_DB in the best of the lower bands and above HIGH_DB in the higher ones: a stem that
#: is damaged itself is so everywhere, and between a clean mix and a clean stem there is none. A codec also takes energy
#: away, so that the stem is less than itself in the mix, which the rest of a song cannot do.
LOW_HZ, LOW_DB, HIGH_HZ, HIGHEST_HZ, HIGH_DB, MAX_PROJECTION = 1000.0, -18.0, 5000.0, 16000.0, -22.0, 0.99
#: With such a difference between low and high bands, the energy need not be looked at.
VERY_LOW_DB, VERY_HIGH_DB = -33.0, -16.0
MAX_LEVEL_DB = 1.5  # mix against stem in places that count: more is bleed alone, or something that the stem lost


@dataclass(frozen=True)
class MixCondition:
    """edges_hz (B + 1,). tone (B,): gain of the stem's sound in the mix. is_coded: whether the mix went through a lossy
    codec, and the stem did not."""

    edges_hz: np.ndarray
    tone: np.ndarray
    is_coded: bool = False

    def apply(self, mix: np.ndarray, sample_rate: int) -> np.ndarray:
        """Spectra (..., F, N) of the mix without their Nyquist bin, to those without the tone, which is interpolated
        between the middles of the bands."""
        hz = np.arange(mix.shape[-2]) * (sample_rate / 2 / mix.shape[-2])
        middles = np.sqrt(self.edges_hz[1:] * self.edges_hz[:-1])
        tone = np.exp(np.interp(np.log(hz + 1.0), np.log(middles), np.log(self.tone))).astype(np.float32)
        found: np.ndarray = mix / tone[:, None]
        return found


class ConditionFilter:
    """Blocks of a mix (C, n) to blocks as `MixCondition.apply` leaves them, `delay_samples` late."""

    def __init__(self, condition: MixCondition, sample_rate: int, channels: int) -> None:
        size = 1 << round(np.log2(WINDOW_S * sample_rate))
        self._condition, self._rate = condition, sample_rate
        self._stft = Stft(StftConfig(size, size // 4))
        self._analysis = self._stft.start_analysis(channels)
        self._synthesis = self._stft.start_synthesis(channels)
        self._waiting = Fifo()
        self.delay_samples = self._stft.config.delay_samples

    def process(self, mix: np.ndarray) -> np.ndarray:
        """The samples (C, m) that are ready."""
        self._waiting.push(mix)
        hop = self._stft.config.hop
        if not (count := len(self._waiting) // hop * hop):
            return np.zeros((len(mix), 0), np.float32)
        spectra, self._analysis = self._stft.analysis(self._waiting.pop(count), self._analysis)
        out, self._synthesis = self._stft.synthesis(self._condition.apply(spectra, self._rate), self._synthesis)
        return out


def measure_condition(
    cross: np.ndarray, stem: np.ndarray, mix: np.ndarray, edges_hz: np.ndarray
) -> MixCondition | None:
    """The condition of a mix from sums over patches (P, C, B); None if nothing stands out."""
    tone = _tone(cross, stem, mix, edges_hz)
    is_coded = _is_coded(cross / tone, stem, mix / tone**2, edges_hz)
    return MixCondition(edges_hz, tone, is_coded) if is_coded or (tone != 1.0).any() else None


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
    if known[heard].sum() < max(MIN_KNOWN, MIN_KNOWN_SHARE * heard.sum()):
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


def _is_coded(cross: np.ndarray, stem: np.ndarray, mix: np.ndarray, edges_hz: np.ndarray) -> bool:
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
    if np.isnan(noise_db[low]).all() or np.isnan(noise_db[high]).all():
        return False
    loses = np.nanmedian(projection[high]) < MAX_PROJECTION * np.nanmedian(projection[low])
    lowest, highest = np.nanmin(noise_db[low]), np.nanmedian(noise_db[high])
    clear = bool(lowest < VERY_LOW_DB and highest > VERY_HIGH_DB)
    return clear or bool(loses and lowest < LOW_DB and highest > HIGH_DB)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])
