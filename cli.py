"""The command line. The one place that knows every package; each command imports what it needs when it runs.

Exit codes: 0 done, 1 failed, 2 the input has to change. One line on the error stream says why.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from .cli_options import (
    Device,
    DeviceOption,
    JobsOption,
    OverwriteOption,
    PresetOption,
    Quality,
    check_range,
    needs_extra,
    preset_names,
)  # fmt: skip
from .engine.errors import OptionError, StemProverError

if TYPE_CHECKING:
    from .bridge.presets import Preset
    from .bridge.terminal import Choice
    from .engine.repair import Repairer

app = typer.Typer(
    name="stemprover",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Repairs separated stems: musical noise, bleed, phasiness, lost highs, smeared attacks.\n\n"
    "Start with [bold]stemprover demo[/bold], then "
    "[bold]stemprover repair vocals.wav -o repaired.wav --mix song.wav[/bold].",
)
presets_app = typer.Typer(no_args_is_help=True, help="Show the presets there are, or check your own.")
app.add_typer(presets_app, name="presets")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"stemprover {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Options before any command."""


@app.command()
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
    preset: PresetOption = None,
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
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Repair stems. Format, bit depth, sample rate, length and tags stay as they are.

    \b
    stemprover repair vocals.wav -o repaired.wav --mix song.wav
    stemprover repair stems/ -o repaired/ --mix song.wav --preset bleed
    stemprover repair stems/ -o repaired/ --mix song.wav --preset auto
    """
    from .bridge.plan import plan_renders
    from .bridge.terminal import run_plan

    if quality is not None and steps is not None:
        raise OptionError("--quality and --steps exclude each other; give one of them")
    chosen = None if preset == "auto" and blend is None else _choose_preset(preset, blend)
    check_range("--wet", wet, 0, 1)
    check_range("--steps", steps, 1, 50)
    check_range("--jobs", jobs, 1, 1024)
    plan = plan_renders(inputs, Path(output), is_folder=output.endswith(("/", os.sep)))
    if mix is not None:
        from .bridge.audiofile import probe

        probe(mix)
    options = {"steps": steps, "quality": (quality or Quality.STANDARD).value, "device": device.value, "jobs": jobs}
    choice: Choice
    if chosen is None:
        from .bridge.auto import AutoChoice

        # What was found to need nothing stays as it is, whatever --wet says.
        choice = AutoChoice(lambda found: _make_repairer(found, wet=wet if found.wet else None, **options))
    else:
        choice = (_make_repairer(chosen, wet=wet, **options), chosen)
    raise typer.Exit(run_plan(plan, choice, mix=mix, overwrite=overwrite))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")] = Path(
        "demo-out"
    ),
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
) -> None:
    """Repair an excerpt that comes with StemProver, and compare it with the true stem."""
    from .bridge.demo import run_demo
    from .bridge.presets import load_preset
    from .bridge.terminal import file_progress, print_demo

    check_range("--jobs", jobs, 1, 1024)
    preset = load_preset("general")
    repairer = _make_repairer(preset, device=device.value, jobs=jobs)
    with file_progress("before.wav") as progress:
        report = run_demo(output, repairer, preset, progress=progress)
    print_demo(report)


@app.command()
def analyze(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The stem to look at.")],
    mix: Annotated[
        Path | None,
        typer.Option(metavar="SONG", help="The song the stem was separated from. Tells much more."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="F", help="Write all figures here.")] = None,
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
    from .bridge.analyze import analyse_file, write_json, write_picture
    from .bridge.outfile import check_output
    from .bridge.terminal import file_progress, print_analysis

    check_range("--tempo", tempo, 1, 1000)
    inputs = [file] if mix is None else [file, mix]
    for target in (json, png):
        if target is not None:
            check_output(target, inputs, overwrite=overwrite)
    with file_progress(file.name) as progress:
        analysis = analyse_file(file, mix, progress=progress)
    if json is not None:
        write_json(analysis, file, mix, json, overwrite=overwrite)
    if png is not None:
        write_picture(analysis, file, png, overwrite=overwrite, tempo_bpm=tempo)
    print_analysis(analysis, file)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The stem as it was.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The stem after a repair.")],
    reference: Annotated[Path | None, typer.Option(metavar="TRUE", help="The true stem, if you have it.")] = None,
    mix: Annotated[Path | None, typer.Option(metavar="SONG", help="The song the stem was separated from.")] = None,
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
    from .bridge.compare import compare_files, write_json, write_picture
    from .bridge.outfile import check_output
    from .bridge.page import write_page
    from .bridge.terminal import file_progress, print_comparison

    inputs = [path for path in (before, after, reference, mix) if path is not None]
    for target in (json, html, png):
        if target is not None:
            check_output(target, inputs, overwrite=overwrite)
    with file_progress(before.name) as progress:
        comparison = compare_files(before, after, reference, mix, progress=progress)
    if json is not None:
        write_json(comparison, json, overwrite=overwrite)
    if html is not None:
        write_page(comparison, html, overwrite=overwrite)
    if png is not None:
        write_picture(comparison, png, overwrite=overwrite)
    print_comparison(comparison)


@app.command()
def validate(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Cases: folders with truth.wav, degraded.wav and, if there is, mix.wav."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the report and the worst cases' pictures.")
    ] = Path("validation"),
    preset: PresetOption = None,
    quality: Annotated[Quality, typer.Option(help="How careful to be.")] = Quality.STANDARD,
    device: DeviceOption = Device.AUTO,
    jobs: JobsOption = None,
) -> None:
    """Repair cases whose true stem is known, and say with certainty what that does to each type.

    A case may stand in a folder of its type: FOLDER/bleed/0001/truth.wav.
    """
    from .bridge.auto import AutoChoice
    from .bridge.plan import make_folder
    from .bridge.terminal import file_progress, print_validation
    from .bridge.validate import Case, find_cases, write_report
    from .bridge.validate import validate as run_validation

    check_range("--jobs", jobs, 1, 1024)
    cases = find_cases(folder)
    options = {"quality": quality.value, "device": device.value, "jobs": jobs}
    if preset == "auto":
        auto = AutoChoice(lambda found: _make_repairer(found, **options))

        def choose(case: Case) -> tuple[Any, Preset]:
            return auto(case.degraded, case.mix)
    else:
        chosen = _choose_preset(preset, None)
        repairer = _make_repairer(chosen, **options)

        def choose(case: Case) -> tuple[Any, Preset]:
            return repairer, chosen

    make_folder(output)
    with file_progress(folder.name) as progress:
        results = run_validation(cases, choose, pictures=output, progress=progress)
    write_report(results, output)
    print_validation(results, output)


@presets_app.command("list")
def presets_list() -> None:
    """All presets: those that come with StemProver, and your own."""
    from .bridge.presets import check_preset, find_presets, user_preset_folder
    from .bridge.terminal import print_error, print_presets

    presets, exit_code = [], 0
    for path in find_presets().values():
        try:
            presets.append(check_preset(path))
        except StemProverError as error:
            print_error(error)
            exit_code = error.exit_code
    print_presets(presets, user_preset_folder())
    raise typer.Exit(exit_code)


@presets_app.command("show")
def presets_show(
    name: Annotated[
        str, typer.Argument(help="A preset's name, or the path of its folder.", autocompletion=preset_names)
    ],
) -> None:
    """What one preset does, and where it lies."""
    from .bridge.presets import load_preset
    from .bridge.terminal import print_preset

    print_preset(load_preset(name))


@presets_app.command("check")
def presets_check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, or paths of preset folders; all presets if none is given.")
    ] = None,
) -> None:
    """Check presets: every key, every value, every file they name."""
    from .bridge.presets import find_presets, load_preset
    from .bridge.terminal import print_error

    exit_code = 0
    for name in names or list(find_presets()):
        try:
            print(f"{load_preset(name).name}: all right")
        except StemProverError as error:
            print_error(error)
            exit_code = error.exit_code
    raise typer.Exit(exit_code)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A training checkpoint.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The folder of the new model bundle.")
    ],
    adapter: Annotated[Path | None, typer.Option(metavar="A", help="A LoRA adapter to merge into it.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn a checkpoint into a model bundle (ONNX) and prove that both are equal. Needs the \\[export] extra."""
    with needs_extra("export"):
        from .export.bundle import export_bundle

        report = export_bundle(checkpoint, output, adapter, overwrite)
    print(report.render())
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def train(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Training settings (TOML).")] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Checkpoints and logs; goes on where it stopped.  \\[default: runs/base]"),
    ] = None,
    pool: Annotated[Path | None, typer.Option(metavar="DIR", help="Training material.  \\[default: data/pool]")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Stop after this many steps.")] = None,
    minutes: Annotated[float | None, typer.Option(metavar="M", help="Stop after this many minutes.")] = None,
    device: Annotated[Device | None, typer.Option(help="Where to compute.  \\[default: auto]")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Processor cores to use.")] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="NAME", help="Train an adapter of this name, and not the base model.")
    ] = None,
) -> None:
    """Train the base model or an adapter. Needs the \\[train] extra (torch)."""
    check_range("--steps", steps, 1, None)
    check_range("--minutes", minutes, 0, None)
    check_range("--threads", threads, 1, 1024)
    with needs_extra("train"):
        from .engine.train.loop import train as run_training
        from .engine.train.settings import load_options

        run_training(
            load_options(
                config,
                run=run,
                pool=pool,
                steps=steps,
                minutes=minutes,
                threads=threads,
                adapter=adapter,
                device=device.value if device else None,
            )
        )


