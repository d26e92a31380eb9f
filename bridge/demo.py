"""`stemprover demo`: repairs the shipped excerpt and shows, in sound, figures and a picture, what that did.

presets/demo holds a song, a stem that a real separator made of it, and the true stem that went into the song.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine.errors import StemProverError
from ..engine.metrics import log_spectral_distance, si_sdr
from .audiofile import AudioInfo, AudioReader, AudioWriter, probe
from .outfile import atomic_output
from .plan import make_folder
from .presets import SHIPPED, Preset
from .render import ChunkRepairer, Progress, RenderReport, render_file

DEMO = SHIPPED / "demo"
FILES = ("before.wav", "after.wav", "truth.wav", "spectrograms.png")
_FLOOR_DB = -80.0
_WINDOW_SAMPLES = 2048
_HOP_SAMPLES = 512


@dataclass(frozen=True)
class DemoReport:
    """What the demo wrote, and how far the stem is from the true one before and after."""

    folder: Path
    repair: RenderReport
    si_sdr_db: tuple[float, float]
    log_spectral_distance_db: tuple[float, float]


def run_demo(folder: Path, repairer: ChunkRepairer, preset: Preset, *, progress: Progress | None = None) -> DemoReport:
    """Write before.wav, after.wav, truth.wav and spectrograms.png into `folder` (made if need be, replaced if there).

    Raises StemProverError where the excerpt is missing, or the folder cannot be written.
    """
    sources = {name: DEMO / f"{name}.flac" for name in ("song", "separated", "truth")}
    for path in sources.values():
        if not path.is_file():
            raise StemProverError(f"{path}: the demo's excerpt is missing; install StemProver again")
    make_folder(folder)
    before_path, after_path, truth_path, picture_path = (folder / name for name in FILES)
    _copy_as_wav(sources["separated"], before_path)
    _copy_as_wav(sources["truth"], truth_path)
    report = render_file(
        before_path, after_path, repairer, mix=sources["song"], preset=preset, overwrite=True, progress=progress
    )
    before, after, truth = (read_whole(path) for path in (before_path, after_path, truth_path))
    sample_rate = probe(before_path).sample_rate
    with atomic_output(picture_path, (), overwrite=True) as part:
        draw_spectrograms({"Separated": before, "Repaired": after, "True stem": truth}, sample_rate, part)
    return DemoReport(
        folder,
        report,
        (si_sdr(before, truth), si_sdr(after, truth)),
        (log_spectral_distance(before, truth), log_spectral_distance(after, truth)),
    )


def read_whole(path: Path) -> np.ndarray:
    """A short file as float32 (C, T). Raises AudioFileError."""
    with AudioReader(probe(path)) as reader:
        return np.concatenate([reader.codec.decode(block) for block in reader.blocks()], axis=1)


def _copy_as_wav(source: Path, target: Path) -> None:
    info: AudioInfo = probe(source)
    with (
        atomic_output(target, [source], overwrite=True) as part,
        AudioReader(info) as reader,
        AudioWriter(part, info, "WAV", info.subtype, strings_from=source) as writer,
    ):
        for native in reader.blocks():
            writer.write(native)


def draw_spectrograms(sounds: dict[str, np.ndarray], sample_rate: int, path: Path) -> None:
    """Spectrograms of sounds (C, T), made mono, one above the other on one colour scale, as a PNG. Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

    levels_db = {name: _level_db(sound.mean(axis=0)) for name, sound in sounds.items()}
    top_db = max(float(level.max()) for level in levels_db.values())
    figure = Figure(figsize=(12, 3.1 * len(sounds) + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(sounds), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (name, level) in zip(axes, levels_db.items(), strict=True):
        seconds = level.shape[1] * _HOP_SAMPLES / sample_rate
        image = axis.imshow(
            level - top_db, extent=(0, seconds, 0, sample_rate / 2000), vmin=_FLOOR_DB, vmax=0,
            origin="lower", aspect="auto", cmap="magma", interpolation="nearest",
        )  # fmt: skip
        axis.set_title(name, loc="left", fontsize=13, fontweight="bold")
        axis.set_ylabel("Frequency (kHz)", fontsize=11)
        axis.yaxis.set_major_locator(MultipleLocator(5))
    axes[-1].set_xlabel("Time (s)", fontsize=11)
    figure.colorbar(image, ax=list(axes), label="Level below the loudest point (dB)", pad=0.01)
    figure.savefig(path, format="png")


def _level_db(mono: np.ndarray) -> np.ndarray:
    """Mono (T,) to levels in dB (F, N), Hann window."""
    padded = np.pad(mono, (0, max(0, _WINDOW_SAMPLES - len(mono))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW_SAMPLES)[::_HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW_SAMPLES), axis=1)) ** 2
    return 10 * np.log10(power.T + 1e-12)
