"""`corpus build` and `corpus list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.errors import OutputError
from .options import check_range, needs_extra

app = typer.Typer(no_args_is_help=True, help="Make the training material, or show what it would be made of.")

StemsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FOLDER",
        help="A folder of true stems: songs as <song>/vocals.wav, drums.wav and so on, MUSDB18-HQ, or MoisesDB. May be "
        "given several times.  \\[default: $STEMPROVER_STEMS]",
    ),
]
NoPackagesOption = Annotated[
    bool, typer.Option("--no-packages", help="Use the folders of stems alone, and nothing from the network.")
]


def _stems(given: list[Path] | None) -> tuple[Path, ...]:
    from ..engine.train.corpus.sources import default_stems_folder

    default = default_stems_folder()
    return tuple(given) if given else (default,) if default is not None else ()


@app.command("build")
def corpus_build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the material goes; a new folder, or one begun.")],
    stems: StemsOption = None,
    hours: Annotated[
        float, typer.Option(metavar="H", help="Hours of training material; each takes 3.8 GB and some ten minutes.")
    ] = 8.0,
    no_packages: NoPackagesOption = False,
) -> None:
    """Build the training material. Stopped, the same command goes on. Needs the \\[train] extra (torch).

    \b
    stemprover corpus build data/pool --stems ~/stems --hours 8
    stemprover train --pool data/pool
    """
    check_range("--hours", hours, 0.01, 10000)
    with needs_extra("train"):
        from ..engine.train.corpus.build import CorpusOptions, build_corpus, render_pool

        options = CorpusOptions(folder, _stems(stems), hours, not no_packages)
        try:
            about = build_corpus(options, say=lambda line: print(line, flush=True))
        except KeyboardInterrupt:
            print("Stopped; the same command goes on from here.", flush=True)
            raise typer.Exit(130) from None
        except OSError as error:
            raise OutputError(f"{folder} cannot be built: {error}") from error
    print(render_pool(about, folder))


@app.command("list")
def corpus_list(stems: StemsOption = None, no_packages: NoPackagesOption = False) -> None:
    """Show what there is to build from: origin, kind, split, licence, minutes. Nothing is fetched or made."""
    with needs_extra("train"):
        from ..engine.train.corpus.build import list_sources
        from ..engine.train.corpus.manifest import render_table

        sources = list_sources(_stems(stems), not no_packages, say=lambda line: print(line, flush=True))
    if sources:
        print(render_table(sources))
    else:
        print("There is nothing yet: 'stemprover corpus build DIR' fetches packages, --stems names a folder of stems.")
