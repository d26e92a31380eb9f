"""Measures of spectrum, phase, channels and attacks against the true stem, and some that need no true stem.

Audio is (C, T) at the given sample rate. Frames of 2048 samples, hop 512, unless stated otherwise. Phases are compared
by products of complex values; nothing is unwrapped.
"""

from __future__ import annotations

import numpy as np

from ..dsp.bands import PerceptualBands
from ..dsp.stft import Stft, StftConfig, whole_stft

RESOLUTIONS = (512, 1024, 2048, 4096)
QUIET_DB = -60.0


def multi_resolution_distance(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Mean over four resolutions of spectral convergence |X^ - X| / |X| (Frobenius norms of magnitudes) plus the mean
    difference of the log-magnitudes (Yamamoto, Song and Kim, Parallel WaveGAN, 2020). 0 for equal signals; nan if the
    reference is silent."""
    if not reference.any():
        return float("nan")
    distances = []
    for n_fft in RESOLUTIONS:
        a, b = (np.abs(_spectrum(audio, n_fft)) for audio in (estimate, reference))
        floor = b.max() * 1e-4
        convergence = np.linalg.norm(a - b) / np.linalg.norm(b)
        logs = np.abs(np.log(np.maximum(a, floor)) - np.log(np.maximum(b, floor))).mean()
        distances.append(convergence + logs)
    return float(np.mean(distances))


def band_response_error_db(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> float:
    """Root mean square over perceptual bands of the difference of the mean spectra in dB, without bands more than 60 dB
    below the reference's loudest. nan if the reference is silent."""
    if not reference.any():
        return float("nan")
    bands = PerceptualBands(sample_rate=sample_rate)
    powers = [
        bands.sum(_power(_spectrum(audio, 2048)).mean(axis=-1, keepdims=True))[:, 0] / bands.widths
        for audio in (estimate, reference)
    ]
    floor = powers[1].max() * 10 ** (QUIET_DB / 10)
    audible = powers[1] > floor
    levels = [10 * np.log10(np.maximum(power[audible], floor)) for power in powers]
    return float(np.sqrt(np.mean((levels[0] - levels[1]) ** 2)))


def phase_agreement(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Cosine of the phase error, weighted by the product of the magnitudes: 1 for equal phases, 0 for random ones."""
    a, b = _spectrum(estimate, 2048), _spectrum(reference, 2048)
    return _cosine(a, b)


def band_phase_agreement(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> np.ndarray:
    """`phase_agreement` of each perceptual band (K,); nan in bands more than 60 dB below the reference's loudest."""
    bands = PerceptualBands(sample_rate=sample_rate)
    a, b = _spectrum(estimate, 2048), _spectrum(reference, 2048)
    power = bands.sum(_power(b)).sum(axis=-1)
    product = a * b.conj()
    aligned, total = (bands.sum(x).sum(axis=(0, 2)) for x in (product.real, np.abs(product)))
    audible = (power > power.max(initial=0.0) * 10 ** (QUIET_DB / 10)) & (total > 0.0)
    return np.where(audible, aligned / np.where(audible, total, 1.0), np.nan)


def band_channel_agreement(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> np.ndarray:
    """Cosine of the error in the phase difference between the first two channels, weighted by their magnitudes, in each
    perceptual band (K,); nan in bands more than 60 dB below the reference's loudest."""
    bands = PerceptualBands(sample_rate=sample_rate)
    (a, b), truth = _spectrum(estimate, 2048)[:2], _spectrum(reference, 2048)
    power = bands.sum(_power(truth)).sum(axis=-1)
    product = (a * b.conj()) * (truth[0] * truth[1].conj()).conj()
    product /= np.sqrt(np.abs(product) + 1e-20)
    aligned, total = (bands.sum(x).sum(axis=1) for x in (product.real, np.abs(product)))
    audible = (power > power.max(initial=0.0) * 10 ** (QUIET_DB / 10)) & (total > 0.0)
    return np.where(audible, aligned / np.where(audible, total, 1.0), np.nan)


def worst_band_phase(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> float:
    """The lowest `band_phase_agreement`; nan if the reference is silent."""
    agreements = band_phase_agreement(estimate, reference, sample_rate)
    return float("nan") if np.isnan(agreements).all() else float(np.nanmin(agreements))


def band_coherence(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> float:
    """Whether neighbouring perceptual bands have the same phase error, frame by frame, weighted by energy: 1 if they do
    (also if all phases are rotated by the same angle), 0 if the error differs from band to band.

    With p the cross-spectrum of a band, sum of X^ X*: sum of Re(p_k p*_k+1) over sum of |p_k p_k+1|. nan for silence.
    """
    bands = PerceptualBands(sample_rate=sample_rate)
    p = bands.sum((_spectrum(estimate, 2048) * _spectrum(reference, 2048).conj()).sum(axis=0))
    return _cosine(p[1:], p[:-1])


def frequency_agreement(estimate: np.ndarray, reference: np.ndarray) -> float:
    """`phase_agreement` of the phase steps from frame to frame, the instantaneous frequency."""
    a, b = (_steps(_spectrum(audio, 2048), axis=-1) for audio in (estimate, reference))
    return _cosine(a, b)


def delay_agreement(estimate: np.ndarray, reference: np.ndarray) -> float:
    """`phase_agreement` of the phase steps from bin to bin, the group delay."""
    a, b = (_steps(_spectrum(audio, 2048), axis=-2) for audio in (estimate, reference))
    return _cosine(a, b)


def channel_errors(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> tuple[float, float] | None:
    """Mean error of the level difference (dB) and phase difference (radians) between the first two channels, over bands
    and frames, weighted by the reference's power. None for mono; nan if the reference is silent."""
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
    phase_error = np.abs(np.angle(crosses[0] * crosses[1].conj()))
    # A phase difference is only meaningful where the channels of the reference are coherent.
    phase_weight = weight * np.abs(crosses[1]) / (0.5 * weight + 1e-12)
    return (
        float((np.abs(levels[0] - levels[1]) * weight).sum() / total),
        float((phase_error * phase_weight).sum() / (phase_weight.sum() + 1e-12)),
    )


def onset_error(estimate: np.ndarray, reference: np.ndarray, sample_rate: int = 44100) -> float:
    """Distance of the onset strengths, sum |f^ - f| / sum f: f is the rise of the root power, summed over perceptual
    bands, in frames of 512 samples, hop 128 (spectral flux, Dixon, Onset detection revisited, 2006). nan if the
    reference has no onsets."""
    bands = PerceptualBands(bins=256, count=20, sample_rate=sample_rate)
    strengths = []
    for audio in (estimate, reference):
        spectrum = whole_stft(Stft(StftConfig(512, 128)), np.asarray(audio, np.float32))
        root = np.sqrt(bands.sum(_power(spectrum)))
        strengths.append(np.maximum(np.diff(root, axis=-1), 0.0).sum(axis=0))
    total = strengths[1].sum()
    return float(np.abs(strengths[0] - strengths[1]).sum() / total) if total > 0.0 else float("nan")


def spectral_flatness_db(audio: np.ndarray) -> float:
    """Geometric over arithmetic mean of the power, averaged over non-silent frames, in dB: 0 for a flat spectrum (Gray
    and Markel 1974). It falls if a repair smooths the spectrum. nan for silence."""
    power = _power(_spectrum(audio, 2048))[1:]
    level = power.mean(axis=0)
    sounding = level > level.max(initial=0.0) * 10 ** (QUIET_DB / 10)
    if not sounding.any():
        return float("nan")
    power, level = power[:, sounding], level[sounding]
    floor = level * 1e-8
    return float(np.mean(10 * np.log10(np.exp(np.mean(np.log(power + floor), axis=0)) / (level + floor))))


def kurtosis_ratio(after: np.ndarray, before: np.ndarray) -> float:
    """Natural logarithm of the ratio of kurtosis of the power spectrum, after over before, averaged over bins. Above 0,
    the processing added musical noise (Uemura et al., Automatic optimization scheme of spectral subtraction, 2008).
    nan for silence."""
    moments = []
    for audio in (after, before):
        power = _power(_spectrum(audio, 2048))[1:]
        second, fourth = np.mean(power**2, axis=1), np.mean(power**4, axis=1)
        moments.append((second, fourth))
    audible = (moments[0][0] > 0.0) & (moments[1][0] > moments[1][0].max(initial=0.0) * 1e-12)
    if not audible.any():
        return float("nan")
    logs = [np.log(fourth[audible]) - 2 * np.log(second[audible]) for second, fourth in moments]
    return float(np.mean(logs[0] - logs[1]))


def energy_not_in_mix_db(stem: np.ndarray, mix: np.ndarray) -> float:
    """Power of the stem that exceeds the mix, bin by bin, over the stem's power, in dB: what was generated, or moved
    out of phase. -inf if there is none, nan if the stem is silent."""
    stem_power, mix_power = (_power(_spectrum(audio, 2048)) for audio in (stem, mix))
    total = stem_power.sum()
    if total == 0.0:
        return float("nan")
    excess = np.maximum(stem_power - mix_power, 0.0).sum() / total
    return 10 * float(np.log10(excess)) if excess > 1e-12 else float("-inf")


def _spectrum(audio: np.ndarray, n_fft: int) -> np.ndarray:
    """Spectrum (C, F, N) with bin 0 (DC and Nyquist) set to zero."""
    spectrum = whole_stft(Stft(StftConfig(n_fft, n_fft // 4)), np.asarray(audio, np.float32)).astype(np.complex128)
    spectrum[:, 0] = 0.0
    return spectrum


def _power(spectrum: np.ndarray) -> np.ndarray:
    """Power summed over channels: (C, F, N) to (F, N)."""
    return np.square(np.abs(spectrum)).sum(axis=0)


def _steps(spectrum: np.ndarray, axis: int) -> np.ndarray:
    """Each value times the conjugate of the previous one, with the geometric mean of both magnitudes."""
    after = np.take(spectrum, np.arange(1, spectrum.shape[axis]), axis=axis)
    before = np.take(spectrum, np.arange(spectrum.shape[axis] - 1), axis=axis)
    product = after * before.conj()
    return product / np.sqrt(np.abs(product) + 1e-20)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    total = float(np.sum(np.abs(a) * np.abs(b)))
    return float(np.sum((a * b.conj()).real)) / total if total > 0.0 else float("nan")
