"""Spleeter in torch: properties of its masks, and that it separates."""

import numpy as np
import pytest
import torch
from stemprover.engine.train.corpus.sources import SAMPLE_RATE
from stemprover.engine.train.corpus.spleeter import (
    HOP,
    N_FFT,
    ONE_PATCH_SAMPLES,
    PATCH_BINS,
    SeparatorError,
    Spleeter,
    UNet,
    fetch_weights,
    read_checkpoint,
)


@pytest.fixture(scope="module")
def spleeter() -> Spleeter:
    torch.set_num_threads(1)
    return Spleeter()


def low_passed(audio: np.ndarray, cutoff_hz: float) -> np.ndarray:
    spectrum = np.fft.rfft(audio)
    spectrum[..., np.fft.rfftfreq(audio.shape[-1], 1 / SAMPLE_RATE) > cutoff_hz] = 0
    return np.fft.irfft(spectrum, n=audio.shape[-1])


def level_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(audio.astype(np.float64) ** 2) + 1e-30))


def noise(length: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((2, length))).astype(np.float32)


def voice_like(length: int) -> np.ndarray:
    """A pulse train with glides and vibrato through formants, which the vocals network mistakes for a voice."""
    t = np.arange(length) / SAMPLE_RATE
    f0 = 220 * 2 ** (np.floor(t / 0.6) % 5 / 12 + 0.02 * np.sin(2 * np.pi * 5.5 * t))
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    formant = [(700, 1.0), (1200, 0.6), (2600, 0.3), (3400, 0.2)]
    out = np.zeros(length)
    for harmonic in range(1, 20):
        gain = sum(g / (1 + ((harmonic * 220 - f) / 150) ** 2) for f, g in formant)
        out += gain * np.sin(harmonic * phase)
    out *= 0.5 - 0.5 * np.cos(2 * np.pi * np.minimum(t % 0.6 / 0.3, 1))
    return np.tile(0.1 * out / np.abs(out).max(), (2, 1)).astype(np.float32)


def test_checkpoint_fills_both_networks_exactly() -> None:
    tensors = read_checkpoint(fetch_weights())
    used = sum(p.numel() for p in UNet().state_dict().values() if p.is_floating_point())
    weights = {n: t for n, t in tensors.items() if n.split("/")[0].startswith(("conv2d", "batch_normalization"))}
    assert sum(t.size for t in weights.values()) == 2 * used
    assert tensors["conv2d/kernel"].shape == (5, 5, 2, 16)
    assert all(np.isfinite(t).all() for t in weights.values())
    assert all((t > 0).all() for n, t in weights.items() if n.endswith("moving_variance"))


@pytest.mark.parametrize("length", [1, HOP + 1, 100_000, ONE_PATCH_SAMPLES + 12_345])
def test_stems_sum_to_the_mix_below_11_khz(spleeter: Spleeter, length: int) -> None:
    # Noise without content above 10.5 kHz, windowed, so that no leakage reaches the bins that "zeros" drops.
    mix = (low_passed(noise(length), 10_500) * np.hanning(length + 2)[1:-1]).astype(np.float32)
    stems = spleeter.separate(mix)
    total = stems["vocals"] + stems["accompaniment"]
    assert total.shape == mix.shape
    assert total.dtype == np.float32
    if length > N_FFT:
        assert level_db(total - mix) < level_db(mix) - 50


def test_extensions_share_the_lows_and_differ_in_the_highs(spleeter: Spleeter) -> None:
    mix = noise(60_000)
    both = spleeter.separate_all(mix)
    edge_hz = PATCH_BINS * SAMPLE_RATE / N_FFT
    for stem in ("vocals", "accompaniment"):
        zeros, average = both["zeros"][stem], both["average"][stem]
        difference = average - zeros
        assert level_db(low_passed(difference, edge_hz - 100)) < level_db(average) - 40
        np.testing.assert_array_equal(spleeter.separate(mix)[stem], zeros)
    total = both["zeros"]["vocals"] + both["zeros"]["accompaniment"]
    assert level_db(total - low_passed(total, edge_hz + 100)) < level_db(total) - 40


def test_patches_are_separated_independently(spleeter: Spleeter) -> None:
    """Changing the second patch leaves the first alone, with Spleeter's framing."""
    mix = noise(ONE_PATCH_SAMPLES + 200_000)
    other = mix.copy()
    other[:, ONE_PATCH_SAMPLES + N_FFT :] = 0
    first, second = spleeter.separate(mix), spleeter.separate(other)
    kept = slice(0, ONE_PATCH_SAMPLES)
    np.testing.assert_array_equal(first["vocals"][:, kept], second["vocals"][:, kept])
    assert np.abs(first["accompaniment"] - second["accompaniment"]).max() > 1e-3


def test_stems_are_aligned_to_the_sample(spleeter: Spleeter) -> None:
    mix = np.zeros((2, 50_000), np.float32)
    mix[:, 23_457] = 0.5
    total = sum(spleeter.separate(mix, "average").values())
    assert np.argmax(np.abs(total[0])) == 23_457
    band_limited = sum(spleeter.separate(mix, "zeros").values())
    assert np.argmax(np.abs(band_limited[1])) == 23_457


def test_silence_stays_silent_and_the_input_is_unchanged(spleeter: Spleeter) -> None:
    mix = np.zeros((2, 30_000), np.float32)
    assert all(np.abs(y).max() < 1e-9 for y in spleeter.separate(mix).values())
    mix = noise(30_000)
    before = mix.copy()
    spleeter.separate(mix)
    np.testing.assert_array_equal(mix, before)


def test_a_voice_and_a_drum_go_to_their_own_stems(spleeter: Spleeter) -> None:
    length = 6 * SAMPLE_RATE
    voice = voice_like(length)
    t = np.arange(length) / SAMPLE_RATE
    drum = (noise(length, 1) * np.exp(-(t % 0.5) / 0.03) * 2).astype(np.float32)
    only_drum = spleeter.separate(drum)
    assert level_db(only_drum["accompaniment"]) > level_db(only_drum["vocals"]) + 12
    mixed = spleeter.separate(voice + drum)

    def drum_share(stem: str) -> float:
        return float(abs(np.vdot(mixed[stem], drum)) / np.linalg.norm(mixed[stem]) / np.linalg.norm(drum))

    assert drum_share("accompaniment") > 2 * drum_share("vocals")


@pytest.mark.parametrize("shape", [(44_100,), (1, 44_100), (44_100, 2)])
def test_wrong_shapes_are_refused_and_named(spleeter: Spleeter, shape: tuple[int, ...]) -> None:
    with pytest.raises(SeparatorError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        spleeter.separate(np.zeros(shape, np.float32))


def test_an_unknown_extension_is_named(spleeter: Spleeter) -> None:
    with pytest.raises(SeparatorError, match="'mirror'"):
        spleeter.separate(noise(5000), "mirror")


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path) -> None:
    (tmp_path / "model.index").write_bytes(bytes(100))
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(100))
    with pytest.raises(SeparatorError, match="not a TensorFlow V2 checkpoint"):
        Spleeter(tmp_path)
