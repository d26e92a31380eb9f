"""`export`, `train` and `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.errors import OptionError
from .options import Device, DeviceOption, OverwriteOption, check_range, needs_extra


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
        from ..export.bundle import export_bundle

        report = export_bundle(checkpoint, output, adapter, overwrite)
    print(report.render())
    raise typer.Exit(0 if report.ok else 1)


def train(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Training settings (TOML).")] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Checkpoints and logs; goes on where it stopped.  \\[default: runs/base]"),
    ] = None,
    pool: Annotated[Path | None, typer.Option(metavar="DIR", help="Training material.  \\[default: data/pool]")] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Begin with a pretrained U-Net of the Stable Diffusion family: a folder in diffusers' format.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Stop after this many steps.")] = None,
    minutes: Annotated[float | None, typer.Option(metavar="M", help="Stop after this many minutes.")] = None,
    device: Annotated[Device | None, typer.Option(help="Where to compute.  \\[default: auto]")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Processor cores to use.")] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="NAME", help="Train an adapter of this name, and not the base model.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Train the adapter on your own sounds: DIR/before and DIR/after (and DIR/mix), files of one name in "
            "step. Makes a preset's folder.",
        ),
    ] = None,
) -> None:
    """Train the base model or an adapter. Needs the \\[train] extra (torch).

    \b
    stemprover train --adapter my-fault --pairs my-sounds --minutes 10
    stemprover repair --preset runs/my-fault/my-fault stem.wav
    """
    check_range("--steps", steps, 1, None)
    check_range("--minutes", minutes, 0, None)
    check_range("--threads", threads, 1, 1024)
    with needs_extra("train"):
        from ..engine.train.loop import train as run_training
        from ..engine.train.settings import load_options

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
    from ..engine.train.settings import load_options

    if adapter is None:
        raise OptionError("--pairs trains an adapter: give it a name with --adapter NAME")
    if adapter in find_presets():
        raise OptionError(f"--adapter {adapter}: a preset of this name is there already; choose another")
    found = pairs.find_pairs(folder)
    run = run if run is not None else Path("runs") / adapter
    lengths = pairs.build_pairs(found, run / "pairs")
    said = f"{lengths['train']:.1f} minutes to train on, {lengths['valid']:.1f} held out"
    print(f"{len(found)} pairs: {said}", flush=True)
    options = load_options(
        config, run=run, pool=run / "pairs", steps=steps, minutes=10.0 if minutes is None else minutes,
        threads=threads, adapter=adapter, device=device.value if device else None,
        crop=pairs.pair_crops(found), **({} if config else pairs.pair_settings()),
    )  # fmt: skip
    run_training(options)
    preset = pairs.finish(options, found, lengths)
    check_preset(preset)
    print(f"Preset {preset}\nstemprover repair --preset {preset.parent} STEM")


def bench(
    device: DeviceOption = Device.AUTO,
    quick: Annotated[bool, typer.Option("--quick", help="Shorter sounds; a first idea in a minute.")] = False,
) -> None:
    """Measure speed and memory on this machine, as ratios."""
    from ..benchmarks.speed import run as run_bench

    run_bench(device=device.value, quick=quick)
