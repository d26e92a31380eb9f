"""Options that several commands share, and checks of their values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.errors import OptionError, StemProverError
from ..engine.stem_names import ROLES

if TYPE_CHECKING:
    from ..engine.preset import Preset
    from ..engine.repair import Repairer


def preset_names(incomplete: str) -> list[str]:
    """For shell completion: presets whose names begin with `incomplete`."""
    from ..engine.preset import find_presets

    return [name for name in find_presets() if name.startswith(incomplete)]


def preset_choices(incomplete: str) -> list[str]:
    """For shell completion of --preset: presets, and auto."""
    return [*preset_names(incomplete), *(name for name in ("auto",) if name.startswith(incomplete))]


class Quality(StrEnum):
    """How much work is put into a repair."""

    DRAFT = "draft"
    STANDARD = "standard"
    BEST = "best"


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


DeviceOption = Annotated[Device, typer.Option(help="Where to run the model; auto uses the GPU (CUDA) if possible.")]
JobsOption = Annotated[int | None, typer.Option(metavar="N", help="CPU cores to use.  \\[default: all]")]
QUALITY_HELP = "Sampler steps: draft and standard take 1, best 2; more steps hardly change the result."


def flag(*names: str, **settings: Any) -> Any:
    """An option without a value. The empty metavar keeps `<bool>` out of its help."""
    return typer.Option(*names, metavar="", **settings)


OverwriteOption = Annotated[bool, flag("--overwrite", help="Replace existing outputs (but never an input).")]


def preset_option(default: str) -> Any:
    """The --preset option; `default` is shown in its help."""
    return typer.Option(
        metavar="NAME",
        help=f"What to repair; see 'presets list'. auto repairs what it detects.  \\[default: {default}]",
        autocompletion=preset_choices,
    )


PresetOption = Annotated[str | None, preset_option("general")]

RoleOption = Annotated[
    str | None,
    typer.Option(
        metavar="ROLE",
        help=f"What the stem is: {', '.join(ROLES)}.  \\[default: by its name]",
        autocompletion=lambda incomplete: [role for role in ROLES if role.startswith(incomplete)],
    ),
]

AlsoOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Additional measures that need the true stem: perceptual (2f), speech (PESQ and STOI), bsseval. "
        "They need the \\[metrics] extra.",
    ),
]


def parse_also(text: str | None) -> tuple[str, ...]:
    """The names in --also. Raises OptionError for an unknown one."""
    from ..engine.metrics.scorecard import check_extras

    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    check_extras(names)
    return names


def check_range(option: str, value: float | None, low: float, high: float | None) -> None:
    """Raises OptionError if a number is out of its range; None is always accepted."""
    if value is None:
        return
    if not value >= low or (high is not None and not value <= high):
        limits = f"from {low:g} to {high:g}" if high is not None else f"of {low:g} or more"
        raise OptionError(f"{option} {value:g} is out of range; use a number {limits}")


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a missing package into a one-line error that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stemprover"):
            raise
        raise StemProverError(
            f"this command needs {error.name}, which is not installed; run: pip install '.[{extra}]' "
            "in StemProver's source folder"
        ) from error


def choose_preset(preset: str | None, blend: str | None) -> Preset:
    from ..engine.preset import blend_presets, load_preset, parse_blend

    if preset is not None and blend is not None:
        raise OptionError(
            "--preset and --blend exclude each other; a blend may hold a single preset, as in --blend bleed=0.6"
        )
    if blend is not None:
        return blend_presets(parse_blend(blend))
    return load_preset(preset or "general")


def make_repairer(preset: Preset, **options: Any) -> Repairer:
    from ..engine.repair import Repairer

    return Repairer(preset, **options)


def read_pipes(context: typer.Context, *paths: Path | None) -> dict[Path | None, Path]:
    """Temporary files in place of those among `paths` that are pipes, until the command ends."""
    from ..offline.pipes import regular_files
    from ..reports.terminal import show_as

    copies = context.with_resource(regular_files(paths))
    for path, copy in copies.items():
        show_as(copy, "/dev/stdin" if str(path) == "-" else str(path))
    return copies
