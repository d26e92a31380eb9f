"""`stemprover demo`: repairs the shipped excerpt and shows, in sound, figures and a picture, what that did.

presets/demo holds a song, a stem that a real separator made of it, and the true stem that went into the song.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.errors import OutputExistsError, StemProverError
from ..engine.metrics.basic import log_spectral_distance, si_sdr
from ..engine.preset import SHIPPED, Preset
from ..offline.audiofile import AudioInfo, AudioReader, AudioWriter, probe, read_start
from ..offline.batch import make_folder
from ..offline.outfile import atomic_output
from ..offline.render import ChunkRepairer, Progress, RenderReport, render_file
from .compare import Row, comparison_body
from .page import make_page, paragraph
from .spectrogram import draw_spectrograms

DEMO = SHIPPED / "demo"
FILES = ("before.wav", "after.wav", "truth.wav", "spectrograms.png", "listen.html")
TITLE = "StemProver's demo"


@dataclass(frozen=True)
class DemoReport:
    """What the demo wrote, what was chosen and why, and how far the stem is from the true one before and after."""

    folder: Path
    chosen: str
    repair: RenderReport
    si_sdr_db: tuple[float, float]
    log_spectral_distance_db: tuple[float, float]


def run_demo(
    folder: Path, choose: Callable[[Path, Path], tuple[ChunkRepairer, Preset]], *, progress: Progress | None = None
) -> DemoReport:
    """Write before.wav, after.wav, truth.wav, spectrograms.png and listen.html into `folder` (made if need be; those of
    an earlier demo are replaced). `choose`: stem and song to repairer and preset, as `auto.AutoChoice` does.

    Raises StemProverError where the excerpt is missing, the folder cannot be written, or holds files of these names
    that are not a demo's.
    """
    sources = {name: DEMO / f"{name}.flac" for name in ("song", "separated", "truth")}
    for path in sources.values():
        if not path.is_file():
            raise StemProverError(f"{path}: the demo's excerpt is missing; install StemProver again")
    _check_own(folder)
    make_folder(folder)
    before_path, after_path, truth_path, picture_path, page_path = (folder / name for name in FILES)
    _write_page(page_path, [paragraph("This demo was stopped before its end; run it again.")])
    _copy_as_wav(sources["separated"], before_path)
    _copy_as_wav(sources["truth"], truth_path)
    repairer, preset = choose(before_path, sources["song"])
    report = render_file(
        before_path, after_path, repairer, mix=sources["song"], preset=preset, overwrite=True, progress=progress
    )
    before, after, truth = (read_start(path) for path in (before_path, after_path, truth_path))
    sample_rate = probe(before_path).sample_rate
    sounds = {"Separated": before, "Repaired": after, "True stem": truth}
    with atomic_output(picture_path, (), overwrite=True) as part:
        draw_spectrograms(sounds, sample_rate, part)
    ratios = si_sdr(before, truth), si_sdr(after, truth)
    distances = log_spectral_distance(before, truth), log_spectral_distance(after, truth)
    rows = Row("SI-SDR", "dB", "higher", *ratios), Row("Log-spectral distance", "dB", "lower", *distances)
    _write_page(page_path, comparison_body(sounds, sample_rate, rows))
    return DemoReport(folder, preset.note, report, ratios, distances)


def _check_own(folder: Path) -> None:
    """Raises OutputExistsError where what would be replaced is no demo's, which has its page."""
    there = [folder / name for name in FILES if (folder / name).exists()]
    page = folder / FILES[-1]
    if there and not (page.is_file() and html.escape(TITLE) in page.read_text("utf-8", "replace")):
        raise OutputExistsError(f"{there[0]}: is there already, and not from a demo; name another folder with -o")


def _write_page(path: Path, body: Sequence[str]) -> None:
    with atomic_output(path, (), overwrite=True) as part:
        part.write_text(make_page(TITLE, body), encoding="utf-8")


def _copy_as_wav(source: Path, target: Path) -> None:
    info: AudioInfo = probe(source)
    with (
        atomic_output(target, [source], overwrite=True) as part,
        AudioReader(info) as reader,
        AudioWriter(part, info, "WAV", info.subtype, strings_from=source) as writer,
    ):
        for native in reader.blocks():
            writer.write(native)
