"""`plugin install` and `remove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Put the DAW plug-in where hosts look for it.")


@app.command("install")
def plugin_install(
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Folder with the built plug-ins.  \\[default: make plugin's]"),
    ] = None,
) -> None:
    """Copy the VST3 and LV2 plug-in into your plug-in folders, and note where the bridge's command is.

    \b
    make plugin && stemprover plugin install
    """
    from ..bridge.plugin.install import find_command, install

    for done in install(source):
        print(f"{done.path}{' (took the place of an older one)' if done.replaced else ''}")
    if find_command() is None:
        print("There is no stemprover command for it to start the bridge with: run stemprover serve yourself.")
    print("Let your host scan for plug-ins, insert StemProver on the stem's track, send the song to its side-chain.")


@app.command("remove")
def plugin_remove() -> None:
    """Take the plug-in out of your plug-in folders again."""
    from ..bridge.plugin.install import remove

    for path in (gone := remove()):
        print(f"removed {path}")
    if not gone:
        print("there was none")
