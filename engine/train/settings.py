"""Training settings from a TOML file: fields of TrainOptions, with [crop], [weights], [counts], [fresh] and [model]."""

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
from .options import TrainOptions


def load_options(config: Path | None, **given: Any) -> TrainOptions:
    """The options of `config`, and over them what is `given` and not None.

    Raises OptionError, naming file and key, for a file that cannot be read, an unknown key or a value of a wrong type.
    """
    table = read_toml(config) if config is not None else {}
    options = {"run": Path("runs/base"), "pool": Path("data/pool")} | fields_from(TrainOptions, table, f"{config}: ")
    return TrainOptions(**(options | {key: value for key, value in given.items() if value is not None}))


def read_toml(config: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises OptionError."""
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionError(f"{config}: there is no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{config}: cannot be read as TOML: {error}") from error


def fields_from(kind: type, table: dict[str, Any], where: str, name: str = "") -> dict[str, Any]:
    """The values of the table called `name`, in the types of the dataclass `kind`."""
    hints = typing.get_type_hints(kind)
    table_name = f" in [{name}]" if name else ""
    values = {}
    for key, value in table.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(hints)}"
            raise OptionError(f"{where}unknown key {key!r}{table_name}; {hint}")
        values[key] = _typed(hints[key], value, where, key)
    return values


def _typed(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return hint(**fields_from(hint, value, where, key))
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
        raise OptionError(f"{where}{key} = {value!r} is not of the type {getattr(hint, '__name__', hint)}")
    return value
