"""The detectors: streamed equals whole, memory is bounded, and known faults are recognised."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sound
from paths import DEMO
from stemprover.engine.detect.detectors import TYPES, Detectors
from stemprover.engine.detect.measures import MEMORY, NAMES, Measures
from stemprover.engine.detect.score import file_scores
from stemprover.engine.dsp.stft import Stft

DETECTORS = Detectors()


def spectrum(audio: np.ndarray) -> np.ndarray:
    stft = Stft()
    return stft.analysis(audio[:, : audio.shape[1] // 512 * 512], stft.start_analysis(2))[0]


def detected(stem: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
    return DETECTORS(spectrum(stem), None if mix is None else spectrum(mix), DETECTORS.start())[0]


@pytest.fixture(scope="module")
def demo() -> tuple[np.ndarray, np.ndarray]:
    """Eight seconds of a true stem, and the rest of its mix."""
    truth, mix = (
        soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=8 * 44100)[0].T for name in ("truth", "song")
    )
    return truth, mix - truth


@given(cuts=st.lists(st.integers(1, 120), max_size=6), has_mix=st.booleans())
@settings(max_examples=12, deadline=None)
def test_any_split_gives_the_same_severities(cuts: list[int], has_mix: bool) -> None:
    stem, mix = spectrum(sound(2.0)), spectrum(sound(2.0, seed=5)) if has_mix else None
    whole, _ = DETECTORS(stem, mix, DETECTORS.start())
    state, parts, start = DETECTORS.start(), [], 0
    for count in [*cuts, 10000]:
        part = slice(start, start + count)
        if stem[..., part].shape[-1]:
            severities, state = DETECTORS(stem[..., part], None if mix is None else mix[..., part], state)
            parts.append(severities)
        start += count
    assert np.abs(np.concatenate(parts, axis=-1) - whole).max() <= 1e-5


def test_input_older_than_the_memory_has_no_effect() -> None:
    stem, mix = spectrum(sound(4.0)), spectrum(sound(4.0, seed=5))
    whole, _ = DETECTORS(stem, mix, DETECTORS.start())
    later, _ = DETECTORS(stem[..., 77:], mix[..., 77:], DETECTORS.start())
    assert np.abs(later[..., MEMORY:] - whole[..., 77 + MEMORY :]).max() <= 1e-6
    assert np.abs(later[..., :20] - whole[..., 77:97]).max() > 1e-3


def test_silence_has_no_artefacts() -> None:
    silence = np.zeros((2, 44100), np.float32)
    assert not detected(silence).any()
    assert not detected(silence, sound(1.0)).any()
    assert np.array_equal(file_scores(detected(silence)), np.zeros(len(TYPES)))


@pytest.mark.parametrize("change", [lambda x: 0.03 * x, lambda x: -x, lambda x: x[::-1]])
def test_gain_polarity_and_channel_order_do_not_matter(change: Callable[[np.ndarray], np.ndarray]) -> None:
    stem, mix = sound(3.0), sound(3.0) + sound(3.0, seed=4)
    assert np.abs(detected(change(stem), change(mix)) - detected(stem, mix)).max() < 0.02


def test_measures_of_noise_and_of_a_tone() -> None:
    """For noise, mixed second differences of the log-power have a deviation of 2 x 5.6 dB. For a single partial, the
    phase steps by pi from bin to bin in the main lobe of a Hann window."""
    measures, rng = Measures(), np.random.default_rng(0)
    noise = rng.standard_normal((1, 3 * 44100)).astype(np.float32)
    found = dict(zip(NAMES, measures(spectrum(np.repeat(noise, 2, axis=0)), None, measures.start())[0], strict=True))
    assert np.median(found["fluctuation"][12:, 140:]) == pytest.approx(1.11, abs=0.08)
    assert np.all(found["channel_coherence"][:, 140:] > 0.999)
    t = np.arange(3 * 44100) / 44100
    tone = np.repeat(np.sin(2 * np.pi * 1003.0 * t)[None], 2, axis=0).astype(np.float32)
    found = dict(zip(NAMES, measures(spectrum(tone), None, measures.start())[0], strict=True))
    band = np.searchsorted(measures.bands.edges_hz, 1003.0) - 1
    assert np.all(found["lobe_phase"][band, 140:] < -0.97)
    assert np.all(found["fluctuation"][band, 140:] < 0.4)


def test_the_leak_measure_equals_the_gain_of_the_residual() -> None:
    rng = np.random.default_rng(1)
    stem, rest = (0.1 * rng.standard_normal((2, 4 * 44100)).astype(np.float32) for _ in range(2))
    measures = Measures()
    measured, _, _ = measures(spectrum(stem + 0.25 * rest), spectrum(stem + rest), measures.start())
    # The residual (mix minus stem) is 0.75 rest: <0.25 rest, 0.75 rest> / <0.75 rest, 0.75 rest> = 1/3.
    assert np.median(measured[NAMES.index("leak")][8:, 140:]) == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("kind", TYPES)
def test_each_simulated_fault_raises_its_own_score_most(kind: str, demo: tuple[np.ndarray, np.ndarray]) -> None:
    from stemprover.engine.train.corpus.simulated_faults import SIMULATORS

    stem, rest = demo
    broken = SIMULATORS[kind](stem, rest, 0.8, np.random.default_rng(3))
    clean, faulty = (file_scores(detected(x, stem + rest)) for x in (stem, broken))
    assert TYPES[int(np.argmax((faulty - clean) / Detectors().typical(True)))] == kind
    thresholds = Detectors().thresholds(True)
    assert (clean < thresholds).all()
    assert faulty[TYPES.index(kind)] > thresholds[TYPES.index(kind)]


@pytest.mark.parametrize("kind", TYPES)
def test_simulators_are_deterministic_and_leave_their_input_unchanged(
    kind: str, demo: tuple[np.ndarray, np.ndarray]
) -> None:
    from stemprover.engine.train.corpus.simulated_faults import SIMULATORS

    stem, rest = (part[:, :44100].copy() for part in demo)
    kept = stem.copy(), rest.copy()
    made = [SIMULATORS[kind](stem, rest, 0.6, np.random.default_rng(7)) for _ in range(2)]
    assert np.array_equal(*made)
    assert made[0].shape == stem.shape
    assert made[0].dtype == np.float32
    assert np.array_equal(stem, kept[0])
    assert np.array_equal(rest, kept[1])
    assert np.array_equal(SIMULATORS[kind](stem, rest, 0.0, np.random.default_rng(7)), stem)
    mild, strong = (SIMULATORS[kind](stem, rest, s, np.random.default_rng(2)) for s in (0.2, 1.0))
    assert np.square(mild - stem).sum() < np.square(strong - stem).sum()


def test_detecting_loads_no_torch(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys, numpy as np; from stemprover.engine.detect.detectors import Detectors; d = Detectors();"
        "d(np.ones((2, 1024, 3), np.complex64), None, d.start()); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_the_edge_measure_tells_a_low_pass_from_a_naturally_dark_sound() -> None:
    """White noise with a brick-wall filter at 5.5 kHz falls from its full level; noise that has already faded by 60 dB
    falls from -60 dB."""
    rng = np.random.default_rng(2)
    noise = np.fft.rfft(0.1 * rng.standard_normal((2, 4 * 44100)))
    kilohertz = np.fft.rfftfreq(4 * 44100, 1 / 44.1)
    fading = 10 ** (-np.minimum(12.0 * kilohertz, 60.0) / 20)
    measures = Measures()
    edges = []
    for gain in (np.ones_like(kilohertz), fading):
        sound = np.fft.irfft(noise * gain * (kilohertz < 5.5)).astype(np.float32)
        measured, _, _ = measures(spectrum(sound), None, measures.start())
        edges.append(10 * np.median(measured[NAMES.index("edge")][-1, 140:]))
    assert edges[0] > -6.0
    assert edges[1] == pytest.approx(-60.0, abs=6.0)
    steady, _, _ = measures(spectrum(np.fft.irfft(noise).astype(np.float32)), None, measures.start())
    assert steady[NAMES.index("edge")][-1, 140:] == pytest.approx(0.0, abs=0.6), "no fall, no edge"


def test_after_one_certain_fault_lower_thresholds_apply_to_the_others() -> None:
    detectors = Detectors()
    strict = detectors.thresholds(True)
    nearly = strict * 0.99
    assert np.array_equal(detectors.limits(nearly, True), strict)
    one = nearly.copy()
    one[0] = 2 * strict[0]
    relaxed = detectors.limits(one, True)
    assert (relaxed <= strict).all()
    assert (relaxed < strict).any()
    assert (relaxed >= 0.24 * detectors.typical(True)).all()
    bleeding = np.zeros(5)
    bleeding[TYPES.index("bleed")] = 1.0
    assert np.array_equal(detectors.limits(bleeding, False), detectors.thresholds(False)), (
        "bleed is not known without the mix"
    )
