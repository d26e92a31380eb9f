"""The command line. The only place that knows every package; each command imports what it needs when it runs.

Exit codes: 0 success, 1 failure, 2 wrong input. One line on the error stream says why.
"""

from __future__ import annotations

import io
import signal
import sys
import warnings
from typing import Annotated

import typer

from .. import __version__
from ..engine.errors import StemProverError
from ..engine.threads import limit_own_process
from . import corpus, files, listen, live, models, options, plugin, presets

__all__ = ["app", "main", "options"]

app = typer.Typer(
    name="stemprover",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Repairs separated stems: bleed, musical noise, phasiness, smeared attacks and missing highs.\n\n"
    "Try [bold]stemprover demo[/bold] first, then "
    "[bold]stemprover repair vocals.wav -o repaired.wav --mix song.wav[/bold].",
)
app.add_typer(presets.app, name="presets")
app.add_typer(plugin.app, name="plugin")
app.add_typer(corpus.app, name="corpus")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"stemprover {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, options.flag("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of all commands."""


for _command in (
    files.repair, files.demo, listen.analyze, listen.compare, listen.validate,
    live.serve, live.send, live.status, models.export, models.train, models.bench,
):  # fmt: skip
    app.command()(_command)


def main() -> None:
    """The entry point: runs the command line and exits with its code."""
    limit_own_process()
    # File names may contain bytes that are not valid text.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: print(f"stemprover: {message}", file=sys.stderr)
    # Clean up unfinished files on a plain kill, as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app(prog_name="stemprover")
    except StemProverError as error:
        from ..reports.terminal import print_error

        print_error(error)
        sys.exit(error.exit_code)
