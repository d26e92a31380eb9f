"""What a codec or an equaliser did to a mix, measured where the stem is alone or loud.

Mix minus stem is taken for the rest of the song. If the mix was coded or processed and the stem was not, it also holds
the difference between the two worlds, which would be repaired into the stem. A tone control is measured as one gain for
each band and undone; a mix that a lossy codec has added noise to is recognised. Above the frequency at which a
codec or a resampler has cut the mix off, the stem stands in for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dsp.fifo import Fifo
from ..dsp.stft import Stft, StftConfig
from .statistics import AUDIBLE, WINDOW_S, weighted_quantiles

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
#: The mix is cut off from where in all parts of the spectrum up to the end it has less than MIN_KEPT of the stem's
#: power, if more than noise is there: that share of the stem's power.
PART_HZ, MIN_KEPT, FADE_HZ, NOISE = 300.0, 0.25, 300.0, 3e-7
#: Only a lossy codec has a ceiling below both, where the stem goes on.
LOSSLESS_HZ, LOSSLESS_SHARE = 19000.0, 0.85  # of half the sample rate
MIN_LOST = 1e-5  # of the stem's power, above the ceiling
MAX_LEVEL_DB = 1.5  # mix against stem in places that count: more is bleed alone, or something that the stem lost


@dataclass(frozen=True)
class MixCondition:
    """edges_hz (B + 1,). tone (B,): gain of the stem's sound in the mix. is_coded: whether the mix went through a lossy
    codec, and the stem did not. ceiling_hz: the mix has nothing above."""

    edges_hz: np.ndarray
    tone: np.ndarray
    is_coded: bool = False
    ceiling_hz: float = np.inf

    def apply(self, stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
        """Spectra (..., F, N) of stem and mix without their Nyquist bin, to those of the mix without the tone, which is
        interpolated between the middles of the bands, and with the stem above the ceiling."""
        hz = np.arange(mix.shape[-2]) * (sample_rate / 2 / mix.shape[-2])
        middles = np.sqrt(self.edges_hz[1:] * self.edges_hz[:-1])
        tone = np.exp(np.interp(np.log(hz + 1.0), np.log(middles), np.log(self.tone))).astype(np.float32)
        kept = np.clip((self.ceiling_hz - hz) / FADE_HZ, 0.0, 1.0).astype(np.float32)[:, None]
        found: np.ndarray = kept * (mix / tone[:, None]) + (1 - kept) * stem
        return found


class ConditionFilter:
    """Blocks of stem and mix (C, n) to blocks of the mix as `MixCondition.apply` leaves them, `delay_samples` late."""

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
        hop = self._stft.config.hop
        if not (count := len(self._waiting) // hop * hop):
            return np.zeros((len(mix), 0), np.float32)
        spectra, self._analysis = self._stft.analysis(self._waiting.pop(count), self._analysis)
        stems, mixes = np.split(spectra, 2)
        mended = self._condition.apply(stems, mixes, self._rate)
        out, self._synthesis = self._stft.synthesis(mended, self._synthesis)
        return out


def measure_condition(
    cross: np.ndarray, stem: np.ndarray, mix: np.ndarray, edges_hz: np.ndarray, spectra: np.ndarray, sample_rate: float
) -> MixCondition | None:
    """The condition of a mix from sums over patches (P, C, B), and from the power of stem and mix at each frequency
    (2, F), as in `Statistics`; None if nothing stands out."""
    tone = _tone(cross, stem, mix, edges_hz)
    is_coded = _is_coded(cross / tone, stem, mix / tone**2, edges_hz)
    ceiling_hz, lost = _ceiling(spectra, sample_rate)
    is_coded |= ceiling_hz < min(LOSSLESS_HZ, LOSSLESS_SHARE * sample_rate / 2) and lost > MIN_LOST
    if is_coded or (tone != 1.0).any() or ceiling_hz < np.inf:
        return MixCondition(edges_hz, tone, is_coded, ceiling_hz)
    return None


def _ceiling(spectra: np.ndarray, sample_rate: float) -> tuple[float, float]:
    """The ceiling in Hz, and the share of the stem's power above it."""
    width = max(1, round(PART_HZ / (sample_rate / 2) * (spectra.shape[1] - 1)))
    count = spectra.shape[1] // width
    parts = spectra[:, : count * width].reshape(2, count, width).sum(axis=-1)
    kept = np.flatnonzero((parts[1] >= MIN_KEPT * parts[0]) & (parts[1] > 0.0))
    above = kept[-1] + 1 if len(kept) else count
    lost = float(parts[0, above:].sum() / max(float(parts[0].sum()), 1e-30))
    ceiling_hz = float(above * width / (spectra.shape[1] - 1) * sample_rate / 2)
    return (ceiling_hz, lost) if lost > NOISE else (np.inf, 0.0)


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
        tone[b] = weighted_quantiles(gains, s[alone], (0.5,))[0]
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
