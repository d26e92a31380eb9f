"""Puts the DAW plug-in where hosts look for plug-ins."""

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
BUILT = Path(__file__).parent / "plugin" / "dist"


@dataclass(frozen=True)
class Installed:
    """A plug-in that was put in its place, and whether it took the place of another one."""

    path: Path
    replaced: bool


def folder_for(bundle: str) -> Path:
    """Where hosts of this system look for a user's own plug-ins of a bundle's kind (VST3: Steinberg's locations; LV2:
    lv2plug.in, "LV2_PATH")."""
    home = Path.home()
    kind = Path(bundle).suffix
    if sys.platform == "darwin":
        return home / "Library" / "Audio" / "Plug-Ins" / kind[1:].upper()
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home))
        return local / "Programs" / "Common" / "VST3" if kind == ".vst3" else Path(os.environ["APPDATA"]) / "LV2"
    return home / kind


def command_file() -> Path:
    """In which the plug-in finds the command that starts the bridge."""
    return Path(platformdirs.user_config_dir("stemprover", appauthor=False)) / "command"


def find_command() -> Path | None:
    """The `stemprover` command of this installation."""
    beside = Path(sys.executable).with_name("stemprover.exe" if sys.platform == "win32" else "stemprover")
    found = beside if beside.is_file() else shutil.which("stemprover")
    return Path(found).absolute() if found else None


def install(source: Path | None = None) -> list[Installed]:
    """Copy the built plug-ins into the user's plug-in folders, each in place of an older one, which stays where that
    fails; and note where this installation's `stemprover` is, for the plug-in to start the bridge with.

    Raises OptionError where there is nothing built, OutputError where a folder cannot be written.
    """
    source = source or BUILT
    bundles = [source / name for name in BUNDLES if (source / name).is_dir()]
    if not bundles:
        raise OptionError(
            f"no {' or '.join(BUNDLES)} in {source}; build them with make plugin in a checkout, or name a folder that "
            "holds them (--from)"
        )
    done = []
    for bundle in bundles:
        target = folder_for(bundle.name) / bundle.name
        with _told(target, "written"):
            done.append(Installed(target, _put(bundle, target)))
    if (command := find_command()) is not None:
        note = command_file()
        with _told(note, "written"):
            note.parent.mkdir(parents=True, exist_ok=True)
            part = note.with_suffix(".part")
            part.write_text(f"{command}\n")
            os.replace(part, note)
    return done


def remove() -> list[Path]:
    """Take the plug-ins out of the user's folders again; returns what was there. Raises OutputError where one cannot be
    removed."""
    gone = []
    for name in BUNDLES:
        target = folder_for(name) / name
        with _told(target, "removed"):
            if target.is_symlink():
                target.unlink()
            elif target.is_dir():
                shutil.rmtree(target)
            else:
                continue
        gone.append(target)
    with _told(command_file(), "removed"):
        command_file().unlink(missing_ok=True)
    return gone


def _put(bundle: Path, target: Path) -> bool:
    """A copy of the bundle under the target's name; whether there was one. All or nothing."""
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
def _told(path: Path, done: str) -> Iterator[None]:
    """Turns what goes wrong with a file or folder into a line for people."""
    try:
        yield
    except OSError as error:  # shutil's own has no strerror, but a list of what went wrong
        why = error.strerror or str(error.args[0][0][2] if error.args and error.args[0] else error)
        raise OutputError(
            f"{path} cannot be {done} ({why}); close hosts that use it, or check rights and room"
        ) from None
