"""Presets: what to repair, as a folder with a preset.toml and, usually, an adapter file.

Shipped presets are in the package's presets/ folder, a user's own in `user_preset_folder()`. Keys of a preset.toml
(* required):

    name* title* description* for*   text; the name must equal the folder's
    wet                              0 (no repair) to 1 (the whole repair), the default
    separated                        true: for stems of mask-based separators, with --mix: a Wiener filter helps
    trained, note                    false, and a note, if the adapter is not trained yet
    [adapters]                       file in this folder = weight 0 to 1.5; without any: the base model alone
    [[before]] [[after]]             plugin = "HighpassFilter" and its parameters (chain.py has the list)

Any other key is an error that names the file and the key.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .chain import PluginSettings
from .constants import MAX_WEIGHT
from .errors import OptionError, PresetError

AUTO = "auto"  # instead of a preset: the detectors choose (auto.py)
SHIPPED = Path(__file__).resolve().parent.parent / "presets"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_TEXT_KEYS = ("name", "title", "description", "for")
_KEYS = (*_TEXT_KEYS, "wet", "separated", "trained", "note", "adapters", "before", "after")


@dataclass(frozen=True)
class Preset:
    """What to repair and how much. Checks itself: PresetError names the key, and the file if there is one."""

    name: str
    title: str
    description: str
    artefact: str
    wet: float = 1.0
    separated: bool = False
    trained: bool = True
    note: str = ""
    adapters: Mapping[Path, float] = field(default_factory=dict)
    before: tuple[PluginSettings, ...] = ()
    after: tuple[PluginSettings, ...] = ()
    path: Path | None = None

    def __post_init__(self) -> None:
        where = f"{self.path}: " if self.path else ""
        for key, text in zip(_TEXT_KEYS, (self.name, self.title, self.description, self.artefact), strict=True):
            if not isinstance(text, str) or not text.strip():
                raise PresetError(f"{where}{key} = {text!r} is not text")
        for key, flag in (("trained", self.trained), ("separated", self.separated)):
            if not isinstance(flag, bool):
                raise PresetError(f"{where}{key} = {flag!r} is neither true nor false")
        if not isinstance(self.note, str):
            raise PresetError(f"{where}note = {self.note!r} is not text")
        if not _is_number(self.wet) or not 0 <= self.wet <= 1:
            raise PresetError(f"{where}wet = {self.wet!r} is not a number from 0 to 1")
        for file, weight in self.adapters.items():
            if not _is_number(weight) or not 0 <= weight <= MAX_WEIGHT:
                raise PresetError(
                    f"{where}[adapters] {file.name} = {weight!r} is not a weight from 0 to {MAX_WEIGHT:g}"
                )
        object.__setattr__(self, "adapters", MappingProxyType(dict(self.adapters)))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"adapters": dict(self.adapters)}  # a view cannot be sent to another process

    @property
    def is_shipped(self) -> bool:
        return self.path is not None and self.path.is_relative_to(SHIPPED)


def user_preset_folder() -> Path:
    """Where a user's own presets are: $STEMPROVER_PRESETS, or `presets` in the system's settings folder."""
    if override := os.environ.get("STEMPROVER_PRESETS"):
        return Path(override).expanduser()
    import platformdirs

    return Path(platformdirs.user_config_dir("stemprover", appauthor=False)) / "presets"


def find_presets() -> dict[str, Path]:
    """Name -> preset.toml, shipped ones first; the files are not read. A user's preset with a shipped name is ignored
    with a warning, so that it does not disable the other presets."""
    found: dict[str, Path] = {}
    for folder in (SHIPPED, user_preset_folder()):
        files = sorted(folder.glob("*/preset.toml")) if folder.is_dir() else []
        for file in files:
            name = file.parent.name
            if name in found:
                warnings.warn(
                    f"{file} is ignored: {name!r} is a shipped preset; rename the folder and its name key",
                    stacklevel=2,
                )
                continue
            found[name] = file
    return found


def list_presets() -> list[Preset]:
    """All presets, shipped ones first. Raises PresetError for the first invalid one."""
    return [check_preset(path) for path in find_presets().values()]


def load_preset(name_or_path: str | os.PathLike[str]) -> Preset:
    """A preset by name, or by the path of its folder or preset.toml. Raises PresetError (with the nearest name)."""
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, os.PathLike) or "/" in text or os.sep in text or text.endswith(".toml"):
        return check_preset(Path(text))
    if text == AUTO:
        raise PresetError("auto is not a preset but chooses presets; use it alone, as in repair --preset auto")
    found = find_presets()
    if text not in found:
        names = [AUTO, *found]
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? Presets" if near else "presets"
        raise PresetError(f"there is no preset {text!r}; {hint}: {', '.join(names)}")
    return check_preset(found[text])


def preset_or_blend(text: str | os.PathLike[str]) -> Preset:
    """As `load_preset`; a string with `=` is a blend, as in "bleed=0.6,musical-noise=0.4". Raises OptionError too."""
    return blend_presets(parse_blend(text)) if isinstance(text, str) and "=" in text else load_preset(text)


def check_preset(path: str | os.PathLike[str]) -> Preset:
    """Read and check one preset folder or preset.toml. Raises PresetError, which names the file and the key."""
    file = Path(os.path.expanduser(path))  # unlike Path.expanduser, keeps unknown users
    if file.is_dir():
        file = file / "preset.toml"
    table = _read_toml(file)
    for key in table:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(_KEYS)}"
            raise PresetError(f"{file}: unknown key {key!r}; {hint}")
    for key in _TEXT_KEYS:
        if key not in table:
            raise PresetError(f"{file}: the key {key!r} is missing")
    name = table["name"]
    folder = file.resolve().parent
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PresetError(f"{file}: name = {name!r} may only have lower-case letters, digits and hyphens")
    if name == AUTO:
        raise PresetError(f"{file}: name = 'auto' is reserved; choose another name")
    if name != folder.name:
        raise PresetError(f"{file}: name = {name!r} differs from the folder's name {folder.name!r}; make them equal")
    return Preset(
        name=name,
        title=table["title"],
        description=table["description"],
        artefact=table["for"],
        wet=table.get("wet", 1.0),
        separated=table.get("separated", False),
        trained=table.get("trained", True),
        note=table.get("note", ""),
        adapters=_adapters(table.get("adapters", {}), file, folder),
        before=_links(table.get("before", []), "before", file),
        after=_links(table.get("after", []), "after", file),
        path=folder / file.name,
    )


def parse_blend(text: str) -> dict[str, float]:
    """`bleed=0.6,musical-noise=0.4` to {name: weight}. Raises OptionError; unknown names are left to blend_presets."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not equals or math.isnan(weight):
            raise OptionError(f"blend {text!r}: {part.strip()!r} is not NAME=WEIGHT, as in bleed=0.6,musical-noise=0.4")
        if not 0 <= weight <= MAX_WEIGHT:
            raise OptionError(f"blend {text!r}: the weight {number} of {name} is out of range; use 0 to {MAX_WEIGHT:g}")
        if name in weights:
            raise OptionError(f"blend {text!r}: {name} appears twice; use each preset once")
        weights[name] = weight
    return weights


