"""STFT and latent: lossless for any signal, and independent of how it is split into blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.latent import BandLayout, Latent
from stemprover.engine.dsp.stft import Stft, StftConfig, whole_istft, whole_stft
from stemprover.engine.errors import OptionError

RNG = np.random.default_rng(3)
T = 30000
SIGNALS = {
    "noise": 0.3 * RNG.standard_normal((2, T)),
    "silence": np.zeros((2, T)),
    "impulses": np.where(np.arange(T) % 3001 == 17, 1.0, 0.0)[None].repeat(2, 0),
    "full-scale sine": np.sin(2 * np.pi * 997.0 * np.arange(T) / 44100)[None].repeat(2, 0),
    "dc": np.full((2, T), 0.7),
    "nyquist": np.where(np.arange(T) % 2, 1.0, -1.0)[None].repeat(2, 0),
    "over 1.0": 5.0 * RNG.standard_normal((2, T)),
    "very quiet": 1e-4 * RNG.standard_normal((2, T)),
    "one channel only": np.stack([RNG.standard_normal(T), np.zeros(T)]),
    "one sample": np.array([[0.5], [-0.25]]),
}


def snr_db(reference: np.ndarray, found: np.ndarray) -> float:
    error = np.sum((reference.astype(np.float64) - found) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(np.sum(reference.astype(np.float64) ** 2) / error)


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("hop", [256, 512, 1024])
def test_the_stft_is_invertible(name: str, hop: int) -> None:
    audio = SIGNALS[name].astype(np.float32)
    stft = Stft(StftConfig(2048, hop))
    assert snr_db(audio, whole_istft(stft, whole_stft(stft, audio), audio.shape[1])) >= 120.0


@pytest.mark.parametrize("name", SIGNALS)
def test_latent_and_stft_together_are_invertible(name: str) -> None:
    audio = SIGNALS[name].astype(np.float32)
    stft, latent = Stft(), Latent(scale=np.linspace(0.2, 9.0, 84))
    spectrum = latent.decode(latent.encode(whole_stft(stft, audio)[None]))[0]
    assert snr_db(audio, whole_istft(stft, spectrum, audio.shape[1])) >= 120.0


def test_a_full_scale_sine_peaks_at_its_bin_with_the_gain_of_the_window() -> None:
    # A Hann window of N samples sums to N / 2, and a sine puts half of its amplitude at the positive frequency.
    audio = np.sin(2 * np.pi * 100 / 2048 * np.arange(8192))[None].astype(np.float32)
    frame = whole_stft(Stft(), audio)[0, :, 8]
    assert np.argmax(np.abs(frame)) == 100
    assert abs(frame[100]) == pytest.approx(512.0, rel=1e-4)
    assert abs(frame[101]) == pytest.approx(256.0, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.sampled_from([(2048, 512), (512, 128), (64, 32)]))
def test_any_split_into_hops_gives_the_same_result(hops: list[int], sizes: tuple[int, int]) -> None:
    stft = Stft(StftConfig(*sizes))
    audio = np.random.default_rng(sum(hops)).standard_normal((2, sum(hops) * sizes[1])).astype(np.float32)
    whole, _ = stft.analysis(audio, stft.start_analysis(2))
    back, _ = stft.synthesis(whole, stft.start_synthesis(2))
    into, out = stft.start_analysis(2), stft.start_synthesis(2)
    spectra, blocks, at = [], [], 0
    for count in hops:
        spectrum, into = stft.analysis(audio[:, at : at + count * sizes[1]], into)
        block, out = stft.synthesis(spectrum, out)
        spectra.append(spectrum)
        blocks.append(block)
        at += count * sizes[1]
    assert np.array_equal(np.concatenate(spectra, axis=2), whole)
    assert np.array_equal(np.concatenate(blocks, axis=1), back)


def test_the_callers_arrays_are_not_changed() -> None:
    audio = SIGNALS["noise"].astype(np.float32)[:, :4096]
    kept = audio.copy()
    stft = Stft()
    spectrum, _ = stft.analysis(audio, stft.start_analysis(2))
    spectrum_kept = spectrum.copy()
    stft.synthesis(spectrum, stft.start_synthesis(2))
    Latent().decode(Latent().encode(spectrum[None]))
    assert np.array_equal(audio, kept)
    assert np.array_equal(spectrum, spectrum_kept)


def test_the_band_map_is_semi_orthogonal() -> None:
    # Its adjoint is its inverse, so norms stay: |z|^2 = sum of |compressed bins|^2 for unit scale.
    spectrum = (RNG.standard_normal((1, 2, 1024, 3)) + 1j * RNG.standard_normal((1, 2, 1024, 3))).astype(np.complex64)
    z = Latent().encode(spectrum)
    mid_side = np.stack([spectrum[:, 0] + spectrum[:, 1], spectrum[:, 0] - spectrum[:, 1]]) / 2
    assert np.sum(np.square(z)) == pytest.approx(np.sum(np.abs(mid_side)), rel=1e-4)


def test_the_bands_cover_every_bin_once() -> None:
    layout = BandLayout()
    assert (layout.bands, layout.bins) == (84, 1024)
    assert np.array_equal(np.unique(layout.slot_bins), np.arange(1024))


@pytest.mark.parametrize(
    ("n_fft", "hop", "message"),
    [(400, 512, "hop=512 is larger than half the window"), (2048, 500, "does not divide"), (3, 1, "n_fft=3")],
)
def test_an_invalid_size_is_an_error_that_names_the_consequence(n_fft: int, hop: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        StftConfig(n_fft, hop)


def test_an_invalid_latent_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"exponent=0\.01"):
        Latent(exponent=0.01)
    with pytest.raises(OptionError, match="scale of shape"):
        Latent(scale=np.ones(3))
    with pytest.raises(OptionError, match="width must divide"):
        BandLayout(((4, 5),))
