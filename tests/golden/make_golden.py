"""Golden values of repairs: every preset that has an adapter of its own, blends, auto, streams, a bridge and an export.

    python tests/golden/make_golden.py            # write golden.npz, after an intended change of the output
    python tests/golden/make_golden.py --check    # compare with it; bit for bit on the machine that wrote it

A repair is stored as its correction (output minus input), projected onto a fixed random sign in each block of
BLOCK samples, and as a SHA-256 of the output. The projections hold on any machine to TOLERANCE of the correction's
level; the hashes hold where ONNX Runtime and BLAS run the same instructions.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # before NumPy is imported: threads change the order of its sums
)

import numpy as np
import soundfile

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
ROOT = HERE.parents[1]
FILE = HERE / "golden.npz"
BLOCK = 1024
TOLERANCE = 1e-3  # of the root mean square of the projections; other CPUs differ by about 1e-5
BLENDS = ({"bleed": 0.6, "musical-noise": 0.4}, {"dull-highs": 1.0, "phasiness": 0.5, "smeared-transients": 1.2})
SECONDS, AUTO_SECONDS = 1.2, 2.5  # of the demo; auto has to hear more
ODD_BLOCKS = (1, 63, 480, 8193, 2048, 7)


def excerpt(rate: int = 44100, seconds: float = SECONDS) -> tuple[np.ndarray, np.ndarray]:
    """Stem and mix (2, T) of the demo, at 44.1 kHz or resampled to another rate."""
    frames = round(seconds * 44100)
    signals = [
        soundfile.read(ROOT / "presets" / "demo" / f"{name}.flac", frames=frames, start=88_200, dtype="float32")[0].T
        for name in ("separated", "song")
    ]
    if rate != 44100:
        import soxr

        signals = [soxr.resample(signal.T, 44100, rate).T.astype(np.float32) for signal in signals]
    return signals[0], signals[1]


def synthetic(kind: str, channels: int, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Stem and mix (C, T): chords with leaked noise, bursts without highs, or a vibrato with random phases."""
    rng = np.random.default_rng([channels, len(kind)])
    t = np.arange(round(0.9 * rate)) / rate
    pan = rng.uniform(0.4, 1.0, (channels, 1))
    noise = rng.standard_normal((channels, len(t)))
    if kind == "chords":
        stem = 0.1 * pan * sum(np.sin(2 * np.pi * f * t * (1 + n % 3)) for n, f in enumerate((220.0, 277.2, 329.6)))
        rest = 0.05 * noise
        return (stem + 0.15 * rest).astype(np.float32), (stem + rest).astype(np.float32)
    if kind == "bursts":
        envelope = np.exp(-((t * 2.7) % 1.0) * 9.0)
        true = 0.2 * envelope * noise
        spectrum = np.fft.rfft(true)
        spectrum[:, round(7000 * len(t) / rate) :] *= 0.01
        rest = 0.1 * pan[::-1] * np.sin(2 * np.pi * 110.0 * t)
        return np.fft.irfft(spectrum, len(t)).astype(np.float32), (true + rest).astype(np.float32)
    sung = sum(np.sin(2 * np.pi * 196.0 * n * t + 0.9 * n * np.sin(2 * np.pi * 5.5 * t)) / n for n in range(1, 30))
    true = 0.08 * pan * sung
    broken = np.fft.rfft(true)
    broken *= np.exp(1j * 0.8 * rng.standard_normal(broken.shape))
    rest = 0.08 * np.cumsum(noise, axis=1) / np.sqrt(rate / 20)
    stem = np.fft.irfft(broken, len(t))
    stem[:, len(t) // 2 : len(t) // 2 + rate // 5] = 0.0
    return stem.astype(np.float32), (true + rest).astype(np.float32)


def process(
    signals: tuple[np.ndarray, np.ndarray], rate: int, preset: str | dict[str, float], mix: bool, **options: object
) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of Repairer.process."""
    from stemprover import Repairer, blend_presets, load_preset

    chosen = blend_presets(preset) if isinstance(preset, dict) else load_preset(preset)
    repairer = Repairer(chosen, **options)  # type: ignore[arg-type]
    return signals[0], repairer.process(signals[0], rate, signals[1] if mix else None)


def streamed(rate: int, preset: str, mix: bool) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of a live stream with odd block sizes, aligned."""
    from stemprover import Repairer, load_preset

    stem, mix_audio = excerpt(rate)
    stream = Repairer(load_preset(preset)).stream(rate, len(stem), has_mix=mix)
    out, at, number = [], 0, 0
    while at < stem.shape[1]:
        part = slice(at, at + ODD_BLOCKS[number % len(ODD_BLOCKS)])
        out.append(stream.process(stem[:, part], mix_audio[:, part] if mix else None))
        at, number = part.stop, number + 1
    joined = np.concatenate([*out, stream.flush()], axis=1)
    return stem, joined[:, stream.latency_samples :]


def command(signals: tuple[np.ndarray, np.ndarray], rate: int, *options: str) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of `stemprover repair` on float files, with auto unless the options say otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        stem, mix, out = (Path(folder) / f"{name}.wav" for name in ("stem", "mix", "out"))
        for path, signal in ((stem, signals[0]), (mix, signals[1])):
            soundfile.write(path, signal.T, rate, subtype="FLOAT")
        run = [sys.executable, "-m", "stemprover", "repair", stem, "-o", out, "--mix", mix, "--jobs", "1", *options]
        subprocess.run(run, check=True, capture_output=True)
        return signals[0], soundfile.read(out, dtype="float32")[0].T


@contextmanager
def serving() -> Iterator[int]:
    """Runs a bridge in its own process; yields its port."""
    run = [sys.executable, "-m", "stemprover", "serve", "--port", "0", "--http-port", "0"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"OSC 127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found
            yield int(found[1])
        finally:
            process.terminate()


def bridged(rate: int, preset: str) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of a stream through a bridge that waits for every repair, aligned."""
    from stemprover.bridge import Client

    stem, mix = excerpt(rate)
    with serving() as port, Client(rate, 2, 2, port=port) as client:
        client.set_check_mix(False)
        client.select(preset)
        out = [
            client.process(stem[:, at : at + 700], mix[:, at : at + 700], offline=True)
            for at in range(0, stem.shape[1], 700)
        ]
        joined = np.concatenate([*out, client.flush()], axis=1)
        return stem, joined[:, client.latency_samples :]


def exported() -> tuple[np.ndarray, np.ndarray]:
    """Input and output of a small random network that was exported to ONNX."""
    from models import lively_net
    from stemprover import Repairer
    from stemprover.export.bundle import write_bundle

    stem, mix = synthetic("chords", 2, 44100)
    with tempfile.TemporaryDirectory() as folder:
        assert write_bundle(lively_net(), np.linspace(0.5, 2.0, 84).astype(np.float32), Path(folder)).ok
        return stem, Repairer(bundle=Path(folder)).process(stem, 44100, mix)


def trained_presets() -> list[str]:
    """General, and the presets with an adapter that changes something: the others repair as general does."""
    from stemprover.engine.adapters import active_adapters
    from stemprover.engine.preset import SHIPPED, load_preset

    names = sorted(path.parent.name for path in SHIPPED.glob("*/preset.toml"))
    return [name for name in names if name == "general" or active_adapters(load_preset(name).adapters)]


def cases() -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """Name of each case to a function that returns its input and output."""
    found: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {}
    for preset in trained_presets():
        for mix in (True, False):
            name = f"{preset}, {'with' if mix else 'without'} mix"
            found[f"demo, {name}"] = partial(lambda p, m: process(excerpt(), 44100, p, m), preset, mix)
        for kind, channels, rate in (("chords", 1, 44100), ("bursts", 2, 48000), ("vibrato", 6, 44100)):
            make = partial(lambda k, c, r, p: process(synthetic(k, c, r), r, p, True), kind, channels, rate, preset)
            found[f"{kind}, {channels} channels, {rate} Hz, {preset}"] = make
    for number, blend in enumerate(BLENDS):
        found[f"demo, blend {number}"] = partial(lambda b: process(excerpt(), 44100, b, True), blend)
    found["demo, separated"] = lambda: process(excerpt(), 44100, "general", True, separated=True)
    found["demo, two steps, half wet"] = lambda: process(excerpt(), 44100, "bleed", True, quality="best", wet=0.5)
    found["vibrato, 6 channels, two by two"] = lambda: process(
        synthetic("vibrato", 6, 44100), 44100, "bleed", True, linked=False
    )
    found["demo, no gate"] = lambda: process(excerpt(), 44100, "general", True, restrained=False)
    found["demo, auto"] = lambda: command(excerpt(seconds=AUTO_SECONDS), 44100)
    for kind, channels, rate in (("chords", 1, 44100), ("bursts", 2, 48000), ("vibrato", 2, 44100)):
        found[f"{kind}, auto"] = partial(lambda k, c, r: command(synthetic(k, c, r), r), kind, channels, rate)
    found["demo, 48 kHz file, bleed"] = lambda: command(excerpt(48000), 48000, "--preset", "bleed")
    found["stream, 44.1 kHz"] = lambda: streamed(44100, "bleed", True)
    found["stream, 48 kHz"] = lambda: streamed(48000, "musical-noise", True)
    found["stream, 48 kHz, without mix"] = lambda: streamed(48000, "general", False)
    found["bridge, 48 kHz"] = lambda: bridged(48000, "bleed")
    found["exported"] = exported
    return found


def projections(audio: np.ndarray) -> np.ndarray:
    """Audio (C, T) to one number per channel and block (C, ceil(T / BLOCK)): its inner product with random signs."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], BLOCK)
    padded = np.pad(audio.astype(np.float64), ((0, 0), (0, -audio.shape[1] % BLOCK)))
    found: np.ndarray = padded.reshape(len(audio), -1, BLOCK) @ signs
    return found


def digest(audio: np.ndarray) -> str:
    """SHA-256 of the samples."""
    return hashlib.sha256(np.ascontiguousarray(audio, "<f4").tobytes()).hexdigest()


def difference(before: np.ndarray, after: np.ndarray, golden: np.ndarray) -> float:
    """The largest difference of a correction from its golden value, relative to the golden value's level."""
    found = projections(after - before)
    assert found.shape == golden.shape, f"{found.shape} instead of {golden.shape}"
    level = float(np.sqrt(np.mean(np.square(golden, dtype=np.float64))))
    return float(np.abs(found - golden).max()) / max(level, 1e-6)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with golden.npz instead of writing it")
    arguments = parser.parse_args()
    made: dict[str, np.ndarray] = {}
    golden = dict(np.load(FILE)) if arguments.check else {}
    wrong = 0
    for name, make in cases().items():
        before, after = make()
        code = digest(after)
        if arguments.check:
            error, same = difference(before, after, golden[name]), code == str(golden[f"{name}, sha256"])
            wrong += not same
            print(f"{'same' if same else f'differs by {error:.1e}':20} {name}", flush=True)
        else:
            made[name] = projections(after - before).astype(np.float32)
            made[f"{name}, sha256"] = np.array(code)
            print(f"{np.abs(after - before).max():.4f} {name}", flush=True)
    if arguments.check:
        sys.exit(f"{wrong} cases differ" if wrong else 0)
    np.savez_compressed(FILE, **made)


if __name__ == "__main__":
    main()
