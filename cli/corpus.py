"""`corpus build` and `corpus list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.errors import OutputError
from .options import check_range, flag, needs_extra

app = typer.Typer(no_args_is_help=True, help="Build the training material, or list its sources.")

StemsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FOLDER",
        help="A folder of true stems: songs as <song>/vocals.wav, drums.wav and so on, MUSDB18-HQ, or MoisesDB. Can be "
        "used several times.  \\[default: $STEMPROVER_STEMS]",
    ),
]
NoPackagesOption = Annotated[bool, flag("--no-packages", help="Use only the folders of stems, and download nothing.")]


def _stems(given: list[Path] | None) -> tuple[Path, ...]:
    from ..engine.train.corpus.sources import default_stems_folder

    default = default_stems_folder()
    return tuple(given) if given else (default,) if default is not None else ()


@app.command("build")
def corpus_build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the material goes: a new or unfinished folder.")],
    stems: StemsOption = None,
    hours: Annotated[
        float, typer.Option(metavar="H", help="Hours of training material. Each takes 7.6 GB and 25 minutes.")
    ] = 8.0,
    no_packages: NoPackagesOption = False,
) -> None:
    """Build the training material. If it is stopped, run it again to continue. Needs the \\[train] extra (torch).

    \b
    stemprover corpus build data/pool --stems ~/stems --hours 8
    stemprover train --pool data/pool
    """
    check_range("--hours", hours, 0.01, 10000)
    with needs_extra("train"):
        from ..engine.train.corpus.build import CorpusOptions, build_corpus, render_pool
        from ..reports.terminal import say

        options = CorpusOptions(folder, _stems(stems), hours, not no_packages)
        try:
            about = build_corpus(options, say=say)
        except KeyboardInterrupt:
            say("Stopped; run the same command again to continue.")
            raise typer.Exit(130) from None
        except OSError as error:
            raise OutputError(f"{folder} cannot be built: {error}") from error
    for line in render_pool(about, folder).splitlines():
        say(line)


@app.command("list")
def corpus_list(stems: StemsOption = None, no_packages: NoPackagesOption = False) -> None:
    """List the sources of the training material: origin, kind, split, licence, minutes. Downloads nothing."""
    with needs_extra("train"):
        from ..engine.train.corpus.collect import list_sources
        from ..engine.train.corpus.manifest import render_table
        from ..reports.terminal import say

        sources = list_sources(_stems(stems), not no_packages, say=say)
    if sources:
        for line in render_table(sources).splitlines():
            say(line)
    else:
        say("No sources yet: 'stemprover corpus build DIR' downloads packages, --stems DIR adds your own stems.")
