"""`repair` and `demo`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

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


def repair(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN",
            help="Stems to repair: files, folders, a table (.csv, .jsonl), or a pipe (- is stdin).",
        ),
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
    removed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write what the repair took out of the stem, to listen to."),
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
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Songs at once, each in its own process.  \\[default: 1; a cluster's CPUs]"),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Use the workers of a Ray cluster: auto, ray://HOST:10001 or local."),
    ] = None,
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Only write what would be done as a table (.csv, .jsonl), to pass as IN."
        ),
    ] = None,
    report_file: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write a page about all stems: what was found and done (.html)."),
    ] = None,
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
    from ..offline.address import Address, is_address, place
    from ..offline.batch import BatchSettings
    from ..offline.manifest import is_manifest, read_manifest, write_manifest
    from ..offline.plan import JobDefaults, check_removed, check_residual, plan_batch
    from ..offline.removed import write_removed
    from ..reports.batch import BatchReport
    from ..reports.terminal import pair_plan, run_plan, run_plan_by_crew, say, warn

    if quality is not None and steps is not None:
        raise OptionError("--quality and --steps exclude each other; use one of them")
    if len(given := [name for name, path in (("--mix", mix), ("--mixes", mixes), ("--rest", rest)) if path]) > 1:
        raise OptionError(f"{' and '.join(given)} exclude each other; use one of them")
    piped = options.read_pipes(context, *inputs, mix, rest)
    mix, rest = piped.get(mix, mix), piped.get(rest, rest)
    mix, rest = (path if path is None else place(str(path)) for path in (mix, rest))
    stems = [place(str(piped.get(path, path))) for path in inputs]
    here = {
        "--mixes": mixes,
        "--residual": residual,
        "--removed": removed,
        "--plan": plan_file,
        "--report": report_file,
    }
    for name, path in here.items():
        if path is not None and is_address(str(path)):
            raise OptionError(f"{name} {place(str(path))}: name a file or folder on this machine")
    if mixes is not None and (far := [path for path in stems if isinstance(path, Address)]):
        raise OptionError(f"{far[0]} is an address, and --mixes is for stems on this machine; list both in a table")
    if any(map(is_manifest, inputs)):
        if len(inputs) > 1 or given:
            raise OptionError(f"{next(filter(is_manifest, inputs))} says what belongs together: pass nothing beside it")
        plan = read_manifest(inputs[0], place(output))
    else:
        is_folder = output.endswith(("/", os.sep))
        plan = plan_batch(stems, place(output), is_folder=is_folder, mix=mix, rest=rest, mixes=mixes)
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
    if removed is not None:
        check_removed(removed, plan, overwrite=overwrite)
    check_role(role)
    check_range("--wet", wet, 0, 1)
    check_range("--steps", steps, 1, 50)
    check_range("--jobs", jobs, 1, 1024)
    check_range("--workers", workers, 1, 10000)
    many = workers not in (None, 1) or cluster is not None
    if many and plan.folder is None:
        raise OptionError("--workers and --cluster are for many songs; name an output folder")
    if many and residual is not None:
        raise OptionError("--residual is for one song; leave out --workers and --cluster")
    if (beside := mix or rest) and not isinstance(beside, Address):
        from ..offline.audiofile import probe

        probe(beside, "the mix" if mix else "the rest of the song")
    if mixes is not None:
        plan = pair_plan(plan, mixes, require_mix=require_mix)
    if plan_file is not None:
        write_manifest(plan_file, plan, overwrite=overwrite)
        count, them = ("1 stem", "it") if len(plan.jobs) == 1 else (f"{len(plan.jobs)} stems", "them")
        say(f"{plan_file}: {count}; repair {them} with: stemprover repair {plan_file} -o {output}")
        raise typer.Exit(0)
    from ..engine.repair import available_cores
    from ..offline.auto import JobChoices
    from ..offline.journal import JobSettings, open_journal

    if many and jobs is None:
        jobs = 1 if cluster is not None else max(1, available_cores() // (workers or 1))
    model: dict[str, Any] = {
        "steps": steps,
        "quality": (quality or Quality.STANDARD).value,
        "device": device.value,
        "jobs": jobs,
        "linked": linked,
    }
    make_repairer = partial(options.make_repairer, **model)
    settings = BatchSettings(
        overwrite, sum_to_mix and wet != 0.0, require_mix, residual, role, analyse=report_file is not None
    )
    defaults = JobDefaults(chosen, wet)
    deciding = {name: model[name] for name in ("steps", "quality", "linked")} | {
        "sum": settings.sum_to_mix, "residual": residual is not None, "role": role, "version": __version__,
    }  # fmt: skip
    checksums = JobSettings(defaults, deciding)
    plan = plan.absolute() if many else plan
    report = None if report_file is None else BatchReport(report_file, plan, defaults, overwrite=overwrite)
    if many:
        from ..offline.workers import Crew, LocalCrew, WorkerSetup

        assert plan.folder is not None
        setup = WorkerSetup(make_repairer, defaults, settings, plan.folder.absolute(), checksums)
        crew: Crew
        if cluster is None:
            crew = LocalCrew(setup, workers or 1)
        else:
            from ..offline.cluster import RayCrew

            seen = next((job.source for job in plan.jobs if not isinstance(job.source, Address)), None)
            crew = RayCrew(setup, cluster, workers, gpu=device is Device.CUDA, seen=seen, warn=warn)
        raise typer.Exit(run_plan_by_crew(plan, crew, defaults, report=report))
    choices = JobChoices(make_repairer, defaults)
    own = any(job.preset is not None or job.wet is not None for job in plan.jobs)
    choice = choices if own or not plan.jobs else choices.of(plan.jobs[0])
    journal = None if plan.folder is None else open_journal(plan.folder, checksums)
    code = run_plan(plan, choice, settings, defaults, journal=journal, report=report)
    if removed is not None and code in (0, 3):
        job = plan.jobs[0]
        if note := write_removed(job.source, job.target, removed, plan.inputs, overwrite=overwrite):
            warn(f"Note: {note}")
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
