"""`presets list`, `show` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.errors import StemProverError
from .options import preset_names

app = typer.Typer(no_args_is_help=True, help="Show the presets there are, or check your own.")


@app.command("list")
def presets_list() -> None:
    """All presets: those that come with StemProver, and your own."""
    from ..engine.preset import check_preset, find_presets, user_preset_folder
    from ..reports.terminal import print_error, print_presets

    presets, exit_code = [], 0
    for path in find_presets().values():
        try:
            presets.append(check_preset(path))
        except StemProverError as error:
            print_error(error)
            exit_code = error.exit_code
    print_presets(presets, user_preset_folder())
    raise typer.Exit(exit_code)


@app.command("show")
def presets_show(
    name: Annotated[
        str, typer.Argument(help="A preset's name, or the path of its folder.", autocompletion=preset_names)
    ],
) -> None:
    """What one preset does, and where it lies."""
    from ..engine.preset import load_preset
    from ..reports.terminal import print_preset

    print_preset(load_preset(name))


@app.command("check")
def presets_check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, or paths of preset folders; all presets if none is given.")
    ] = None,
) -> None:
    """Check presets: every key, every value, every file they name."""
    from ..engine.preset import find_presets, load_preset
    from ..reports.terminal import print_error

    exit_code = 0
    wanted: list[str | Path] = list(names) if names else list(find_presets().values())
    for name in wanted:
        try:
            print(f"{load_preset(name).name}: all right")
        except StemProverError as error:
            print_error(error)
            exit_code = error.exit_code
    raise typer.Exit(exit_code)
