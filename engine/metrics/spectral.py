"""Measures of a sound against the true one that look at spectrum, phase, channels and attacks, and some without a
truth.

Sound is (C, T) at the given sample rate. Frames of 2048 samples, hop 512, unless stated. Phase is compared by products
of complex values; nothing is unwrapped.
"""

from __future__ import annotations

import numpy as np

from ..dsp.bands import PerceptualBands
from ..dsp.stft import Stft, StftConfig, whole_stft

RESOLUTIONS = (512, 1024, 2048, 4096)
QUIET_DB = -60.0


def multi_resolution_distance(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Mean over four resolutions of spectral convergence |X^ - X| / |X| (Frobenius norms of magnitudes) plus the mean
    difference of the log-magnitudes (Yamamoto, Song and Kim, Parallel WaveGAN, 2020). 0 for equals; nan where the
    reference is silent."""
    if not reference.any():
        return float("nan")
    found = []
    for n_fft in RESOLUTIONS:
        a, b = (np.abs(_spectrum(audio, n_fft)) for audio in (estimate, reference))
        floor = b.max() * 1e-4
        convergence = np.linalg.norm(a - b) / np.linalg.norm(b)
        logs = np.abs(np.log(np.maximum(a, floor)) - np.log(np.maximum(b, floor))).mean()
        found.append(convergence + logs)
    return float(np.mean(found))


def band_response_error_db(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> float:
    """Root mean square over perceptual bands of the difference of the mean spectra in dB; bands more than 60 dB under
    the reference's loudest are left out. nan where the reference is silent."""
    if not reference.any():
        return float("nan")
    bands = PerceptualBands(sample_rate=sample_rate)
    powers = [
        bands.sum(_power(_spectrum(audio, 2048)).mean(axis=-1, keepdims=True))[:, 0] / bands.widths
        for audio in (estimate, reference)
    ]
    floor = powers[1].max() * 10 ** (QUIET_DB / 10)
    heard = powers[1] > floor
    levels = [10 * np.log10(np.maximum(power[heard], floor)) for power in powers]
    return float(np.sqrt(np.mean((levels[0] - levels[1]) ** 2)))


def phase_agreement(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Cosine of the phase error, weighted by the product of the magnitudes: 1 for equal phases, 0 for random ones."""
    a, b = _spectrum(estimate, 2048), _spectrum(reference, 2048)
    return _cosine(a, b)


def band_phase_agreement(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> np.ndarray:
    """`phase_agreement` of each perceptual band (K,); nan in bands more than 60 dB under the reference's loudest."""
    bands = PerceptualBands(sample_rate=sample_rate)
    a, b = _spectrum(estimate, 2048), _spectrum(reference, 2048)
    power = bands.sum(_power(b)).sum(axis=-1)
    product = a * b.conj()
    same, both = (bands.sum(x).sum(axis=(0, 2)) for x in (product.real, np.abs(product)))
    heard = (power > power.max(initial=0.0) * 10 ** (QUIET_DB / 10)) & (both > 0.0)
    return np.where(heard, same / np.where(heard, both, 1.0), np.nan)


def band_channel_agreement(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> np.ndarray:
    """Cosine of the error of the phase between the first two channels, weighted by their magnitudes, in each perceptual
    band (K,); nan in bands more than 60 dB under the reference's loudest."""
    bands = PerceptualBands(sample_rate=sample_rate)
    (a, b), truth = _spectrum(estimate, 2048)[:2], _spectrum(reference, 2048)
    power = bands.sum(_power(truth)).sum(axis=-1)
    product = (a * b.conj()) * (truth[0] * truth[1].conj()).conj()
    product /= np.sqrt(np.abs(product) + 1e-20)
    same, both = (bands.sum(x).sum(axis=1) for x in (product.real, np.abs(product)))
    heard = (power > power.max(initial=0.0) * 10 ** (QUIET_DB / 10)) & (both > 0.0)
    return np.where(heard, same / np.where(heard, both, 1.0), np.nan)


def worst_band_phase(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> float:
    """The lowest `band_phase_agreement`; nan where the reference is silent."""
    found = band_phase_agreement(estimate, reference, sample_rate)
    return float("nan") if np.isnan(found).all() else float(np.nanmin(found))


def band_coherence(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> float:
    """Whether neighbouring perceptual bands share their phase error, frame by frame, weighted by energy: 1 where bands
    stay together (for equals, and for a sound turned as a whole), 0 where each turns by itself.

    With p the cross-spectrum of a band, sum of X^ X*: sum of Re(p_k p*_k+1) over sum of |p_k p_k+1|. nan for silence.
    """
    bands = PerceptualBands(sample_rate=sample_rate)
    p = bands.sum((_spectrum(estimate, 2048) * _spectrum(reference, 2048).conj()).sum(axis=0))
    return _cosine(p[1:], p[:-1])


def frequency_agreement(estimate: np.ndarray, reference: np.ndarray) -> float:
    """`phase_agreement` of the phase's advance from frame to frame, the instantaneous frequency."""
    a, b = (_steps(_spectrum(audio, 2048), axis=-1) for audio in (estimate, reference))
    return _cosine(a, b)


def delay_agreement(estimate: np.ndarray, reference: np.ndarray) -> float:
    """`phase_agreement` of the phase's step from bin to bin, the group delay."""
    a, b = (_steps(_spectrum(audio, 2048), axis=-2) for audio in (estimate, reference))
    return _cosine(a, b)


def channel_errors(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> tuple[float, float] | None:
    """Mean error of the level difference between the first two channels in dB, and of their phase difference in
    radians, over bands and frames, weighted by the reference's power. None for mono; nan where the reference is
    silent."""
    if len(reference) < 2:
        return None
    bands = PerceptualBands(sample_rate=sample_rate)
    levels, crosses, weight = [], [], np.zeros(())
    for audio in (estimate, reference):
        left, right = _spectrum(audio[:2], 2048)
        powers = [bands.sum(np.square(np.abs(x))) for x in (left, right)]
        weight = powers[0] + powers[1]
        floor = 1e-4 * weight + 1e-12
        levels.append(10 * np.log10((powers[0] + floor) / (powers[1] + floor)))
        crosses.append(bands.sum(left * right.conj()))
    total = weight.sum()
    if total == 0.0:
        return float("nan"), float("nan")
    turn = np.abs(np.angle(crosses[0] * crosses[1].conj()))
    # A phase difference means something where the reference's channels belong together.
    sure = weight * np.abs(crosses[1]) / (0.5 * weight + 1e-12)
    return (
        float((np.abs(levels[0] - levels[1]) * weight).sum() / total),
        float((turn * sure).sum() / (sure.sum() + 1e-12)),
    )


def onset_error(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> float:
    """Distance of the onset strengths, sum |f^ - f| / sum f: f is the rise of the root power, summed over perceptual
    bands, in frames of 512 samples, hop 128 (spectral flux, Dixon, Onset detection revisited, 2006). nan where the
    reference has none."""
    bands = PerceptualBands(bins=256, count=20, sample_rate=sample_rate)
    found = []
    for audio in (estimate, reference):
        spectrum = whole_stft(Stft(StftConfig(512, 128)), np.asarray(audio, np.float32))
        root = np.sqrt(bands.sum(_power(spectrum)))
        found.append(np.maximum(np.diff(root, axis=-1), 0.0).sum(axis=0))
    total = found[1].sum()
    return float(np.abs(found[0] - found[1]).sum() / total) if total > 0.0 else float("nan")


def spectral_flatness_db(audio: np.ndarray) -> float:
    """Geometric over arithmetic mean of the power, mean over sounding frames, in dB: 0 for white noise (Gray and Markel
    1974). Repair that smooths makes it fall. nan for silence."""
    power = _power(_spectrum(audio, 2048))[1:]
    level = power.mean(axis=0)
    heard = level > level.max(initial=0.0) * 10 ** (QUIET_DB / 10)
    if not heard.any():
        return float("nan")
    power, level = power[:, heard], level[heard]
    floor = level * 1e-8
    return float(np.mean(10 * np.log10(np.exp(np.mean(np.log(power + floor), axis=0)) / (level + floor))))


def kurtosis_ratio(after: np.ndarray, before: np.ndarray) -> float:
    """Kurtosis of the power spectrum after over before, in natural logarithm, mean over bins: over 0 where processing
    made musical noise (Uemura et al., Automatic optimization scheme of spectral subtraction, 2008). nan for
    silence."""
    found = []
    for audio in (after, before):
        power = _power(_spectrum(audio, 2048))[1:]
        second, fourth = np.mean(power**2, axis=1), np.mean(power**4, axis=1)
        found.append((second, fourth))
    heard = (found[0][0] > 0.0) & (found[1][0] > found[1][0].max(initial=0.0) * 1e-12)
    if not heard.any():
        return float("nan")
    logs = [np.log(fourth[heard]) - 2 * np.log(second[heard]) for second, fourth in found]
    return float(np.mean(logs[0] - logs[1]))


def beyond_song_db(audio: np.ndarray, song: np.ndarray) -> float:
    """Power of the stem that the song does not have, bin by bin, over the stem's power, in dB: what was invented, or
    turned out of phase. -inf for none, nan for silence."""
    stem, whole = (_power(_spectrum(sound, 2048)) for sound in (audio, song))
    total = stem.sum()
    if total == 0.0:
        return float("nan")
    more = np.maximum(stem - whole, 0.0).sum() / total
    return 10 * float(np.log10(more)) if more > 1e-12 else float("-inf")


def _spectrum(audio: np.ndarray, n_fft: int) -> np.ndarray:
    """(C, F, N), bin 0 (DC and Nyquist) silenced."""
    spectrum = whole_stft(Stft(StftConfig(n_fft, n_fft // 4)), np.asarray(audio, np.float32)).astype(np.complex128)
    spectrum[:, 0] = 0.0
    return spectrum


def _power(spectrum: np.ndarray) -> np.ndarray:
    """Power of all channels together: (C, F, N) to (F, N)."""
    return np.square(np.abs(spectrum)).sum(axis=0)


def _steps(spectrum: np.ndarray, axis: int) -> np.ndarray:
    """Each value times the conjugate of the one before it, with the root of their product as magnitude."""
    after = np.take(spectrum, np.arange(1, spectrum.shape[axis]), axis=axis)
    before = np.take(spectrum, np.arange(spectrum.shape[axis] - 1), axis=axis)
    product = after * before.conj()
    return product / np.sqrt(np.abs(product) + 1e-20)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    both = float(np.sum(np.abs(a) * np.abs(b)))
    return float(np.sum((a * b.conj()).real)) / both if both > 0.0 else float("nan")
