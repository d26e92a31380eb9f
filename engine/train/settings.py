"""Reads the fields of a settings dataclass from a TOML file, with its tables as nested dataclasses."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from ..errors import OptionError


def read_fields(kind: type, config: Path | None) -> dict[str, Any]:
    """The fields of the dataclass `kind` that the file sets, each in its declared type; none without a file.

    Raises OptionError, naming file and key, if the file cannot be read, or has an unknown key or a value of the wrong
    type.
    """
    if config is None:
        return {}
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionError(f"{config}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{config}: cannot be read as TOML: {error}") from error
    return _fields(kind, table, f"{config}: ")


def _fields(kind: type, table: dict[str, Any], where: str, name: str = "") -> dict[str, Any]:
    """`name` is the table's own name, for messages; `where` is what they begin with."""
    hints = typing.get_type_hints(kind)
    table_name = f" in [{name}]" if name else ""
    values = {}
    for key, value in table.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(hints)}"
            raise OptionError(f"{where}unknown key {key!r}{table_name}; {hint}")
        values[key] = _typed(hints[key], value, where, key)
    return values


def _typed(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return hint(**_fields(hint, value, where, key))
    if typing.get_origin(hint) is collections.abc.Mapping and isinstance(value, dict):
        return {name: _typed(typing.get_args(hint)[1], one, where, f"{key}.{name}") for name, one in value.items()}
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(value)
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if Path in choices and isinstance(value, str):
        return Path(value)
    if float in choices and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not any(isinstance(choice, type) and type(value) is choice for choice in choices):
        raise OptionError(f"{where}{key} = {value!r} is not of type {getattr(hint, '__name__', hint)}")
    return value