def blend_presets(weights: Mapping[str, float]) -> Preset:
    """One preset out of several: each one's adapters at its weight, and the weighted mean of their wet values.

    Plugin chains are left out, since the order of several would be arbitrary; the note says so.
    Raises OptionError for a weight outside 0 to 1.5 and PresetError for an unknown preset.
    """
    if not weights:
        raise OptionError("a blend needs at least one preset, as in bleed=0.6")
    for name, weight in weights.items():
        if not _is_number(weight) or not 0 <= weight <= MAX_WEIGHT:
            raise OptionError(f"the weight {weight!r} of {name} is out of range; use 0 to {MAX_WEIGHT:g}")
    parts = {name: load_preset(name) for name in weights}
    adapters: dict[Path, float] = {}
    for name, preset in parts.items():
        for file, weight in preset.adapters.items():
            adapters[file] = adapters.get(file, 0.0) + weight * weights[name]
    for file, weight in adapters.items():
        if weight > MAX_WEIGHT:
            raise OptionError(
                f"the adapter {file} would get the weight {weight:g}; use weights up to {MAX_WEIGHT:g} in all"
            )
    total = sum(weights.values())
    wets = [preset.wet for preset in parts.values()]
    wet = sum(parts[name].wet * weight for name, weight in weights.items()) / total if total else sum(wets) / len(wets)
    text = ",".join(f"{name}={weight:g}" for name, weight in weights.items())
    chained = [name for name, preset in parts.items() if preset.before or preset.after]
    untrained = [name for name, preset in parts.items() if not preset.trained]
    notes = [f"a blend runs without the plugin chains of {', '.join(chained)}"] if chained else []
    separated = [name for name, preset in parts.items() if preset.separated]
    if separated and len(separated) < len(parts):
        notes.append(f"treated as an ordinary stem, not as a separator's as with {', '.join(separated)} alone")
    notes += [f"not trained yet, so the same as general: {', '.join(untrained)}"] if untrained else []
    return Preset(
        name=text,
        title=" + ".join(preset.title for preset in parts.values()),
        description=f"A blend: {text}.",
        artefact=", ".join(preset.artefact for preset in parts.values()),
        wet=wet,
        separated=len(separated) == len(parts),
        trained=all(preset.trained for preset in parts.values()),
        note="; ".join(notes),
        adapters=adapters,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PresetError(f"{file}: no such file; a preset is a folder with a preset.toml in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(f"{file}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise PresetError(f"{file}: is not valid TOML: {error}") from error


def _adapters(table: object, file: Path, folder: Path) -> dict[Path, float]:
    if not isinstance(table, dict):
        raise PresetError(f'{file}: adapters is not a table; write [adapters] and below it "adapter.safetensors" = 1.0')
    adapters: dict[Path, float] = {}
    for name, weight in table.items():
        path = folder / name
        if Path(name).name != name:
            raise PresetError(f"{file}: [adapters] {name!r} must be a file in the preset's own folder")
        if not path.is_file():
            raise PresetError(f"{file}: [adapters] {name!r} is missing from {folder}")
        adapters[path] = weight
    return adapters


def _links(tables: object, key: str, file: Path) -> tuple[PluginSettings, ...]:
    if not isinstance(tables, list):
        raise PresetError(f"{file}: {key} is not a list of tables; write [[{key}]]")
    links = []
    for number, table in enumerate(tables, start=1):
        try:
            links.append(PluginSettings.from_toml(table))
        except PresetError as error:
            raise PresetError(f"{file}: [[{key}]] number {number}: {error}") from None
    return tuple(links)
