"""Puts the DAW plug-in where hosts look for plug-ins."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ..engine.errors import OptionError, OutputError

BUNDLES = ("StemProver.vst3", "StemProver.lv2")
BUILT = Path(__file__).parent / "plugin" / "dist"


@dataclass(frozen=True)
class Installed:
    """A plug-in that was put in its place, and whether it took the place of another one."""

    path: Path
    replaced: bool


def folder_for(bundle: str, home: Path | None = None) -> Path:
    """Where hosts of this system look for a user's own plug-ins of a bundle's kind (VST3: Steinberg's locations; LV2:
    lv2plug.in, "LV2_PATH")."""
    home = home or Path.home()
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


def install(source: Path | None = None, home: Path | None = None) -> list[Installed]:
    """Copy the built plug-ins into the user's plug-in folders; each takes the place of an older one in one step. Raises
    OptionError where there is nothing built, OutputError where a folder cannot be written."""
    source = source or BUILT
    bundles = [source / name for name in BUNDLES if (source / name).is_dir()]
    if not bundles:
        raise OptionError(
            f"no {' or '.join(BUNDLES)} in {source}; build them with make plugin in a checkout, or name a folder that "
            "holds them (--from)"
        )
    done = []
    for bundle in bundles:
        target = folder_for(bundle.name, home) / bundle.name
        part, old = (target.with_name(f".{target.name}.{kind}") for kind in ("part", "old"))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for leftover in (part, old):
                shutil.rmtree(leftover, ignore_errors=True)
            shutil.copytree(bundle, part)
            replaced = target.exists()
            if replaced:
                target.rename(old)
            part.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            why = f"{target} cannot be written ({error.strerror}); close hosts that use it, or check rights"
            raise OutputError(why) from None
        done.append(Installed(target, replaced))
    if (command := find_command()) is not None:
        note = command_file()
        note.parent.mkdir(parents=True, exist_ok=True)
        part = note.with_suffix(".part")
        part.write_text(f"{command}\n")
        os.replace(part, note)
    return done


def remove(home: Path | None = None) -> list[Path]:
    """Take the plug-ins out of the user's folders again; returns what was there."""
    gone = []
    for name in BUNDLES:
        target = folder_for(name, home) / name
        if target.is_dir():
            shutil.rmtree(target)
            gone.append(target)
    command_file().unlink(missing_ok=True)
    return gone
