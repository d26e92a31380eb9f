"""`repair` and `demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..engine.errors import OptionError
from ..engine.stem_names import check_role
from . import options
from .options import (
    QUALITY_HELP,
    Device,
    DeviceOption,
    JobsOption,
    OverwriteOption,
    Quality,
    RoleOption,
    check_range,
    flag,
    preset_option,
)

if TYPE_CHECKING:
    from ..offline.auto import RepairerChoice


def repair(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN", help="Stems to repair: files, folders of files, or a pipe (- is standard input)."),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="OUT", help="The repaired file, or an output folder (with a slash at the end)."
        ),
    ],
    mix: Annotated[
        Path | None,
        typer.Option(metavar="MIX", help="The mix the stems were separated from. Makes the repair much better."),
    ] = None,
    mixes: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder with the mixes of many songs: each stem gets the one that it is in."
        ),
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
    role: RoleOption = None,
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
    Run a command on a folder again to continue it: finished files are skipped.

    \b
    stemprover repair vocals.wav -o repaired.wav --mix song.wav
    stemprover repair vocals.wav drums.wav bass.wav other.wav -o repaired/ --mix song.wav
    stemprover repair stems/ -o repaired/ --mix song.wav --preset bleed
    stemprover repair separated/ -o repaired/ --mixes songs/
    """
    from ..offline.plan import check_residual, plan_batch
    from ..reports.terminal import pair_plan, run_plan

    if quality is not None and steps is not None:
        raise OptionError("--quality and --steps exclude each other; use one of them")
    if len(given := [name for name, path in (("--mix", mix), ("--mixes", mixes), ("--rest", rest)) if path]) > 1:
        raise OptionError(f"{' and '.join(given)} exclude each other; use one of them")
    piped = options.read_pipes(context, *inputs, mix, rest)
    mix, rest = piped.get(mix, mix), piped.get(rest, rest)
    stems = [piped.get(path, path) for path in inputs]
    plan = plan_batch(stems, Path(output), is_folder=output.endswith(("/", os.sep)), mix=mix, rest=rest, mixes=mixes)
    if plan.folder is not None and (pipes := [path for path in inputs if path in piped]):
        raise OptionError(
            f"{pipes[0]} has no name that its result in {output} could get; repair it alone, with a file for the output"
        )
    has_mix = plan.has_mix or mixes is not None
    if preset is None and blend is None and has_mix:
        preset = "auto"
    chosen = None if preset == "auto" and blend is None else options.choose_preset(preset, blend)
    for name, value in (("--require-mix", require_mix), ("--residual", residual)):
        if value and not has_mix:
            raise OptionError(f"{name} needs a mix; add --mix FILE or --rest FILE")
    if residual is not None and mixes is not None:
        raise OptionError("--residual and --mixes exclude each other; repair the songs one by one")
    if residual is not None:
        check_residual(residual, plan, sum_to_mix=sum_to_mix, overwrite=overwrite)
    check_role(role)
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
    sum_to_mix = sum_to_mix and wet != 0.0
    journal = None
    if plan.folder is not None:
        from ..offline.journal import Journal, settings_checksum

        deciding = {
            "wet": wet, "steps": steps, "quality": settings["quality"], "linked": linked, "sum": sum_to_mix,
            "residual": residual is not None, "role": role,
        }  # fmt: skip
        journal = Journal(plan.folder, settings_checksum(chosen, **deciding, version=__version__))
    if mixes is not None:
        plan = pair_plan(plan, mixes, require_mix=require_mix)
    code = run_plan(
        plan, choice, overwrite=overwrite, sum_to_mix=sum_to_mix, journal=journal, require_mix=require_mix,
        residual=residual, role=role,
    )  # fmt: skip
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
