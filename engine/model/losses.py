"""What training asks for. Each loss is a function of latents or spectra and is zero for equal inputs.

Latents are (B, 64, K, N), spectra (B, 2, F, N) complex, mid and side. Weights over bands follow perceptual importance.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..latent import SLOTS, BandLayout


def band_importance(layout: BandLayout, sample_rate: int = 44100) -> np.ndarray:
    """Weight of each band (K,), mean 1: half by its width in equivalent rectangular bandwidths (Glasberg and Moore
    1990), half evenly, since the highs, few filters wide, are what separators lose altogether."""
    starts = np.concatenate([[0], np.cumsum(layout.widths)]) * (sample_rate / 2 / layout.bins)
    erb = 21.4 * np.log10(1.0 + 0.00437 * starts)
    weights = np.diff(erb)
    return (0.5 + 0.5 * weights / weights.mean()).astype(np.float32)


def as_complex(latent: Tensor) -> Tensor:
    """Latent (B, 64, K, N) to complex slots (B, 32, K, N)."""
    half = latent.shape[1] // 2
    return torch.complex(latent[:, :half].float(), latent[:, half:].float())


def linear_spectrum(latent: Tensor, layout: BandLayout, scale: Tensor, exponent: float = 0.5) -> Tensor:
    """Latent to the packed spectrum of mid and side (B, 2, F, N), compression undone; the torch twin of
    Latent.decode."""
    gain = scale * torch.from_numpy(np.sqrt(layout.widths / SLOTS).astype(np.float32)).to(scale)
    slots = as_complex(latent)
    batch, _, bands, frames = slots.shape
    slots = slots.reshape(batch, 2, SLOTS, bands, frames).transpose(2, 3) / gain[:, None, None]
    parts, band = [], 0
    for count, width in layout.runs:
        run = slots[:, :, band : band + count].reshape(batch, 2, count, width, SLOTS // width, frames)
        parts.append(run.mean(dim=4).reshape(batch, 2, count * width, frames))
        band += count
    compressed = torch.cat(parts, dim=2)
    return compressed * (compressed.abs() + 1e-9).pow(1.0 / exponent - 1.0)


def log_error_ratio(estimate: Tensor, before: Tensor, truth: Tensor, presence: Tensor, floor: float = 1e-4) -> Tensor:
    """Mean over the batch of log10((|e|^2 + floor P) / (|e_0|^2 + floor P)): tenths of the dB of SDR gained, negative
    is good.

    Spectra (B, 2, F, N); `presence` (B,) is the power that a floor of -40 dB refers to (stem plus some of the
    mixture), so silent and clean examples neither dominate nor can be changed without cost.
    """
    error = (estimate - truth).abs().square().sum(dim=(1, 2, 3))
    error_before = (before - truth).abs().square().sum(dim=(1, 2, 3))
    return torch.log10((error + floor * presence) / (error_before + floor * presence)).mean()


def compressed_l1(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean modulus of the complex error of the slots; weights (K,)."""
    return ((as_complex(estimate) - as_complex(truth)).abs() * weights[:, None]).mean()


def log_magnitude_l1(estimate: Tensor, truth: Tensor, weights: Tensor, floor: float = 1e-3) -> Tensor:
    """Weighted mean difference of the log-magnitudes of the slots, natural logarithm, floored at `floor` (power)."""
    a = torch.log(as_complex(estimate).abs().square() + floor)
    b = torch.log(as_complex(truth).abs().square() + floor)
    return 0.5 * ((a - b).abs() * weights[:, None]).mean()


def phase_cosine(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """1 - cos of the phase error, weighted by the product of the magnitudes: no angle is ever unwrapped."""
    a, b = as_complex(estimate), as_complex(truth)
    both = a.abs() * b.abs() * weights[:, None]
    return (both - (a * b.conj()).real * weights[:, None]).sum() / (both.sum() + 1e-6)


def instantaneous_frequency(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """`phase_cosine` of the wrapped phase advance from frame to frame."""
    return _cosine(_step(as_complex(estimate), dim=3), _step(as_complex(truth), dim=3), weights[:, None])


def group_delay(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """`phase_cosine` of the wrapped phase step from slot to slot."""
    a, b = _step(as_complex(estimate), dim=1), _step(as_complex(truth), dim=1)
    return _cosine(a, b, weights[:, None])


def _step(z: Tensor, dim: int) -> Tensor:
    size = z.shape[dim]
    return z.narrow(dim, 1, size - 1) * z.narrow(dim, 0, size - 1).conj()


def _cosine(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    both = (a.abs() * b.abs() + 1e-12).sqrt() * weights
    return (both - (a * b.conj()).real / (a.abs() * b.abs() + 1e-12).sqrt() * weights).sum() / (both.sum() + 1e-6)


def multi_resolution_stft(estimate: Tensor, truth: Tensor, sizes: tuple[int, ...] = (512, 1024, 4096)) -> Tensor:
    """Mean over resolutions of |X^ - X| / |X| (Frobenius norms) of the complex STFTs; waveforms (B, C, T) (cf.
    Yamamoto 2020)."""
    a, b = estimate.flatten(0, 1), truth.flatten(0, 1)
    total = torch.zeros((), device=a.device)
    for size in sizes:
        window = torch.hann_window(size, device=a.device)
        spectra = [torch.stft(x, size, size // 4, window=window, return_complex=True) for x in (a, b)]
        total = total + torch.linalg.vector_norm(spectra[0] - spectra[1]) / (
            torch.linalg.vector_norm(spectra[1]) + 1e-4
        )
    return total / len(sizes)


def waveform(spectrum: Tensor, n_fft: int, hop: int) -> Tensor:
    """Packed spectrum (B, C, F, N) to waveform (B, C, N * hop - (n_fft - hop)): the samples that whole frames cover."""
    batch, channels, _, frames = spectrum.shape
    edges = [spectrum[:, :, :1].real + 0j, spectrum[:, :, 1:], spectrum[:, :, :1].imag + 0j]
    full = torch.cat(edges, dim=2)
    window = torch.hann_window(n_fft, device=spectrum.device)
    blocks = torch.fft.irfft(full.flatten(0, 1), n_fft, dim=1) * window[:, None]
    length = (frames - 1) * hop + n_fft
    audio = F.fold(blocks, (1, length), (1, n_fft), stride=(1, hop))[:, 0, 0]
    audio = audio / (n_fft / hop * 0.375)  # the sum of squared periodic Hann windows
    edge = n_fft - hop
    return audio[:, edge : audio.shape[-1] - edge].reshape(batch, channels, -1)
