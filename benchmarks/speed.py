"""`stemprover bench`: speed and memory, as ratios in one run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

from ..engine.adapters import active_adapters, merge_adapters
from ..engine.bundle import Bundle, base_bundle
from ..engine.constants import MODEL_RATE
from ..engine.detect.bank import Detectors
from ..engine.dsp.stft import Stft
from ..engine.preset import list_presets
from ..engine.repair import QUALITY_STEPS, Repairer
from ..engine.runtime import Runtime
from ..engine.stream import DeltaStream
from ..reports.demo import DEMO

FIRST_BLOCK = """
import numpy as np
from stemprover import Repairer, load_preset
repairer = Repairer(load_preset("general"), device={device!r})
stream = repairer.stream(44100, 2)
block = np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)
fed = 0
while fed <= stream.latency_samples:
    out = stream.process(block)
    fed += 512
assert np.isfinite(out).all()
"""

PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def excerpt(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """The demo's stem and song (2, T), repeated to a length."""
    count = round(seconds * MODEL_RATE)
    sounds = [soundfile.read(DEMO / f"{name}.flac", dtype="float32")[0].T for name in ("separated", "song")]
    return tuple(np.tile(s, (1, -(-count // s.shape[1])))[:, :count] for s in sounds)  # type: ignore[return-value]


def seconds_of(work: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of some runs, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def real_time_factors(device: str, seconds: float) -> list[tuple[str, int, float]]:
    """(quality, cores, processing time / duration) with the mixture given."""
    stem, mix = excerpt(seconds)
    found = []
    for quality in QUALITY_STEPS:
        for cores in (1, 2):
            repairer = Repairer(quality=quality, device=device, jobs=cores)
            took = seconds_of(lambda r=repairer: r.process(stem, MODEL_RATE, mix), 1)  # type: ignore[misc]
            found.append((quality, cores, took / seconds))
    return found


def control_savings(device: str, seconds: float) -> list[tuple[int, float]]:
    """(steps, time with the control branch recomputed for each step / time with it cached)."""
    runtime = Runtime(Bundle.load(base_bundle()), device=device)
    stem, mix = (sound[None, :, : round(seconds * MODEL_RATE) // 512 * 512] for sound in excerpt(seconds))
    found = []
    for steps in (1, 2, 4, 8):
        times = []
        for recompute in (False, True):
            stream = DeltaStream(runtime, steps, recompute)
            times.append(seconds_of(lambda s=stream: s.process(stem, mix, s.start(1))))  # type: ignore[misc]
        found.append((steps, times[1] / times[0]))
    return found


def detector_costs(seconds: float) -> list[tuple[int, float]]:
    """(frames at a time, processing time / duration) of the detectors with the song, from spectra to severities, on one
    core."""
    detectors, stft = Detectors(), Stft()
    stem, mix = (
        stft.analysis(sound[:, : sound.shape[1] // 512 * 512], stft.start_analysis(2))[0] for sound in excerpt(seconds)
    )

    def listen(size: int) -> None:
        state = detectors.start()
        for start in range(0, stem.shape[-1], size):
            part = slice(start, start + size)
            _, state = detectors(stem[..., part], mix[..., part], state)

    return [(size, seconds_of(lambda s=size: listen(s)) / seconds) for size in (4, 32, 512)]  # type: ignore[misc]


def blend_costs(device: str) -> list[tuple[int, float, float]]:
    """(adapters, seconds to merge them into the graphs, seconds to a model that is ready) for one and for all of the
    presets that are trained."""
    bundle = Bundle.load(base_bundle())
    files = [file for preset in list_presets() if preset.is_shipped and preset.trained for file in preset.adapters]
    found = []
    for count in sorted({1, len(files)} if files else ()):
        blend = dict.fromkeys(files[:count], 1.0 / count)
        merge = seconds_of(lambda b=blend: merge_adapters(bundle, active_adapters(b)))  # type: ignore[misc]
        found.append((count, merge, seconds_of(lambda b=blend: Repairer(blend=b, device=device))))  # type: ignore[misc]
    return found


def start_up(device: str) -> float:
    """Seconds from the start of a process to its first repaired block."""
    program = [sys.executable, "-c", FIRST_BLOCK.format(device=device)]
    return seconds_of(lambda: subprocess.run(program, check=True, env=_environment()))


def peak_memory(minutes: float, folder: Path, device: str) -> tuple[float, float]:
    """(peak resident memory in MB, processing time / duration) of `stemprover repair` on a stereo file of that
    length."""
    stem, mix = excerpt(60.0)
    for name, sound in (("stem", stem), ("mix", mix)):
        with soundfile.SoundFile(folder / f"{name}.wav", "w", MODEL_RATE, 2, "PCM_16") as file:
            for _ in range(int(minutes)):
                file.write(sound.T)
    out = folder / "out.wav"
    program = [
        *(sys.executable, "-m", "stemprover", "repair", str(folder / "stem.wav"), "-o", str(out), "--overwrite"),
        *("--mix", str(folder / "mix.wav"), "--quality", "draft", "--device", device),
    ]
    # By way of a small process: a child's peak starts at that of the process that it was forked from.
    start = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", PEAK, *program], check=True, env=_environment(), stdout=subprocess.PIPE, text=True
    )
    took = time.perf_counter() - start
    out.unlink()
    return int(found.stdout) / (2**20 if sys.platform == "darwin" else 2**10), took / (60 * minutes)


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "80"}


def run(device: str = "auto", quick: bool = False) -> None:
    """Measure and print. `quick`: shorter sounds, memory of 1 and 5 minutes alone."""
    console = Console()
    seconds = 20.0 if quick else 60.0
    table = Table(
        "quality", "steps", "1 core", "2 cores", title="Real-time factor (time / duration, stereo, with mixture)"
    )
    factors = {(quality, cores): value for quality, cores, value in real_time_factors(device, seconds)}
    for quality, steps in QUALITY_STEPS.items():
        table.add_row(quality, str(steps), *(f"{factors[quality, cores]:.3f}" for cores in (1, 2)))
    console.print(table)
    table = Table("steps", "recomputed / cached", title="Control branch: recomputed for each step against cached")
    for steps, ratio in control_savings(device, 10.0):
        table.add_row(str(steps), f"{ratio:.2f}")
    console.print(table)
    table = Table("frames at a time", "real-time factor", title="Detectors (stereo, with the song)")
    for size, factor in detector_costs(10.0):
        table.add_row(str(size), f"{factor:.4f}")
    console.print(table)
    table = Table("adapters", "merged after", "model ready after", title="A blend")
    for adapters, merged, ready in blend_costs(device):
        table.add_row(str(adapters), f"{merged:.3f} s", f"{ready:.3f} s")
    console.print(table)
    console.print(f"Start of the process to the first repaired block: {start_up(device):.2f} s")
    table = Table(
        "minutes of stereo", "peak memory", "against 5 minutes", "real-time factor", title="stemprover repair, draft"
    )
    with tempfile.TemporaryDirectory(prefix="stemprover-bench-") as folder:
        lengths = (1, 5) if quick else (1, 5, 60)
        found = {minutes: peak_memory(minutes, Path(folder), device) for minutes in lengths}
    for minutes, (megabytes, factor) in found.items():
        table.add_row(str(minutes), f"{megabytes:.0f} MB", f"{megabytes / found[5][0]:.2f}", f"{factor:.3f}")
    console.print(table)
