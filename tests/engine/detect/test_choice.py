"""The choice of presets in a running stream."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
from paths import DEMO
from scipy.signal import butter, sosfiltfilt
from stemprover.engine.auto import preset_for, preset_for_choice
from stemprover.engine.detect.analysis import Analyser, analyse
from stemprover.engine.detect.choice import Choice, ChoiceConfig, LiveChoice
from stemprover.engine.detect.detectors import TYPES

RATE = 44100


@pytest.fixture(scope="module")
def signals() -> dict[str, np.ndarray]:
    return {
        name: soundfile.read(DEMO / f"{name}.flac", dtype="float32")[0].T[:, : 12 * RATE]
        for name in ("separated", "truth", "song")
    }


@pytest.fixture(scope="module")
def dull(signals: dict[str, np.ndarray]) -> np.ndarray:
    """The true stem with its highs cut off by a filter, not by a separator."""
    return sosfiltfilt(butter(10, 7000.0, fs=RATE, output="sos"), signals["truth"]).astype(np.float32)


def choices(choice: LiveChoice, stem: np.ndarray, mix: np.ndarray | None, block: int) -> list[dict[str, float]]:
    """The choice after every block."""
    return [
        dict(choice.process(stem[:, s : s + block], None if mix is None else mix[:, s : s + block]).weights)
        for s in range(0, stem.shape[1], block)
    ]


def test_the_live_choice_agrees_with_the_analysis_of_the_file(signals: dict[str, np.ndarray], dull: np.ndarray) -> None:
    choice = LiveChoice(RATE, 2, has_mix=True)
    chosen = choices(choice, dull, signals["song"], 512)
    analyser = Analyser(RATE, 2, has_mix=True)
    analyser.process(dull, signals["song"])
    analysis = analyser.finish()
    clear = {finding.kind for finding in analysis.found if finding.strength > 0.1}
    assert clear
    assert clear <= chosen[-1].keys()
    scores = dict(zip(TYPES, choice.scores, strict=True))
    for finding in analysis.findings:
        assert scores[finding.kind] == pytest.approx(finding.score, abs=0.1)
    assert chosen[0] == {}, "nothing is chosen before enough audio was analysed"
    changes = sum(a != b for a, b in itertools.pairwise(chosen))
    assert changes <= 3, "the choice changes slowly"


def test_a_separated_stem_gets_no_adapters_until_another_stem_follows(
    signals: dict[str, np.ndarray], dull: np.ndarray
) -> None:
    config = ChoiceConfig(memory_s=2.0, first_s=1.0, hold_s=1.0)
    choice = LiveChoice(RATE, 2, has_mix=True, config=config)
    assert choices(choice, signals["separated"][:, : 6 * RATE], signals["song"][:, : 6 * RATE], 4096)[-1] == {}
    assert choice.present.is_separated
    choices(choice, dull, signals["song"], 4096)
    assert not choice.present.is_separated
    assert "dull-highs" in choice.present.weights
    without = LiveChoice(RATE, 2, config=config)
    choices(without, signals["separated"], None, 4096)
    assert not without.present.is_separated, "cannot be detected without the mix"


def test_a_clean_stem_gets_no_presets(signals: dict[str, np.ndarray]) -> None:
    assert choices(LiveChoice(RATE, 2, has_mix=True), signals["truth"], signals["song"], 4096)[-1] == {}


def test_a_fault_that_no_detector_knows_gets_general(signals: dict[str, np.ndarray]) -> None:
    tremolo = 1.0 + 0.3 * np.sin(2 * np.pi * 5.0 * np.arange(12 * RATE) / RATE)
    stem = (signals["truth"] * tremolo).astype(np.float32)
    live = LiveChoice(RATE, 2, has_mix=True)
    choices(live, stem, signals["song"], 4096)
    assert live.present == Choice(is_disturbed=True)
    analysis = analyse(stem, RATE, signals["song"])
    for preset in (preset_for(analysis), preset_for_choice(live.present, has_mix=True)):
        assert (preset.name, preset.separated) == ("general", False)
        assert preset.note == "no known fault found, but something was done to this stem; using general"
    choices(live, signals["truth"], signals["song"], 4096)
    assert live.present == Choice(), "a true stem follows"
    assert preset_for_choice(live.present, has_mix=True).wet == 0.0
    assert preset_for_choice(live.present, has_mix=False).note.startswith("nothing found, but bleed cannot")


@pytest.mark.parametrize("block", [64, 1000, 44100])
def test_any_split_into_blocks_gives_the_same_choice(
    signals: dict[str, np.ndarray], dull: np.ndarray, block: int
) -> None:
    stem, mix = dull[:, : 6 * RATE], signals["song"][:, : 6 * RATE]
    one, other = LiveChoice(RATE, 2, has_mix=True), LiveChoice(RATE, 2, has_mix=True)
    assert choices(one, stem, mix, block)[-1] == choices(other, stem, mix, 6 * RATE)[-1]
    assert one.scores == pytest.approx(other.scores, rel=1e-6)


def test_a_choice_is_kept_until_the_score_falls_below_its_release(
    signals: dict[str, np.ndarray], dull: np.ndarray
) -> None:
    """A faulty stem, silence, then a clean stem. Silence changes nothing."""
    config = ChoiceConfig(memory_s=2.0, first_s=1.0, hold_s=1.0)
    choice = LiveChoice(RATE, 2, has_mix=True, config=config)
    choices(choice, dull[:, : 4 * RATE], signals["song"][:, : 4 * RATE], 4096)
    before = dict(choice.present.weights)
    assert before
    choices(choice, np.zeros((2, 5 * RATE), np.float32), np.zeros((2, 5 * RATE), np.float32), 4096)
    kept = dict(choice.present.weights)
    choices(choice, signals["truth"], signals["song"], 4096)
    assert before.keys() <= kept.keys(), "buffered audio from before the silence may add to the choice"
    assert choice.present.weights == {}
