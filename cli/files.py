"""`repair` and `demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.errors import OptionError
from . import options
from .options import Device, DeviceOption, JobsOption, OverwriteOption, Quality, check_range, preset_option

if TYPE_CHECKING:
    from ..reports.terminal import Choice


def repair(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN", help="Stems to repair: files, or folders of them.")],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="OUT", help="The repaired file; a folder for several files or a folder."
        ),
    ],
    mix: Annotated[
        Path | None,
        typer.Option(metavar="SONG", help="The song the stems were separated from. Gives a much better repair."),
    ] = None,
    preset: Annotated[str | None, preset_option("auto with --mix, else general")] = None,
    blend: Annotated[
        str | None,
        typer.Option(metavar="NAME=WEIGHT,...", help="Several presets at once, as in bleed=0.6,musical-noise=0.4."),
    ] = None,
    wet: Annotated[
        float | None,
        typer.Option(
            metavar="0..1", help="How much of the repair to mix in: 0 none, 1 all.  \\[default: the preset's]"
        ),
    ] = None,
    quality: Annotated[Quality | None, typer.Option(help="How careful to be.  \\[default: standard]")] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Model steps (1 to 50), in place of --quality.")
    ] = None,
    in_sum: Annotated[
        bool, typer.Option("--sum/--no-sum", help="Have a song's stems sum to it again, if all of them are given.")
    ] = True,
    linked: Annotated[
        bool,
        typer.Option(
            "--linked/--no-linked",
            help="Repair more than two channels (5.1, ambisonics) as one sound, and not two by two.",
        ),
    ] = True,
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Repair stems. Format, bit depth, sample rate, length and tags stay as they are.

    \b
    stemprover repair vocals.wav -o repaired.wav --mix song.wav
    stemprover repair vocals.wav drums.wav bass.wav other.wav -o repaired/ --mix song.wav
    stemprover repair stems/ -o repaired/ --mix song.wav --preset bleed
    """
    from ..offline.batch import plan_renders
    from ..reports.terminal import run_plan

    if quality is not None and steps is not None:
        raise OptionError("--quality and --steps exclude each other; give one of them")
    if preset is None and blend is None and mix is not None:
        preset = "auto"
    chosen = None if preset == "auto" and blend is None else options.choose_preset(preset, blend)
    check_range("--wet", wet, 0, 1)
    check_range("--steps", steps, 1, 50)
    check_range("--jobs", jobs, 1, 1024)
    plan = plan_renders(inputs, Path(output), is_folder=output.endswith(("/", os.sep)), mix=mix)
    if mix is not None:
        from ..offline.audiofile import probe

        probe(mix)
    careful = (quality or Quality.STANDARD).value
    settings: dict[str, Any] = {
        "steps": steps, "quality": careful, "device": device.value, "jobs": jobs, "linked": linked
    }  # fmt: skip
    choice: Choice
    if chosen is None:
        from ..offline.auto import AutoChoice

        # What was found to need nothing stays as it is, whatever --wet says.
        choice = AutoChoice(lambda found: options.make_repairer(found, wet=wet if found.wet else None, **settings))
    else:
        choice = (options.make_repairer(chosen, wet=wet, **settings), chosen)
    raise typer.Exit(run_plan(plan, choice, mix=mix, overwrite=overwrite, in_sum=in_sum and wet != 0.0))


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")] = Path(
        "demo-out"
    ),
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
) -> None:
    """Repair an excerpt that comes with StemProver, and compare it with the true stem."""
    from ..offline.auto import AutoChoice
    from ..reports.demo import run_demo
    from ..reports.terminal import file_progress, print_demo

    check_range("--jobs", jobs, 1, 1024)
    choose = AutoChoice(lambda preset: options.make_repairer(preset, device=device.value, jobs=jobs))
    with file_progress("before.wav") as progress:
        report = run_demo(output, choose, progress=progress)
    print_demo(report)
