"""Installs the built DAW plug-in where hosts look for plug-ins."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ...engine.errors import OptionError, OutputError

BUNDLES = ("StemProver.vst3", "StemProver.lv2")
BUILT = Path(__file__).parent / "dist"


@dataclass(frozen=True)
class Installed:
    """An installed plug-in, and whether it replaced an older one."""

    path: Path
    replaced: bool


def folder_for(bundle: str) -> Path:
    """The user's plug-in folder for this kind of bundle (VST3: Steinberg's locations; LV2: lv2plug.in, "LV2_PATH")."""
    home = Path.home()
    kind = Path(bundle).suffix
    if sys.platform == "darwin":
        return home / "Library" / "Audio" / "Plug-Ins" / kind[1:].upper()
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home))
        return local / "Programs" / "Common" / "VST3" if kind == ".vst3" else Path(os.environ["APPDATA"]) / "LV2"
    return home / kind


def command_file() -> Path:
    """The file in which the plug-in finds the command that starts the bridge."""
    return Path(platformdirs.user_config_dir("stemprover", appauthor=False)) / "command"


def find_command() -> Path | None:
    """This installation's `stemprover` command."""
    beside = Path(sys.executable).with_name("stemprover.exe" if sys.platform == "win32" else "stemprover")
    found = beside if beside.is_file() else shutil.which("stemprover")
    return Path(found).absolute() if found else None


def install(source: Path | None = None) -> list[Installed]:
    """Copy the built plug-ins into the user's plug-in folders, and note this installation's `stemprover` command, with
    which the plug-in starts the bridge.

    An older plug-in is replaced, or left as it is if the copy fails. Raises OptionError if there are no built plug-ins,
    OutputError if a folder cannot be written.
    """
    source = source or BUILT
    bundles = [source / name for name in BUNDLES if (source / name).is_dir()]
    if not bundles:
        raise OptionError(
            f"{source} contains no {' or '.join(BUNDLES)}; build them with make plugin in a checkout, or pass "
            "the folder that contains them (--from)"
        )
    done = []
    for bundle in bundles:
        target = folder_for(bundle.name) / bundle.name
        with _output_errors(target, "write"):
            done.append(Installed(target, _copy(bundle, target)))
    if (command := find_command()) is not None:
        note = command_file()
        with _output_errors(note, "write"):
            note.parent.mkdir(parents=True, exist_ok=True)
            part = note.with_suffix(".part")
            part.write_text(f"{command}\n")
            os.replace(part, note)
    return done


def remove() -> list[Path]:
    """Remove the plug-ins from the user's folders and return the paths that were removed. Raises OutputError if one
    cannot be removed."""
    removed = []
    for name in BUNDLES:
        target = folder_for(name) / name
        with _output_errors(target, "remove"):
            if target.is_symlink():
                target.unlink()
            elif target.is_dir():
                shutil.rmtree(target)
            else:
                continue
        removed.append(target)
    with _output_errors(command_file(), "remove"):
        command_file().unlink(missing_ok=True)
    return removed


def _copy(bundle: Path, target: Path) -> bool:
    """Copy the bundle to the target, all or nothing. Returns whether there was an older one."""
    part, old = (target.with_name(f".{target.name}.{kind}") for kind in ("part", "old"))
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        shutil.copytree(bundle, part)
        replaced = target.exists()
        if replaced:
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if replaced:
                old.rename(target)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return replaced


@contextlib.contextmanager
def _output_errors(path: Path, action: str) -> Iterator[None]:
    """Turns an OSError into an OutputError with a one-line message."""
    try:
        yield
    except OSError as error:  # shutil.Error has no strerror, but a list of (source, target, message)
        why = error.strerror or str(error.args[0][0][2] if error.args and error.args[0] else error)
        raise OutputError(
            f"cannot {action} {path} ({why}); close hosts that use it, and check permissions and free disk space"
        ) from None
