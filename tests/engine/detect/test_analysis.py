"""A whole sound through the detectors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from models import sound
from places import DEMO
from stemprover.engine.detect.analysis import Analyser, Analysis
from stemprover.engine.detect.bank import TYPES
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


def test_a_true_stem_has_no_faults_and_a_separated_one_has(separated: Analysis) -> None:
    true = analysed(excerpt("truth"), excerpt("song"))
    assert not true.found
    assert dict(true.blend()) == {}
    assert {"bleed", "dull-highs"} <= {finding.kind for finding in separated.found}
    dull = separated.findings[TYPES.index("dull-highs")]
    assert dull.low_hz > 5000.0, "the separator has cut off everything above 11 kHz"
    assert all(0.4 <= weight <= 1.0 for weight in separated.blend().values())
    strengths = [finding.strength for finding in separated.found]
    assert strengths == sorted(strengths, reverse=True)


def test_a_separators_stem_is_told_from_a_true_one_and_from_a_leak(separated: Analysis) -> None:
    true, song = excerpt("truth"), excerpt("song")
    assert separated.is_separated
    for other in (true, true + 0.3 * (song - true), 0.5 * song):
        assert not analysed(other, song).is_separated
    dull = scipy.signal.sosfiltfilt(scipy.signal.butter(12, 4000, output="sos", fs=44100), true).astype(np.float32)
    found = analysed(dull, song)
    assert "dull-highs" in {finding.kind for finding in found.found}
    assert found.separation < 0.0, "the highs that it lacks stand in the rest"
    assert not found.is_separated
    assert analysed(true, song).separation == pytest.approx(-0.15, abs=0.1)
    assert not analysed(np.concatenate([true, np.zeros_like(true)]), np.concatenate([song, song])).is_separated
    surround = analysed(*(np.concatenate([excerpt(name)] * 2) for name in ("separated", "song")))
    assert surround.separation == pytest.approx(separated.separation, abs=1e-5)
    assert analysed(excerpt("separated"), None).separation == 0.0, "nobody knows without the song"


@pytest.mark.parametrize("block", [1000, 4097])
def test_any_split_into_blocks_gives_the_same(separated: Analysis, block: int) -> None:
    again = analysed(excerpt("separated"), excerpt("song"), block=block)
    assert np.abs(again.severities - separated.severities).max() <= 1e-5
    assert [f.kind for f in again.found] == [f.kind for f in separated.found]
    assert again.separation == pytest.approx(separated.separation, abs=1e-5)


def test_another_sample_rate_tells_the_same(separated: Analysis) -> None:
    stem, mix = (soxr.resample(excerpt(name).T, 44100, 48000).T for name in ("separated", "song"))
    again = analysed(stem, mix, 48000)
    assert again.duration_s == pytest.approx(separated.duration_s, abs=1e-3)
    for a, b in zip(again.findings, separated.findings, strict=True):
        assert a.score == pytest.approx(b.score, abs=0.03), a.kind


def test_bleed_is_not_claimed_without_the_song() -> None:
    finding = analysed(excerpt("separated"), None).findings[TYPES.index("bleed")]
    assert not finding.known
    assert not finding.found


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 5000])
def test_any_length_and_number_of_channels(channels: int, length: int) -> None:
    stem = sound(0.2, channels=channels)[:, :length]
    found = analysed(stem, None)
    assert found.severities.shape[:2] == (5, len(found.edges_hz) - 1)
    assert found.severities.shape[2] == -(-length // 4096)
    assert found.levels_db.shape == found.severities.shape[1:]
    assert found.duration_s == length / 44100


def test_silence_has_nothing() -> None:
    found = analysed(np.zeros((2, 44100), np.float32), sound(1.0))
    assert not found.found
    assert not found.severities.any()


@pytest.mark.parametrize(
    ("block", "mix", "error"),
    [
        (np.zeros((1, 10), np.float32), np.zeros((1, 10), np.float32), OptionError),
        (np.zeros((2, 10), np.float32), None, MixMismatchError),
        (np.zeros((2, 10), np.float32), np.zeros((2, 9), np.float32), MixMismatchError),
    ],
)
def test_blocks_that_do_not_fit_are_refused(
    block: np.ndarray, mix: np.ndarray | None, error: type[StemProverError]
) -> None:
    with pytest.raises(error):
        Analyser(44100, 2, True).process(block, mix)
