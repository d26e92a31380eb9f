"""The command line. The only place that knows every package; each command imports what it needs when it runs.

Exit codes: 0 success, 1 failure, 2 wrong input. One line on the error stream says why.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..engine.errors import StemProverError
from ..engine.threads import limit_own_process
from . import corpus, files, listen, live, models, options, plugin, presets
from .streams import lasting_streams

__all__ = ["app", "main", "options"]


@contextlib.contextmanager
def _printable_errors() -> Iterator[None]:
    """Typer quotes arguments in its messages, which it prints by itself."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "message"):
            from ..reports.terminal import printable

            error.message = printable(str(error.message))
        raise


class _Commands(TyperGroup):
    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        with _printable_errors():
            return super().make_context(*arguments, **settings)

    def invoke(self, context: Any) -> Any:
        with _printable_errors():
            return super().invoke(context)


app = typer.Typer(
    name="stemprover",
    cls=_Commands,
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


def _stop(number: int, _: object) -> None:
    """Clean up unfinished files on a plain kill or a lost terminal, as on Ctrl-C."""
    for other in _STOPPING:  # a second signal, which often follows, must not stop the cleaning up
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


_STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main() -> None:
    """The entry point: runs the command line and exits with its code."""
    limit_own_process()
    for number in _STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _stop)
    with lasting_streams():
        warnings.showwarning = _show_warning
        try:
            app(prog_name="stemprover")
        except StemProverError as error:
            from ..reports.terminal import print_error

            print_error(error)
            sys.exit(error.exit_code)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    from ..reports.terminal import warn

    warn(f"stemprover: {message}")
