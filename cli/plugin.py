"""`plugin install` and `remove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Install or remove the DAW plug-in.")


@app.command("install")
def plugin_install(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="DIR", help="Folder with the built plug-ins.  \\[default: where make plugin puts them]"
        ),
    ] = None,
) -> None:
    """Copy the VST3 and LV2 plug-ins into your plug-in folders, and note where the stemprover command is.

    \b
    make plugin && stemprover plugin install
    """
    from ..bridge.plugin.install import find_command, install
    from ..reports.terminal import say

    for done in install(source):
        say(f"{done.path}{' (replaced an older one)' if done.replaced else ''}")
    if find_command() is None:
        say("No stemprover command found, so the plug-in cannot start the bridge: run 'stemprover serve' yourself.")
    say("Rescan plug-ins in your DAW, insert StemProver on the stem's track, and send the mix to its side-chain.")


@app.command("remove")
def plugin_remove() -> None:
    """Remove the plug-ins from your plug-in folders."""
    from ..bridge.plugin.install import remove
    from ..reports.terminal import say

    for path in (gone := remove()):
        say(f"removed {path}")
    if not gone:
        say("no plug-in was installed")
