"""The editor, drawn under Xvfb while sound goes through it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from bridges import running
from fakes import FakeModelRepairer
from hosts import needs


@pytest.fixture
def display() -> Iterator[str]:
    needs(shutil.which("Xvfb") is not None, "Xvfb")
    name = f":{100 + os.getpid() % 800}"
    with subprocess.Popen(["Xvfb", name], stderr=subprocess.DEVNULL) as server:
        time.sleep(1.0)
        yield name
        server.terminate()


def test_it_shows_what_happens_and_the_keyboard_reaches_it(
    vst3: Path, display: str, plugin_environment: Callable[..., None], tmp_path: Path
) -> None:
    program = vst3.with_name("StemProverPicture")
    needs(program.is_file(), "StemProverPicture")
    rng = np.random.default_rng(0)
    (0.1 * rng.standard_normal((44100, 4))).astype("<f4").tofile(tmp_path / "sound.raw")
    with running(FakeModelRepairer({"blend": 1.0, "general": 1.0})) as bridge:
        plugin_environment(bridge.port)
        shown = subprocess.run(
            [program, "sound.raw", "editor.png", "blend"], env={**os.environ, "DISPLAY": display}, cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    controls = re.findall(r'control "(.*)" keyboard (\d) inside (\d)', shown.stdout)
    assert len(controls) == 24, "twelve controls, in the first size and in the smallest"
    assert all(name and inside == "1" for name, _, inside in controls), "each is named, and none is cut off"
    assert all(reached == "1" for _, reached, _ in controls), controls
    picture = matplotlib.image.imread(tmp_path / "editor.png")
    assert picture.shape[:2] == (720, 1020)
    green = (picture[..., 1] > 0.7) & (picture[..., 0] < 0.4) & (picture[..., 2] < 0.4)
    assert green.any(), "the lamp says connected"
    blue = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.4)
    assert blue[340:600].any(axis=0).mean() > 0.8, "a spectrum is drawn"
