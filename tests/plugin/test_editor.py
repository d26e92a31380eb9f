"""The editor, drawn under Xvfb while audio is playing."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from bridges import running
from fakes import FakeModelRepairer
from hosts import needs
from stemprover.benchmarks.xvfb import x_server


@pytest.fixture
def display() -> Iterator[str]:
    needs(shutil.which("Xvfb") is not None, "Xvfb")
    with x_server() as name:
        yield name


def test_the_editor_shows_the_connection_and_spectrum_and_works_by_keyboard(
    vst3: Path, display: str, plugin_environment: Callable[..., None], tmp_path: Path
) -> None:
    program = vst3.with_name("StemProverPicture")
    needs(program.is_file(), "StemProverPicture")
    rng = np.random.default_rng(0)
    (0.1 * rng.standard_normal((44100, 4))).astype("<f4").tofile(tmp_path / "audio.raw")
    with running(FakeModelRepairer({"blend": 1.0, "general": 1.0})) as bridge:
        plugin_environment(bridge.port)
        shown = subprocess.run(
            [program, "audio.raw", "editor.png", "blend"], env={**os.environ, "DISPLAY": display}, cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    controls = re.findall(r'control "(.*)" at (\d+) (\d+) (\d+) (\d+) of (\d+) (\d+)', shown.stdout)
    assert len(controls) == 26, "thirteen controls, in the default size and in the smallest"
    for size in (controls[:13], controls[13:]):
        assert len({name for name, *_ in size} - {""}) == 13, "each has a unique name"
        boxes = [tuple(map(int, numbers)) for _, *numbers in size]
        for x, y, width, height, *whole in boxes:
            assert width >= 40, size
            assert height >= 20, size
            assert x + width <= whole[0], "none is cut off"
            assert y + height <= whole[1]
        for (x, y, width, height, *_), (x2, y2, width2, height2, *_) in itertools.combinations(boxes, 2):
            assert x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y, "no two overlap"
    order = re.findall(r'tab "(.*)"', shown.stdout)
    assert set(order) == {name for name, *_ in controls[:13]}, "the tab key reaches each of them"
    picture = matplotlib.image.imread(tmp_path / "editor.png")
    assert picture.shape[:2] == (768, 1020)
    green = (picture[..., 1] > 0.7) & (picture[..., 0] < 0.4) & (picture[..., 2] < 0.4)
    assert green.any(), "the lamp is green: connected"
    blue = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.4)
    assert blue[388:608].any(axis=0).mean() > 0.8, "the spectrum is drawn above its lower edge"
