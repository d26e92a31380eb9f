"""Each loss is zero for equal inputs, and right in a case worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from stemprover.engine.dsp.bands import band_importance
from stemprover.engine.dsp.latent import BandLayout, Latent
from stemprover.engine.dsp.stft import Stft, whole_stft
from stemprover.engine.metrics.basic import log_spectral_distance
from stemprover.engine.train import losses
from stemprover.engine.train.step import changes, relative_terms

LAYOUT = BandLayout()
ONES = torch.ones(LAYOUT.bands)
GENERATOR = torch.Generator().manual_seed(0)
Z = torch.randn(2, 64, 84, 6, generator=GENERATOR)
OTHER = torch.randn(2, 64, 84, 6, generator=GENERATOR)
PERCEPTUAL = {
    "compressed": losses.compressed_l1,
    "log_magnitude": losses.log_magnitude_l1,
    "phase": losses.phase_cosine,
    "frequency": losses.instantaneous_frequency,
    "delay": losses.group_delay,
}


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_equal_inputs_cost_nothing_and_others_something(name: str) -> None:
    assert float(PERCEPTUAL[name](Z, Z, ONES)) == pytest.approx(0.0, abs=1e-5)
    assert float(PERCEPTUAL[name](Z, OTHER, ONES)) > 0.1


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_the_gradient_is_finite_everywhere_and_at_silence(name: str) -> None:
    for start in (torch.zeros_like(Z), Z.clone()):
        z = start.requires_grad_()
        PERCEPTUAL[name](z, OTHER, ONES).backward()
        assert torch.isfinite(z.grad).all()


def turned(z: torch.Tensor, angle: torch.Tensor | float) -> torch.Tensor:
    c = torch.complex(*losses.parts(z)) * torch.exp(1j * torch.as_tensor(angle))
    return torch.cat([c.real, c.imag], dim=1)


def test_a_phase_error_of_sixty_degrees_costs_one_half() -> None:
    assert float(losses.phase_cosine(turned(Z, math.pi / 3), Z, ONES)) == pytest.approx(0.5, abs=1e-4)


def test_a_constant_phase_offset_costs_nothing_in_frequency_and_delay() -> None:
    for loss in (losses.instantaneous_frequency, losses.group_delay):
        assert float(loss(turned(Z, 1.0), Z, ONES)) == pytest.approx(0.0, abs=1e-4)


def test_a_steady_drift_of_the_phase_costs_its_cosine_and_wraps() -> None:
    frames = torch.arange(6.0)
    for step in (1.0, 1.0 + 2 * math.pi):
        drifted = turned(Z, step * frames)
        assert float(losses.instantaneous_frequency(drifted, Z, ONES)) == pytest.approx(1 - math.cos(1.0), abs=1e-3)
    slots = torch.arange(32.0)[:, None, None]
    assert float(losses.group_delay(turned(Z, 0.5 * slots), Z, ONES)) == pytest.approx(1 - math.cos(0.5), abs=1e-3)


def test_twice_the_magnitude_is_ln_two_in_log_magnitude() -> None:
    assert float(losses.log_magnitude_l1(20 * Z, 10 * Z, ONES, floor=1e-9)) == pytest.approx(math.log(2.0), rel=1e-3)


def test_half_the_error_is_six_db_of_log_error() -> None:
    truth = torch.complex(*Z[:, :4].reshape(2, 2, 2, 84, 6).unbind(2))
    before, after = truth + 0.2, truth + 0.1
    found = losses.log_error_ratio(after, before, truth, torch.ones(2), floor=1e-9)
    assert 10 * float(found) == pytest.approx(-6.02, abs=0.01)
    clean = losses.log_error_ratio(truth, truth, truth, torch.ones(2))
    assert float(clean) == 0.0


def test_the_spectrum_in_torch_is_the_one_in_numpy() -> None:
    rng = np.random.default_rng(0)
    scale = np.linspace(0.3, 4.0, 84).astype(np.float32)
    latent = Latent(scale=scale)
    spectrum = (rng.standard_normal((1, 2, 1024, 5)) + 1j * rng.standard_normal((1, 2, 1024, 5))).astype(np.complex64)
    z = latent.encode(spectrum)
    mid_side = losses.linear_spectrum(torch.from_numpy(z), LAYOUT, torch.from_numpy(scale)).numpy()
    np.testing.assert_allclose(mid_side[:, 0] + mid_side[:, 1], spectrum[:, 0], rtol=0.0, atol=1e-4)
    np.testing.assert_allclose(mid_side[:, 0] - mid_side[:, 1], spectrum[:, 1], rtol=0.0, atol=1e-4)


def test_the_log_spectral_distance_in_torch_is_the_one_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.standard_normal((2, 44100)) * np.linspace(0.0, 1.0, 44100)).astype(np.float32)
    stem = (0.5 * truth + 0.01 * rng.standard_normal((2, 44100))).astype(np.float32)
    spectra = [whole_stft(Stft(), audio)[None] for audio in (stem, truth)]
    sides = [torch.from_numpy(np.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]], axis=1)) for x in spectra]
    found = losses.log_spectral_distance(*sides)
    assert float(found) == pytest.approx(log_spectral_distance(stem, truth), rel=0.01)
    assert float(losses.log_spectral_distance(sides[1], sides[1])) < 0.02
    for x in (sides[1].clone(), torch.zeros_like(sides[1])):
        losses.log_spectral_distance(x.requires_grad_(), sides[1]).backward()
        assert torch.isfinite(torch.view_as_real(x.grad)).all()


def test_the_waveform_in_torch_is_the_one_in_numpy() -> None:
    audio = np.random.default_rng(1).standard_normal((2, 20 * 512)).astype(np.float32)
    stft = Stft()
    spectrum, _ = stft.analysis(audio, stft.start_analysis(2))
    found = losses.waveform(torch.from_numpy(spectrum.copy())[None], 2048, 512)[0].numpy()
    np.testing.assert_allclose(found, audio[:, : found.shape[1]], rtol=0.0, atol=1e-4)
    assert found.shape[1] == 20 * 512 - 1536


def test_multi_resolution_is_zero_for_equal_inputs_and_one_for_silence() -> None:
    audio = torch.randn(1, 2, 12000, generator=GENERATOR)
    assert float(losses.multi_resolution_stft(audio, audio)) == 0.0
    assert float(losses.multi_resolution_stft(torch.zeros_like(audio), audio)) == pytest.approx(1.0, abs=1e-3)


def test_noise_in_a_pause_costs_its_level_above_the_floor_and_noise_beside_sound_nothing() -> None:
    truth = torch.ones(1, 2, 10, 8, dtype=torch.complex64)
    truth[..., 4:] = 0.0
    presence = losses.total_power(truth)
    loud = truth.clone()
    loud[..., :4] *= 3.0
    assert float(losses.pause_excess(loud, truth, presence)) == 0.0
    noisy = truth.clone()
    noisy[..., 6:] = 0.01 * math.sqrt(0.5)  # 40 dB below the mean frame, 20 dB above the floor, in a quarter of all
    assert float(losses.pause_excess(noisy, truth, presence)) == pytest.approx(2.0 / 4, abs=0.01)


def test_what_changes_nothing_is_logged_as_no_change_however_unlike_the_batches_before() -> None:
    untouched = {"compressed": torch.tensor(3.0), "log_error": torch.tensor(-0.5)}
    typical = {"compressed": 1.0, "log_error": 2.0}
    assert changes(relative_terms(untouched, typical), untouched, typical) == {"compressed": 0.0, "log_error": 0.0}
    better = relative_terms({"compressed": torch.tensor(2.0), "log_error": torch.tensor(-0.6)}, typical)
    assert changes(better, untouched, typical) == pytest.approx({"compressed": -1.0, "log_error": -0.1})


def test_importance_follows_the_ear() -> None:
    # A band of 344 Hz covers less and less of an auditory filter from about 2.5 kHz up. The mean is 1.
    weights = band_importance(LAYOUT)
    assert weights.mean() == pytest.approx(1.0, rel=1e-5)
    assert np.all(np.diff(weights[32:]) < 0)
    assert np.all(np.diff(weights[:16]) < 0)
