"""`analyze`, `compare` and `validate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .options import (
    QUALITY_HELP,
    AlsoOption,
    Device,
    DeviceOption,
    JobsOption,
    OverwriteOption,
    PresetOption,
    Quality,
    check_range,
    flag,
    needs_extra,
    parse_also,
    read_pipes,
)

if TYPE_CHECKING:
    from ..offline.auto import RepairerChoice


def analyze(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The stem to analyze.")],
    mix: Annotated[
        Path | None,
        typer.Option(metavar="MIX", help="The mix the stem was separated from. Detects far more with it."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures to this file.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with audio and figures for the browser.")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw when and at which frequencies the artefacts are."),
    ] = None,
    tempo: Annotated[
        float | None,
        typer.Option(metavar="BPM", help="Show bars (4/4) in --png and --html, not minutes."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Show which artefacts a stem has, where they are, and which preset would help.

    \b
    stemprover analyze vocals.wav --mix song.wav --png vocals.png
    """
    from ..offline.analysis import analyse_pair
    from ..offline.outfile import check_output
    from ..offline.pair import StemAndMix
    from ..reports.analyze import write_figure, write_json, write_page
    from ..reports.tables import print_analysis
    from ..reports.terminal import file_progress, print_notes

    check_range("--tempo", tempo, 1, 1000)
    inputs = [file] if mix is None else [file, mix]
    for target in (json, html, png):
        if target is not None:
            check_output(target, inputs, overwrite=overwrite)
    piped = read_pipes(context, *inputs)
    pair = StemAndMix.open(piped.get(file, file), piped.get(mix, mix))
    print_notes(file.name, (*pair.stem.notes, *pair.notes))
    with file_progress(file.name) as progress:
        analysis = analyse_pair(pair, progress=progress)
    if json is not None:
        write_json(analysis, file, mix, json, overwrite=overwrite)
    if html is not None:
        write_page(analysis, pair, html, overwrite=overwrite, tempo_bpm=tempo)
    if png is not None:
        write_figure(analysis, file, png, overwrite=overwrite, tempo_bpm=tempo)
    print_analysis(analysis, file, mix)


def compare(
    context: typer.Context,
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The stem before the repair.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The stem after the repair.")],
    reference: Annotated[Path | None, typer.Option(metavar="TRUE", help="The true stem, if you have it.")] = None,
    mix: Annotated[Path | None, typer.Option(metavar="MIX", help="The mix the stem was separated from.")] = None,
    also: AlsoOption = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures to this file.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with audio and figures for the browser.")
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the spectrograms.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure what a repair did, with the true stem, the mix and the artefact detectors.

    \b
    stemprover compare vocals.wav vocals-repaired.wav --mix song.wav
    """
    from ..offline.outfile import check_output
    from ..reports.compare import compare_files, write_figure, write_json, write_page
    from ..reports.tables import print_comparison
    from ..reports.terminal import file_progress

    inputs = [path for path in (before, after, reference, mix) if path is not None]
    for target in (json, html, png):
        if target is not None:
            check_output(target, inputs, overwrite=overwrite)
    extras = parse_also(also)
    piped = read_pipes(context, *inputs)
    before, after = piped.get(before, before), piped.get(after, after)
    reference, mix = piped.get(reference, reference), piped.get(mix, mix)
    with file_progress(before.name) as progress, needs_extra("metrics"):
        comparison = compare_files(before, after, reference, mix, also=extras, progress=progress)
    if json is not None:
        write_json(comparison, json, overwrite=overwrite)
    if html is not None:
        write_page(comparison, html, overwrite=overwrite)
    if png is not None:
        write_figure(comparison, png, overwrite=overwrite)
    print_comparison(comparison)


def validate(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Cases: folders with truth.wav, degraded.wav and (optional) mix.wav."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the report and the pictures."),
    ] = Path("validation"),
    preset: PresetOption = None,
    no_mix: Annotated[bool, flag("--no-mix", help="Repair without the mixes.")] = False,
    also: AlsoOption = None,
    brief: Annotated[
        bool,
        flag("--brief", help="Only SI-SDR, SDR, log-spectral distance and detectors: much faster."),
    ] = False,
    quality: Annotated[Quality, typer.Option(help=QUALITY_HELP)] = Quality.STANDARD,
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
) -> None:
    """Repair cases whose true stem is known, and measure how much better each type of artefact gets.

    Sort cases into folders by type, if you like: FOLDER/bleed/0001/truth.wav.

    The default preset is general, with or without mixes.
    """
    from ..offline.auto import AutoChoice
    from ..offline.outfile import make_folder
    from ..reports.tables import print_validation
    from ..reports.terminal import file_progress
    from ..reports.validate import find_cases
    from ..reports.validate import validate as run_validation
    from ..reports.validation_report import write_report

    check_range("--jobs", jobs, 1, 1024)
    extras = parse_also(also)
    cases = find_cases(folder)
    if no_mix:
        cases = [replace(case, mix=None) for case in cases]
    settings: dict[str, Any] = {"quality": quality.value, "device": device.value, "jobs": jobs}
    choice: RepairerChoice
    if preset == "auto":
        choice = AutoChoice(lambda chosen: options.make_repairer(chosen, **settings))
    else:
        chosen = options.choose_preset(preset, None)
        choice = (options.make_repairer(chosen, **settings), chosen)
    make_folder(output)
    with file_progress(folder.name, show_speed=False) as progress, needs_extra("metrics"):
        results, excerpts = run_validation(cases, choice, also=extras, brief=brief, progress=progress)
    page = write_report(results, excerpts, output, folder.resolve().name)
    print_validation(results, page)
