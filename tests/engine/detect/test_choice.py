"""What a running stream asks for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
from places import DEMO
from scipy.signal import butter, sosfiltfilt
from stemprover.engine.detect.analysis import Analyser
from stemprover.engine.detect.bank import TYPES
from stemprover.engine.detect.choice import ChoiceConfig, LiveChoice

RATE = 44100


@pytest.fixture(scope="module")
def sounds() -> dict[str, np.ndarray]:
    return {
        name: soundfile.read(DEMO / f"{name}.flac", dtype="float32")[0].T[:, : 12 * RATE]
        for name in ("separated", "truth", "song")
    }


@pytest.fixture(scope="module")
def dull(sounds: dict[str, np.ndarray]) -> np.ndarray:
    """The true stem with its highs cut off, which is no separator's mask."""
    return sosfiltfilt(butter(10, 7000.0, fs=RATE, output="sos"), sounds["truth"]).astype(np.float32)


def listen(choice: LiveChoice, stem: np.ndarray, song: np.ndarray | None, block: int) -> list[dict[str, float]]:
    """The choice after every block."""
    return [
        dict(choice.process(stem[:, s : s + block], None if song is None else song[:, s : s + block]).weights)
        for s in range(0, stem.shape[1], block)
    ]


def test_it_finds_what_the_analysis_of_the_file_finds(sounds: dict[str, np.ndarray], dull: np.ndarray) -> None:
    choice = LiveChoice(RATE, 2, has_mix=True)
    found = listen(choice, dull, sounds["song"], 512)
    analyser = Analyser(RATE, 2, has_mix=True)
    analyser.process(dull, sounds["song"])
    analysis = analyser.finish()
    clear = {finding.kind for finding in analysis.found if finding.strength > 0.1}
    assert clear
    assert clear <= found[-1].keys()
    scores = dict(zip(TYPES, choice.scores, strict=True))
    for finding in analysis.findings:
        assert scores[finding.kind] == pytest.approx(finding.score, abs=0.1)
    assert found[0] == {}, "nothing is chosen before enough was heard"
    changes = sum(a != b for a, b in itertools.pairwise(found))
    assert changes <= 3, "slowly"


def test_a_separators_stem_asks_for_no_adapters_until_something_else_comes(
    sounds: dict[str, np.ndarray], dull: np.ndarray
) -> None:
    config = ChoiceConfig(memory_s=2.0, first_s=1.0, hold_s=1.0)
    choice = LiveChoice(RATE, 2, has_mix=True, config=config)
    assert listen(choice, sounds["separated"][:, : 6 * RATE], sounds["song"][:, : 6 * RATE], 4096)[-1] == {}
    assert choice.present.is_separated
    listen(choice, dull, sounds["song"], 4096)
    assert not choice.present.is_separated
    assert "dull-highs" in choice.present.weights
    without = LiveChoice(RATE, 2, config=config)
    listen(without, sounds["separated"], None, 4096)
    assert not without.present.is_separated, "nobody knows without the song"


def test_a_clean_stem_asks_for_nothing(sounds: dict[str, np.ndarray]) -> None:
    assert listen(LiveChoice(RATE, 2, has_mix=True), sounds["truth"], sounds["song"], 4096)[-1] == {}


@pytest.mark.parametrize("block", [64, 1000, 44100])
def test_the_blocks_do_not_matter(sounds: dict[str, np.ndarray], dull: np.ndarray, block: int) -> None:
    stem, song = dull[:, : 6 * RATE], sounds["song"][:, : 6 * RATE]
    one, other = LiveChoice(RATE, 2, has_mix=True), LiveChoice(RATE, 2, has_mix=True)
    assert listen(one, stem, song, block)[-1] == listen(other, stem, song, 6 * RATE)[-1]
    assert one.scores == pytest.approx(other.scores, rel=1e-6)


def test_it_lets_go_later_than_it_takes_hold(sounds: dict[str, np.ndarray], dull: np.ndarray) -> None:
    """Faulty, then clean: the choice stands while the score falls to its release, and the pause does not count."""
    config = ChoiceConfig(memory_s=2.0, first_s=1.0, hold_s=1.0)
    choice = LiveChoice(RATE, 2, has_mix=True, config=config)
    listen(choice, dull[:, : 4 * RATE], sounds["song"][:, : 4 * RATE], 4096)
    before = dict(choice.present.weights)
    assert before
    listen(choice, np.zeros((2, 5 * RATE), np.float32), np.zeros((2, 5 * RATE), np.float32), 4096)
    kept = dict(choice.present.weights)
    listen(choice, sounds["truth"], sounds["song"], 4096)
    assert before.keys() <= kept.keys(), "the last sound before the pause may add to it"
    assert choice.present.weights == {}
