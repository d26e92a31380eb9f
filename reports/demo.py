"""`stemprover demo`: repairs the bundled excerpt and shows the result as audio, figures and spectrograms.

presets/demo contains a mix, a stem that a real separator made from it, and the true stem that went into the mix.
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
from ..offline.outfile import atomic_output, make_folder
from ..offline.pair import StemAndMix
from ..offline.render import ChunkRepairer, Progress, RenderReport, render_pair
from .compare import Row, comparison_body
from .page import make_page, paragraph
from .spectrogram import draw_spectrograms

DEMO = SHIPPED / "demo"
FILES = ("before.wav", "after.wav", "truth.wav", "spectrograms.png", "listen.html")
TITLE = "StemProver's demo"


@dataclass(frozen=True)
class DemoReport:
    """The result of a demo. chosen: the preset, and why. The measures compare with the true stem, before and after."""

    folder: Path
    chosen: str
    repair: RenderReport
    si_sdr_db: tuple[float, float]
    log_spectral_distance_db: tuple[float, float]


def run_demo(
    folder: Path, choose: Callable[[StemAndMix], tuple[ChunkRepairer, Preset]], *, progress: Progress | None = None
) -> DemoReport:
    """Write before.wav, after.wav, truth.wav, spectrograms.png and listen.html into `folder`, created if needed.

    The files of an earlier demo are replaced. choose: returns repairer and preset for a pair, like `auto.AutoChoice`.
    Raises StemProverError if the bundled excerpt is missing, if the folder cannot be written, or if it contains files
    with these names that are not from a demo.
    """
    sources = {name: DEMO / f"{name}.flac" for name in ("song", "separated", "truth")}
    for path in sources.values():
        if not path.is_file():
            raise StemProverError(f"{path}: the bundled excerpt is missing; reinstall StemProver")
    _check_replaceable(folder)
    make_folder(folder)
    before_path, after_path, truth_path, figure_path, page_path = (folder / name for name in FILES)
    _write_page(page_path, [paragraph("This demo was stopped before it finished. Run it again.")])
    _copy_as_wav(sources["separated"], before_path)
    _copy_as_wav(sources["truth"], truth_path)
    pair = StemAndMix.open(before_path, sources["song"])
    repairer, preset = choose(pair)
    report = render_pair(pair, after_path, repairer, preset=preset, overwrite=True, progress=progress)
    before, after, truth = (read_start(path) for path in (before_path, after_path, truth_path))
    sample_rate = probe(before_path).sample_rate
    signals = {"Separated": before, "Repaired": after, "True stem": truth}
    with atomic_output(figure_path, (), overwrite=True) as part:
        draw_spectrograms(signals, sample_rate, part)
    ratios = si_sdr(before, truth), si_sdr(after, truth)
    distances = log_spectral_distance(before, truth), log_spectral_distance(after, truth)
    rows = Row("SI-SDR", "dB", "higher", *ratios), Row("Log-spectral distance", "dB", "lower", *distances)
    _write_page(page_path, comparison_body(signals, sample_rate, rows))
    return DemoReport(folder, preset.note, report, ratios, distances)


def _check_replaceable(folder: Path) -> None:
    """Raise OutputExistsError if files would be replaced that are not from a demo: a demo always has its page."""
    existing = [folder / name for name in FILES if (folder / name).exists()]
    page = folder / FILES[-1]
    if existing and not (page.is_file() and html.escape(TITLE) in page.read_text("utf-8", "replace")):
        raise OutputExistsError(f"{existing[0]} already exists and is not from a demo; choose another folder with -o")


def _write_page(path: Path, body: Sequence[str]) -> None:
    with atomic_output(path, (), overwrite=True) as part:
        part.write_text(make_page(TITLE, body), encoding="utf-8")


def _copy_as_wav(source: Path, target: Path) -> None:
    info: AudioInfo = probe(source)
    with (
        atomic_output(target, [source], overwrite=True) as part,
        AudioReader(info) as reader,
        AudioWriter(part, info, "WAV", info.subtype, strings_from=info) as writer,
    ):
        for native in reader.blocks():
            writer.write(native)
