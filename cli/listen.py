"""`analyze`, `compare` and `validate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .options import (
    AlsoOption,
    Device,
    DeviceOption,
    JobsOption,
    OverwriteOption,
    PresetOption,
    Quality,
    check_range,
    needs_extra,
    parse_also,
)

if TYPE_CHECKING:
    from ..engine.preset import Preset


def analyze(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The stem to look at.")],
    mix: Annotated[
        Path | None,
        typer.Option(metavar="SONG", help="The song the stem was separated from. Tells much more."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="F", help="Write all figures here.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="F", help="Write a page to listen to and look at, in any browser.")
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="F", help="Draw what is where.")] = None,
    tempo: Annotated[
        float | None, typer.Option(metavar="BPM", help="Show bars (4/4) in the picture in place of minutes.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Show which artefacts a stem has, where, and which preset would help.

    \b
    stemprover analyze vocals.wav --mix song.wav --png vocals.png
    """
    from ..offline.analysis import align_song, analyse_file
    from ..offline.outfile import check_output
    from ..reports.analyze import write_json, write_page, write_picture
    from ..reports.terminal import file_progress, print_analysis, print_notes

    check_range("--tempo", tempo, 1, 1000)
    inputs = [file] if mix is None else [file, mix]
    for target in (json, html, png):
        if target is not None:
            check_output(target, inputs, overwrite=overwrite)
    alignment, notes = (None, list[str]()) if mix is None else align_song(file, mix)
    print_notes(file.name, notes)
    with file_progress(file.name) as progress:
        analysis = analyse_file(file, mix, alignment=alignment, progress=progress)
    if json is not None:
        write_json(analysis, file, mix, json, overwrite=overwrite)
    if html is not None:
        write_page(analysis, file, mix, html, overwrite=overwrite, tempo_bpm=tempo, alignment=alignment)
    if png is not None:
        write_picture(analysis, file, png, overwrite=overwrite, tempo_bpm=tempo)
    print_analysis(analysis, file)


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The stem as it was.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The stem after a repair.")],
    reference: Annotated[Path | None, typer.Option(metavar="TRUE", help="The true stem, if you have it.")] = None,
    mix: Annotated[Path | None, typer.Option(metavar="SONG", help="The song the stem was separated from.")] = None,
    also: AlsoOption = None,
    json: Annotated[Path | None, typer.Option(metavar="F", help="Write all figures here.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="F", help="Write a page to listen to and look at, in any browser.")
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="F", help="Draw the spectrograms.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure what a repair did: against the true stem, the song, and by the detectors.

    \b
    stemprover compare vocals.wav vocals-repaired.wav --mix song.wav
    """
    from ..offline.outfile import check_output
    from ..reports.compare import compare_files, write_json, write_page, write_picture
    from ..reports.terminal import file_progress, print_comparison

    inputs = [path for path in (before, after, reference, mix) if path is not None]
    for target in (json, html, png):
        if target is not None:
            check_output(target, inputs, overwrite=overwrite)
    extras = parse_also(also)
    with file_progress(before.name) as progress, needs_extra("metrics"):
        comparison = compare_files(before, after, reference, mix, also=extras, progress=progress)
    if json is not None:
        write_json(comparison, json, overwrite=overwrite)
    if html is not None:
        write_page(comparison, html, overwrite=overwrite)
    if png is not None:
        write_picture(comparison, png, overwrite=overwrite)
    print_comparison(comparison)


def validate(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Cases: folders with truth.wav, degraded.wav and, if there is, mix.wav."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the report and the worst cases' pictures.")
    ] = Path("validation"),
    preset: PresetOption = None,
    no_mix: Annotated[bool, typer.Option("--no-mix", help="Repair without the songs.")] = False,
    also: AlsoOption = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="Only SI-SDR, SDR, log-spectral distance and the detectors: much faster.")
    ] = False,
    quality: Annotated[Quality, typer.Option(help="How careful to be.")] = Quality.STANDARD,
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
) -> None:
    """Repair cases whose true stem is known, and say with certainty what that does to each type.

    A case may stand in a folder of its type: FOLDER/bleed/0001/truth.wav.
    """
    from ..offline.auto import AutoChoice
    from ..offline.batch import make_folder
    from ..reports.terminal import file_progress, print_validation
    from ..reports.validate import Case, find_cases
    from ..reports.validate import validate as run_validation
    from ..reports.validation_report import write_report

    check_range("--jobs", jobs, 1, 1024)
    extras = parse_also(also)
    cases = find_cases(folder)
    if no_mix:
        cases = [replace(case, mix=None) for case in cases]
    settings: dict[str, Any] = {"quality": quality.value, "device": device.value, "jobs": jobs}
    if preset == "auto":
        auto = AutoChoice(lambda found: options.make_repairer(found, **settings))

        def choose(case: Case) -> tuple[Any, Preset]:
            return auto(case.degraded, case.mix)
    else:
        chosen = options.choose_preset(preset, None)
        repairer = options.make_repairer(chosen, **settings)

        def choose(case: Case) -> tuple[Any, Preset]:
            return repairer, chosen

    make_folder(output)
    with file_progress(folder.name, sound=False) as progress, needs_extra("metrics"):
        results, excerpts = run_validation(cases, choose, also=extras, brief=brief, progress=progress)
    page = write_report(results, excerpts, output, folder.resolve().name)
    print_validation(results, page)
