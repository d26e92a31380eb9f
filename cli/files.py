"""`repair` and `demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.errors import OptionError
from . import options
from .options import (
    QUALITY_HELP,
    Device,
    DeviceOption,
    JobsOption,
    OverwriteOption,
    Quality,
    check_range,
    flag,
    preset_option,
)

if TYPE_CHECKING:
    from ..offline.auto import RepairerChoice


def repair(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN", help="Stems to repair: files, or folders of files.")],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="OUT", help="The repaired file; for several files or a folder, an output folder."
        ),
    ],
    mix: Annotated[
        Path | None,
        typer.Option(metavar="MIX", help="The mix the stems were separated from. Makes the repair much better."),
    ] = None,
    rest: Annotated[
        Path | None,
        typer.Option(metavar="REST", help="In place of --mix, the song without this stem, such as an instrumental."),
    ] = None,
    preset: Annotated[str | None, preset_option("auto with a mix, else general")] = None,
    blend: Annotated[
        str | None,
        typer.Option(metavar="NAME=WEIGHT,...", help="Several presets at once, such as bleed=0.6,musical-noise=0.4."),
    ] = None,
    wet: Annotated[
        float | None,
        typer.Option(
            metavar="0..1", help="How much of the repair to apply, from 0 (none) to 1 (all).  \\[default: the preset's]"
        ),
    ] = None,
    quality: Annotated[Quality | None, typer.Option(help=f"{QUALITY_HELP}  \\[default: standard]")] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Number of model steps, 1 to 50, instead of --quality.")
    ] = None,
    sum_to_mix: Annotated[
        bool,
        flag("--sum/--no-sum", help="If you pass all stems of a song, make the results sum to the mix."),
    ] = True,
    require_mix: Annotated[
        bool, flag("--require-mix", help="Fail if the mix does not fit a stem, instead of repairing it without.")
    ] = False,
    residual: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what the repaired stems do not hold of the mix, instead of sharing it among them.",
        ),
    ] = None,
    linked: Annotated[
        bool,
        flag(
            "--linked/--no-linked",
            help="Repair more than two channels (5.1, ambisonics) together, or in independent pairs.",
        ),
    ] = True,
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Repair stems.

    File type, bit depth, sample rate, length and tags stay the same unless the output's extension differs.

    \b
    stemprover repair vocals.wav -o repaired.wav --mix song.wav
    stemprover repair vocals.wav drums.wav bass.wav other.wav -o repaired/ --mix song.wav
    stemprover repair stems/ -o repaired/ --mix song.wav --preset bleed
    """
    from ..offline.plan import check_residual, plan_batch
    from ..reports.terminal import run_plan

    if quality is not None and steps is not None:
        raise OptionError("--quality and --steps exclude each other; use one of them")
    if mix is not None and rest is not None:
        raise OptionError("--mix and --rest exclude each other; use one of them")
    plan = plan_batch(inputs, Path(output), is_folder=output.endswith(("/", os.sep)), mix=mix, rest=rest)
    has_mix = mix is not None or any(job.rest for job in plan.jobs)
    if preset is None and blend is None and has_mix:
        preset = "auto"
    chosen = None if preset == "auto" and blend is None else options.choose_preset(preset, blend)
    for name, value in (("--require-mix", require_mix), ("--residual", residual)):
        if value and not has_mix:
            raise OptionError(f"{name} needs a mix; add --mix FILE or --rest FILE")
    if residual is not None:
        check_residual(residual, plan, sum_to_mix=sum_to_mix, overwrite=overwrite)
    check_range("--wet", wet, 0, 1)
    check_range("--steps", steps, 1, 50)
    check_range("--jobs", jobs, 1, 1024)
    if beside := mix or rest:
        from ..offline.audiofile import probe

        probe(beside, "the mix" if mix else "the rest of the song")
    settings: dict[str, Any] = {
        "steps": steps,
        "quality": (quality or Quality.STANDARD).value,
        "device": device.value,
        "jobs": jobs,
        "linked": linked,
    }
    choice: RepairerChoice
    if chosen is None:
        from ..offline.auto import AutoChoice

        # A stem that needs no repair gets a preset with wet 0, which --wet must not override.
        choice = AutoChoice(lambda preset: options.make_repairer(preset, wet=wet if preset.wet else None, **settings))
    else:
        choice = (options.make_repairer(chosen, wet=wet, **settings), chosen)
    code = run_plan(
        plan,
        choice,
        mix=mix,
        overwrite=overwrite,
        sum_to_mix=sum_to_mix and wet != 0.0,
        require_mix=require_mix,
        residual=residual,
    )
    raise typer.Exit(code)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")] = Path(
        "demo-out"
    ),
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
) -> None:
    """Repair a bundled excerpt and compare it with the true stem."""
    from ..offline.auto import AutoChoice
    from ..reports.demo import run_demo
    from ..reports.tables import print_demo
    from ..reports.terminal import file_progress

    check_range("--jobs", jobs, 1, 1024)
    choose = AutoChoice(lambda preset: options.make_repairer(preset, device=device.value, jobs=jobs))
    with file_progress("before.wav") as progress:
        report = run_demo(output, choose, progress=progress)
    print_demo(report)
