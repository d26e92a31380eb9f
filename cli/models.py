"""`export`, `train` and `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.errors import OptionError
from .options import Device, DeviceOption, OverwriteOption, check_range, flag, needs_extra


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A training checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder for the new model bundle.")],
    adapter: Annotated[Path | None, typer.Option(metavar="A", help="A LoRA adapter to merge into the model.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn a checkpoint into a model bundle (ONNX) and prove that both are equal. Needs the \\[export] extra."""
    from ..reports.terminal import say

    with needs_extra("export"):
        from ..export.bundle import export_bundle

        report = export_bundle(checkpoint, output, adapter, overwrite)
    for line in report.render().splitlines():
        say(line)
    raise typer.Exit(0 if report.ok else 1)


def train(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Training settings (TOML).")] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of checkpoints and logs; an existing run is continued.  \\[default: runs/base]"
        ),
    ] = None,
    pool: Annotated[Path | None, typer.Option(metavar="DIR", help="Training material.  \\[default: data/pool]")] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Start from a pretrained U-Net of the Stable Diffusion family: a folder in diffusers' format.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Stop after this many steps.")] = None,
    minutes: Annotated[float | None, typer.Option(metavar="M", help="Stop after this many minutes.")] = None,
    device: Annotated[Device | None, typer.Option(help="Where to train.  \\[default: auto]")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU cores to use.")] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="NAME", help="Train an adapter of this name instead of the base model.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Train the adapter on your own audio: files with the same names, sample-aligned, in DIR/before, "
            "DIR/after and, if you have the mixes, DIR/mix. Creates a preset.",
        ),
    ] = None,
) -> None:
    """Train the base model or an adapter. Needs the \\[train] extra (torch).

    \b
    stemprover train --adapter my-fault --pairs my-pairs --minutes 10
    stemprover repair stem.wav -o repaired.wav --preset runs/my-fault/my-fault
    """
    check_range("--steps", steps, 1, None)
    check_range("--minutes", minutes, 0, None)
    check_range("--threads", threads, 1, 1024)
    with needs_extra("train"):
        from ..engine.train.loop import train as run_training
        from ..engine.train.options import load_options

        if pairs is not None:
            _train_on_pairs(pairs, adapter, config, run, steps, minutes, threads, device)
            return
        run_training(
            load_options(
                config,
                run=run,
                pool=pool,
                base=base,
                steps=steps,
                minutes=minutes,
                threads=threads,
                adapter=adapter,
                device=device.value if device else None,
            )
        )


def _train_on_pairs(
    folder: Path, adapter: str | None, config: Path | None, run: Path | None, steps: int | None,
    minutes: float | None, threads: int | None, device: Device | None,
) -> None:  # fmt: skip
    from ..engine.preset import check_preset, find_presets
    from ..engine.train import pairs
    from ..engine.train.loop import train as run_training
    from ..engine.train.options import load_options
    from ..reports.terminal import say

    if adapter is None:
        raise OptionError("--pairs trains an adapter; name it with --adapter NAME")
    if adapter in find_presets():
        raise OptionError(f"--adapter {adapter}: a preset with this name already exists; choose another name")
    found = pairs.find_pairs(folder)
    run = run if run is not None else Path("runs") / adapter
    lengths = pairs.build_pairs(found, run / "pairs")
    minutes_used = f"{lengths['train']:.1f} minutes for training, {lengths['valid']:.1f} for validation"
    say(f"{len(found)} pairs: {minutes_used}")
    options = load_options(
        config, run=run, pool=run / "pairs", steps=steps, minutes=10.0 if minutes is None else minutes,
        threads=threads, adapter=adapter, device=device.value if device else None,
        crop=pairs.pair_crops(found), **({} if config else pairs.pair_settings()),
    )  # fmt: skip
    run_training(options)
    preset = pairs.finish(options, found, lengths)
    check_preset(preset)
    say(f"Preset {preset}")
    say(f"Try it: stemprover repair STEM -o OUT --preset {preset.parent}")


def bench(
    device: DeviceOption = Device.AUTO,
    quick: Annotated[bool, flag("--quick", help="Shorter signals: a rough result in a minute.")] = False,
) -> None:
    """Measure speed (relative to real time) and memory on this machine."""
    from ..benchmarks.speed import run as run_bench

    run_bench(device=device.value, quick=quick)
