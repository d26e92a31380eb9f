"""The loss terms: functions of latents or spectra that are zero for equal inputs.

Latents are (B, 64, K, N), spectra (B, 2, F, N) complex, mid and side. Weights over bands follow perceptual importance.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..dsp.latent import SLOTS, BandLayout


def parts(latent: Tensor) -> tuple[Tensor, Tensor]:
    """Latent (B, 64, K, N) to the real and the imaginary part of its slots, each (B, 32, K, N). Complex tensors would
    take three times as long on a CPU."""
    half = latent.shape[1] // 2
    return latent[:, :half].float(), latent[:, half:].float()


def _power(z: tuple[Tensor, Tensor]) -> Tensor:
    return z[0] * z[0] + z[1] * z[1]


def _modulus(z: tuple[Tensor, Tensor]) -> Tensor:
    """The modulus, with a gradient of zero at zero."""
    return (_power(z) + 1e-18).sqrt()


def linear_spectrum(latent: Tensor, layout: BandLayout, scale: Tensor, exponent: float = 0.5) -> Tensor:
    """Latent to the packed spectrum of mid and side (B, 2, F, N), with the compression undone: Latent.decode in
    torch."""
    gain = scale * torch.from_numpy(np.sqrt(layout.widths / SLOTS).astype(np.float32)).to(scale)
    batch, _, bands, frames = latent.shape
    slots = latent.float().reshape(batch, 2, 2, SLOTS, bands, frames).transpose(3, 4) / gain[:, None, None]
    runs, band = [], 0
    for count, width in layout.runs:
        run = slots[:, :, :, band : band + count].reshape(batch, 2, 2, count, width, SLOTS // width, frames)
        runs.append(run.mean(dim=5).reshape(batch, 2, 2, count * width, frames))
        band += count
    compressed = torch.cat(runs, dim=3)
    re, im = compressed[:, 0], compressed[:, 1]
    growth = _modulus((re, im)).pow(1.0 / exponent - 1.0)
    return torch.complex(re * growth, im * growth)


def log_error_ratio(estimate: Tensor, before: Tensor, truth: Tensor, presence: Tensor, floor: float = 1e-4) -> Tensor:
    """Mean over the batch of log10((|e|^2 + floor P) / (|e_0|^2 + floor P)): the error relative to that of `before`, in
    units of 10 dB; negative is better.

    Spectra (B, 2, F, N). `presence` (B,) is P, the power that the floor refers to: the stem's plus some of the mix's.
    With it silent and clean examples do not dominate, and changing them still has a cost.
    """
    error, error_before = total_power(estimate - truth), total_power(before - truth)
    return torch.log10((error + floor * presence) / (error_before + floor * presence)).mean()


def pause_excess(estimate: Tensor, truth: Tensor, presence: Tensor, quiet: float = 1e-3, floor: float = 1e-6) -> Tensor:
    """By how much frames in which the truth is quiet are louder in the estimate, in units of 10 dB, over all frames.

    Spectra (B, 2, F, N), presence (B,) as in `log_error_ratio`. quiet, floor: powers of a frame relative to the mean of
    all frames, below which the truth is quiet, and below which nothing is heard.
    """
    usual = presence[:, None] / truth.shape[-1]
    power, wanted = (torch.view_as_real(x).square().sum(dim=(1, 2, 4)) for x in (estimate, truth))
    excess = torch.log10((power + floor * usual) / (wanted + floor * usual)).clamp_min(0.0)
    return (excess * (wanted < quiet * usual)).mean()


def total_power(spectrum: Tensor) -> Tensor:
    """Sum of |X|^2 of each example: (B, ...) complex to (B,)."""
    return torch.view_as_real(spectrum).square().flatten(1).sum(dim=1)


def compressed_l1(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean modulus of the complex error of the slots; weights (K,)."""
    return (_modulus(parts(estimate - truth)) * weights[:, None]).mean()


def log_magnitude_l1(estimate: Tensor, truth: Tensor, weights: Tensor, floor: float = 1e-3) -> Tensor:
    """Weighted mean difference of the slots' log-magnitudes (natural logarithm), with `floor` added to the power."""
    ratio = (_power(parts(estimate)) + floor) / (_power(parts(truth)) + floor)
    return 0.5 * (torch.log(ratio).abs() * weights[:, None]).mean()


def log_spectral_distance(estimate: Tensor, truth: Tensor, floor_db: float = -80.0) -> Tensor:
    """Mean over the batch of the log-spectral distance in dB, as engine/metrics has it: root mean square over frequency
    of the difference of the log powers, mean over channels and the frames in which the truth is heard.

    Spectra (B, 2, F, N) of mid and side. `floor_db` below the loudest bin of the truth is added to both powers.
    """
    powers = [
        torch.view_as_real(torch.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]], 1)).square().sum(-1)
        for x in (estimate, truth)
    ]
    floor = 10 ** (floor_db / 10) * powers[1].amax(dim=(1, 2, 3), keepdim=True) + 1e-12
    logs = [torch.log10(power + floor) for power in powers]
    distance = 10.0 * ((logs[0] - logs[1]).square().mean(dim=2) + 1e-6).sqrt()
    heard = (powers[1] > floor).any(dim=2).to(distance)
    return ((distance * heard).sum(dim=(1, 2)) / heard.sum(dim=(1, 2)).clamp_min(1.0)).mean()


def phase_cosine(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """1 - cos of the phase error, weighted by the product of the magnitudes. Needs no phase unwrapping."""
    a, b = parts(estimate), parts(truth)
    both = (_power(a) * _power(b) + 1e-18).sqrt() * weights[:, None]
    return (both - (a[0] * b[0] + a[1] * b[1]) * weights[:, None]).sum() / (both.sum() + 1e-6)


def instantaneous_frequency(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """As `phase_cosine`, for the wrapped phase advance from frame to frame."""
    return _cosine(_step(parts(estimate), dim=3), _step(parts(truth), dim=3), weights[:, None])


def group_delay(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """As `phase_cosine`, for the wrapped phase step from slot to slot."""
    return _cosine(_step(parts(estimate), dim=1), _step(parts(truth), dim=1), weights[:, None])


def _step(z: tuple[Tensor, Tensor], dim: int) -> tuple[Tensor, Tensor]:
    """Each value times the conjugate of the one before it."""
    size = z[0].shape[dim]
    (re, im), (re_before, im_before) = ([x.narrow(dim, start, size - 1) for x in z] for start in (1, 0))
    return re * re_before + im * im_before, im * re_before - re * im_before


def _cosine(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
    both = (_power(a) * _power(b) + 1e-24).sqrt() + 1e-12
    root = both.sqrt()
    return ((root - (a[0] * b[0] + a[1] * b[1]) / root) * weights).sum() / ((root * weights).sum() + 1e-6)


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
    """Packed spectrum (B, C, F, N) to waveform (B, C, N * hop - (n_fft - hop)): the samples that all frames cover."""
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
