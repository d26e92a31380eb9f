"""The detectors over a whole stem."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from models import sound
from paths import DEMO
from stemprover.engine.detect.analysis import Analyser, Analysis
from stemprover.engine.detect.detectors import TYPES
from stemprover.engine.errors import MixMismatchError, OptionError, StemProverError


def excerpt(name: str) -> np.ndarray:
    return soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=9 * 44100)[0].T


def analysed(stem: np.ndarray, mix: np.ndarray | None, rate: int = 44100, block: int = 1 << 16) -> Analysis:
    analyser = Analyser(rate, len(stem), mix is not None)
    for start in range(0, stem.shape[1], block):
        part = slice(start, start + block)
        analyser.process(stem[:, part], None if mix is None else mix[:, part])
    return analyser.finish()


@pytest.fixture(scope="module")
def separated() -> Analysis:
    return analysed(excerpt("separated"), excerpt("song"))


def test_artefacts_are_found_in_a_separated_stem_but_not_in_a_true_one(separated: Analysis) -> None:
    true = analysed(excerpt("truth"), excerpt("song"))
    assert not true.found
    assert dict(true.blend()) == {}
    assert {"bleed", "dull-highs"} <= {finding.kind for finding in separated.found}
    dull = separated.findings[TYPES.index("dull-highs")]
    assert dull.low_hz > 5000.0, "the separator cut off everything above 11 kHz"
    assert all(0.4 <= weight <= 1.0 for weight in separated.blend().values())
    strengths = [finding.strength for finding in separated.found]
    assert strengths == sorted(strengths, reverse=True)


def test_a_separated_stem_is_told_from_a_true_one_and_from_bleed(separated: Analysis) -> None:
    true, mix = excerpt("truth"), excerpt("song")
    assert separated.is_separated
    for other in (true, true + 0.3 * (mix - true), 0.5 * mix):
        assert not analysed(other, mix).is_separated
    dull = scipy.signal.sosfiltfilt(scipy.signal.butter(12, 4000, output="sos", fs=44100), true).astype(np.float32)
    analysis = analysed(dull, mix)
    assert "dull-highs" in {finding.kind for finding in analysis.found}
    assert analysis.separation < 0.0, "the missing highs are in the residual"
    assert not analysis.is_separated
    assert analysed(true, mix).separation == pytest.approx(-0.15, abs=0.1)
    assert not analysed(np.concatenate([true, np.zeros_like(true)]), np.concatenate([mix, mix])).is_separated
    surround = analysed(*(np.concatenate([excerpt(name)] * 2) for name in ("separated", "song")))
    assert surround.separation == pytest.approx(separated.separation, abs=1e-5)
    assert analysed(excerpt("separated"), None).separation == 0.0, "cannot be detected without the mix"


@pytest.mark.parametrize("block", [1000, 4097])
def test_any_split_into_blocks_gives_the_same_analysis(separated: Analysis, block: int) -> None:
    again = analysed(excerpt("separated"), excerpt("song"), block=block)
    assert np.abs(again.severities - separated.severities).max() <= 1e-5
    assert [f.kind for f in again.found] == [f.kind for f in separated.found]
    assert again.separation == pytest.approx(separated.separation, abs=1e-5)


def test_another_sample_rate_gives_the_same_scores(separated: Analysis) -> None:
    stem, mix = (soxr.resample(excerpt(name).T, 44100, 48000).T for name in ("separated", "song"))
    again = analysed(stem, mix, 48000)
    assert again.duration_s == pytest.approx(separated.duration_s, abs=1e-3)
    for a, b in zip(again.findings, separated.findings, strict=True):
        assert a.score == pytest.approx(b.score, abs=0.03), a.kind


def test_bleed_is_never_reported_without_the_mix() -> None:
    finding = analysed(excerpt("separated"), None).findings[TYPES.index("bleed")]
    assert not finding.known
    assert not finding.found


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 5000])
def test_any_length_and_number_of_channels(channels: int, length: int) -> None:
    stem = sound(0.2, channels=channels)[:, :length]
    analysis = analysed(stem, None)
    assert analysis.severities.shape[:2] == (5, len(analysis.edges_hz) - 1)
    assert analysis.severities.shape[2] == -(-length // 4096)
    assert analysis.levels_db.shape == analysis.severities.shape[1:]
    assert analysis.duration_s == length / 44100


def test_silence_has_no_artefacts() -> None:
    analysis = analysed(np.zeros((2, 44100), np.float32), sound(1.0))
    assert not analysis.found
    assert not analysis.severities.any()


@pytest.mark.parametrize(
    ("block", "mix", "error"),
    [
        (np.zeros((1, 10), np.float32), np.zeros((1, 10), np.float32), OptionError),
        (np.zeros((2, 10), np.float32), None, MixMismatchError),
        (np.zeros((2, 10), np.float32), np.zeros((2, 9), np.float32), MixMismatchError),
    ],
)
def test_blocks_of_the_wrong_shape_raise_an_error(
    block: np.ndarray, mix: np.ndarray | None, error: type[StemProverError]
) -> None:
    with pytest.raises(error):
        Analyser(44100, 2, True).process(block, mix)
