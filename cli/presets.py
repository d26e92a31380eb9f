"""`presets list`, `show` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.errors import StemProverError
from .options import preset_choices

app = typer.Typer(no_args_is_help=True, help="Show presets, or check your own.")


@app.command("list")
def presets_list() -> None:
    """List all presets: auto, those that come with StemProver, and your own."""
    from ..engine.preset import check_preset, find_presets, user_preset_folder
    from ..reports.tables import print_presets
    from ..reports.terminal import print_error

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
        str, typer.Argument(help="Name of a preset, or path of its folder.", autocompletion=preset_choices)
    ],
) -> None:
    """Show what a preset does and where its files are."""
    from ..engine.preset import AUTO, load_preset
    from ..reports.tables import print_auto, print_preset

    if name == AUTO:
        print_auto()
    else:
        print_preset(load_preset(name))


@app.command("check")
def presets_check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, or paths of preset folders.  \\[default: all presets]")
    ] = None,
) -> None:
    """Check presets: all keys, values and files."""
    from ..engine.preset import find_presets, load_preset
    from ..reports.terminal import print_error, say

    exit_code = 0
    wanted: list[str | Path] = list(names) if names else list(find_presets().values())
    for name in wanted:
        try:
            say(f"{load_preset(name).name}: OK")
        except StemProverError as error:
            print_error(error)
            exit_code = error.exit_code
    raise typer.Exit(exit_code)
