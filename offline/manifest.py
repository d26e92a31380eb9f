"""A batch as a table, `batch.csv` or `batch.jsonl`: one line a stem, with its mix, preset, amount and output.

Columns: stem, mix, rest, preset (a name, a path, a blend or auto), wet, output. Only `stem` is needed. Paths are
relative to the table's folder, outputs to the output folder. Stems, mixes and the output folder may be addresses
(address.py).
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..engine.errors import InputError, OptionError
from ..engine.preset import AUTO, preset_or_blend
from .address import place
from .outfile import atomic_output
from .plan import BatchJob, BatchPlan, check_collisions

COLUMNS = ("stem", "mix", "rest", "preset", "wet", "output")
SUFFIXES = (".csv", ".jsonl")


def is_manifest(path: Path) -> bool:
    """Whether this is the name of a table, rather than of an audio file."""
    return path.suffix.lower() in SUFFIXES


def read_manifest(path: Path, folder: Path) -> BatchPlan:
    """The plan in a table, with results in `folder`. Raises OptionError, which names the line, for a table that cannot
    be read."""
    jobs = []
    try:
        for number, row in _rows(path):
            try:
                jobs.append(_job(row, path.parent, folder))
            except InputError as error:
                raise OptionError(f"{path}, line {number}: {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OptionError(f"{path} cannot be read as a table ({error}); save it as UTF-8") from error
    if not jobs:
        raise OptionError(f"{path} names no stems; it needs a line for each, and the columns {', '.join(COLUMNS)}")
    check_collisions(jobs)
    files = (path for job in jobs for path in (job.source, job.mix, job.rest) if path is not None)
    return BatchPlan(tuple(jobs), tuple(dict.fromkeys(files)), folder=folder)


def write_manifest(path: Path, plan: BatchPlan, *, overwrite: bool) -> None:
    """Write a plan as a table. Raises OptionError, OutputError, OutputExistsError."""
    if not is_manifest(path):
        raise OptionError(f"--plan {path}: use a name that ends with {' or '.join(SUFFIXES)}")
    if plan.folder is None:
        raise OptionError("--plan needs an output folder: put a slash at the end of the output")
    rows = [_row(job, path.parent.absolute(), plan.folder) for job in plan.jobs]
    with atomic_output(path, plan.inputs, overwrite=overwrite) as part:
        if path.suffix.lower() == ".jsonl":
            given = ({name: value for name, value in row.items() if value != ""} for row in rows)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given)
        else:
            sheet = io.StringIO()
            writer = csv.DictWriter(sheet, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            text = sheet.getvalue()
        part.write_text(text, encoding="utf-8")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        yield from ((reader.line_num, row) for row in reader)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise OptionError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise OptionError(f'{path}, line {number}: not an object; write {{"stem": "vocals.wav"}}')
            yield number, row


def _job(row: dict[str, Any], base: Path, folder: Path) -> BatchJob:
    if strange := [str(name) for name in row if name not in COLUMNS]:
        raise OptionError(f"no column is called {strange[0]!r}; use {', '.join(COLUMNS)}")
    given = {name: str(value).strip() for name, value in row.items() if value not in (None, "")}
    if "stem" not in given:
        raise OptionError("there is no stem")
    if "mix" in given and "rest" in given:
        raise OptionError("mix and rest exclude each other; give one of them")
    source = place(given["stem"], base)
    output = Path(given.get("output", source.name))
    if output.is_absolute() or ".." in output.parts or not output.name:
        raise OptionError(f"output {output}: use a path inside the output folder")
    preset = given.get("preset")
    if preset is not None and preset != AUTO:
        _checked_preset(preset)
    mix, rest = (place(given[name], base) if name in given else None for name in ("mix", "rest"))
    return BatchJob(source, folder / output, mix, rest, preset, _wet(given.get("wet")))


_checked_preset = cache(preset_or_blend)


def _wet(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        wet = float(text)
    except ValueError:
        wet = -1.0
    if not 0.0 <= wet <= 1.0:
        raise OptionError(f"wet {text}: use a number from 0 to 1")
    return wet


def _row(job: BatchJob, base: Path, folder: Path) -> dict[str, Any]:
    def shown(path: Path | None) -> str:
        if path is None:
            return ""
        whole = path.absolute()
        return whole.relative_to(base).as_posix() if whole.is_relative_to(base) else str(whole)

    return {
        "stem": shown(job.source),
        "mix": shown(job.mix),
        "rest": shown(job.rest),
        "preset": job.preset or "",
        "wet": "" if job.wet is None else job.wet,
        "output": Path(os.path.relpath(job.target, folder)).as_posix(),
    }