@app.command()
def bench(
    device: DeviceOption = Device.AUTO,
    quick: Annotated[bool, typer.Option("--quick", help="Shorter sounds; a first idea in a minute.")] = False,
) -> None:
    """Measure speed and memory on this machine, as ratios."""
    from .benchmarks.speed import run as run_bench

    run_bench(device=device.value, quick=quick)


def main() -> None:
    """The entry point: runs the command line and ends the process with its exit code."""
    # File names may hold bytes that no encoding knows.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: print(f"stemprover: {message}", file=sys.stderr)
    # A plain kill ends like Ctrl-C does: files under way are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app(prog_name="stemprover")
    except StemProverError as error:
        from .bridge.terminal import print_error

        print_error(error)
        sys.exit(error.exit_code)


def _choose_preset(preset: str | None, blend: str | None) -> Preset:
    from .bridge.presets import blend_presets, load_preset, parse_blend

    if preset is not None and blend is not None:
        raise OptionError(
            "--preset and --blend exclude each other; a blend may hold a single preset, as in --blend bleed=0.6"
        )
    if blend is not None:
        return blend_presets(parse_blend(blend))
    return load_preset(preset or "general")


def _make_repairer(preset: Preset, **options: Any) -> Repairer:
    from .engine.repair import Repairer

    return Repairer(preset, **options)


if __name__ == "__main__":
    main()
