"""How many of our files a live block and a file pass through (docs/architecture.md walks both)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from bridges import Wire, running
from paths import DEMO, ROOT
from stemprover import Repairer, load_preset
from stemprover.bridge.osc import to_blob

#: Model input and output: what makes features, runs ONNX, and decides how far the correction is trusted.
MODEL = {
    "engine/detect/detectors.py", "engine/detect/measures.py", "engine/dsp/bands.py", "engine/dsp/latent.py",
    "engine/dsp/leakage.py", "engine/dsp/stft.py", "engine/features.py", "engine/runtime.py", "engine/sampler.py",
    "engine/threads.py", "engine/trust.py",
}  # fmt: skip


class Tracer:
    """The files of the package whose code ran while it was recording."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.recording = False

    def __call__(self, frame: object, event: str, argument: object) -> None:
        if self.recording and event == "call":
            path = Path(frame.f_code.co_filename)  # type: ignore[attr-defined]
            if path.is_relative_to(ROOT) and path.suffix == ".py" and not path.is_relative_to(ROOT / "tests"):
                name = path.relative_to(ROOT).as_posix()
                if not name.startswith("."):
                    self.files.add(name)


@contextmanager
def tracing() -> Iterator[Tracer]:
    tracer, before = Tracer(), sys.getprofile()
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    try:
        yield tracer
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]


def test_a_live_block_passes_through_few_files() -> None:
    rng = np.random.default_rng(0)
    with tracing() as tracer, running(Repairer, threads=1) as bridge, Wire(bridge.port) as wire:
        stream = wire.hello(rate=48000, block=2048, mix=2).arguments[2]
        bridge.call(lambda: bridge.registry.models.get(bridge.registry.general, "standard").result(30))
        for timer in (bridge._ticker, bridge._page._updates):  # these are on nobody's way
            bridge.call(timer.cancel)
        for number in range(40):
            tracer.recording = number >= 20  # the model runs, and there is nothing left to set up
            block = to_blob(0.1 * rng.standard_normal((4, 2048)).astype(np.float32))
            answer = wire.ask("/block", "iihiib", stream, number, 2048 * number, 2048, 1, block)
        tracer.recording = False
        assert answer.arguments[5] == 0, "repaired"
    assert {"bridge/server/transport.py", "engine/mixer.py", "engine/runtime.py"} <= tracer.files
    outside = sorted(tracer.files - MODEL)
    assert len(outside) <= 12, outside
    assert len(tracer.files) <= 23, sorted(tracer.files)


def test_a_file_passes_through_few_files(tmp_path: Path) -> None:
    from stemprover.offline.render import render_file

    paths = []
    for name in ("separated", "song"):
        audio, rate = soundfile.read(DEMO / f"{name}.flac", frames=66_150)
        paths.append(tmp_path / f"{name}.wav")
        soundfile.write(paths[-1], audio, rate, subtype="PCM_24")
    preset = load_preset("bleed")
    repairer = Repairer(preset, jobs=1)
    with tracing() as tracer:
        tracer.recording = True
        render_file(paths[0], tmp_path / "out.wav", repairer, mix=paths[1], preset=preset)
        tracer.recording = False
    assert {"offline/pair.py", "offline/render.py", "engine/mixer.py", "engine/runtime.py"} <= tracer.files
    engine = {name for name in tracer.files if name.startswith("engine/")}
    proof = {name for name in engine if name.startswith("engine/mix/")}
    assert len(tracer.files - engine) <= 11, sorted(tracer.files - engine)
    assert len(proof) <= 6, sorted(proof)
    assert len(engine - proof) <= 21, sorted(engine - proof)
