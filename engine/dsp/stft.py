"""Short-time Fourier transform as a stream: hops of samples in, frames out, and back.

Frame n covers the n_fft samples that end with hop n, so it exists as soon as hop n has come in. Window: periodic
Hann, for analysis and synthesis; the synthesis is divided by the summed squared window (weighted overlap-add, Griffin
and Lim 1984).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import OptionError


@dataclass(frozen=True)
class StftConfig:
    """n_fft and hop in samples; the overlap is (n_fft - hop) / n_fft."""

    n_fft: int = 2048
    hop: int = 512

    def __post_init__(self) -> None:
        if self.n_fft < 4 or self.n_fft % 2:
            raise OptionError(f"n_fft={self.n_fft} must be an even number of at least 4 samples")
        if self.hop > self.n_fft // 2:
            raise OptionError(
                f"hop={self.hop} is larger than half the window ({self.n_fft // 2}), so the STFT cannot be inverted"
            )
        if self.hop < 1 or self.n_fft % self.hop:
            raise OptionError(f"hop={self.hop} does not divide n_fft={self.n_fft}; use n_fft / 2, / 4, / 8 ...")

    @property
    def bins(self) -> int:
        """Bins with Nyquist packed into the imaginary part of DC: n_fft / 2."""
        return self.n_fft // 2

    @property
    def delay_samples(self) -> int:
        """Samples by which the synthesis comes later than the analysis, when both move in whole hops."""
        return self.n_fft - self.hop


@dataclass(frozen=True)
class AnalysisState:
    """The last n_fft - hop samples (C, n_fft - hop)."""

    tail: np.ndarray


@dataclass(frozen=True)
class SynthesisState:
    """The overlap that later frames still add to (C, n_fft - hop)."""

    overlap: np.ndarray


@dataclass(frozen=True)
class Stft:
    """Streaming analysis and synthesis; all state goes in and comes out."""

    config: StftConfig = field(default_factory=StftConfig)

    def __post_init__(self) -> None:
        n_fft, hop = self.config.n_fft, self.config.hop
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        summed = np.sum((window**2).reshape(-1, hop), axis=0)
        object.__setattr__(self, "_analysis", window.astype(np.float32))
        object.__setattr__(self, "_synthesis", (window / np.tile(summed, n_fft // hop)).astype(np.float32))

    def start_analysis(self, channels: int) -> AnalysisState:
        """State before the first sample: silence."""
        return AnalysisState(np.zeros((channels, self.config.delay_samples), np.float32))

    def start_synthesis(self, channels: int) -> SynthesisState:
        """State before the first frame."""
        return SynthesisState(np.zeros((channels, self.config.delay_samples), np.float32))

    def analysis(self, block: np.ndarray, state: AnalysisState) -> tuple[np.ndarray, AnalysisState]:
        """Waveform (C, N * hop) float32 to packed spectrum (C, F, N) complex64, F = n_fft / 2."""
        n_fft, hop = self.config.n_fft, self.config.hop
        assert block.shape[-1] % hop == 0, block.shape
        buffer = np.concatenate([state.tail, block.astype(np.float32, copy=False)], axis=-1)
        frames = np.lib.stride_tricks.sliding_window_view(buffer, n_fft, axis=-1)[:, ::hop][:, : block.shape[-1] // hop]
        spectrum = np.fft.rfft(frames * self._analysis, axis=-1)  # type: ignore[attr-defined]
        packed = spectrum[..., :-1].astype(np.complex64, copy=False)
        packed[..., 0] = spectrum[..., 0].real + 1j * spectrum[..., -1].real
        return packed.transpose(0, 2, 1), AnalysisState(buffer[:, buffer.shape[-1] - self.config.delay_samples :])

    def synthesis(self, packed: np.ndarray, state: SynthesisState) -> tuple[np.ndarray, SynthesisState]:
        """Packed spectrum (C, F, N) to waveform (C, N * hop), `delay_samples` later than the analysis' input."""
        n_fft, hop = self.config.n_fft, self.config.hop
        channels, bins, count = packed.shape
        spectrum = np.empty((channels, count, bins + 1), np.complex64)
        spectrum[..., :-1] = packed.transpose(0, 2, 1)
        spectrum[..., -1] = spectrum[..., 0].imag
        spectrum[..., 0] = spectrum[..., 0].real
        frames = np.fft.irfft(spectrum, n_fft, axis=-1).astype(np.float32, copy=False) * self._synthesis  # type: ignore[attr-defined]
        overlap = n_fft // hop
        parts = frames.reshape(channels, count, overlap, hop)
        out = np.zeros((channels, count + overlap - 1, hop), np.float32)
        out[:, : overlap - 1] = state.overlap.reshape(channels, overlap - 1, hop)
        # Oldest frame first at every sample: the order of additions, and so the rounding, is the same for any split.
        for part in range(overlap - 1, -1, -1):
            out[:, part : part + count] += parts[:, :, part]
        flat = out.reshape(channels, -1)
        done = count * hop
        return flat[:, :done].copy(), SynthesisState(flat[:, done:].copy())


def whole_stft(stft: Stft, audio: np.ndarray) -> np.ndarray:
    """Waveform (C, T) to all frames that touch it, (C, F, N), N = ceil((T + n_fft - hop) / hop)."""
    hop = stft.config.hop
    length = -(-(audio.shape[-1] + stft.config.delay_samples) // hop) * hop
    padded = np.pad(audio, ((0, 0), (0, length - audio.shape[-1])))
    return stft.analysis(padded, stft.start_analysis(audio.shape[0]))[0]


def whole_istft(stft: Stft, packed: np.ndarray, length: int) -> np.ndarray:
    """The inverse of `whole_stft`: frames (C, F, N) to waveform (C, length)."""
    audio, _ = stft.synthesis(packed, stft.start_synthesis(packed.shape[0]))
    delay = stft.config.delay_samples
    return audio[:, delay : delay + length]
