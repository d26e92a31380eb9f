"""What a corpus is made of: a table to read, and a manifest with the licence, split and checksum of every file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .rendered_songs import made_of
from .sources import ROLES, SPLITS, Source, cache_dir

VERSION = 1
NAME = "manifest.json"
_SAVE_EVERY = 1 << 30  # bytes


class Hashes:
    """SHA-256 checksums of files, computed once and cached by path, size and modification time."""

    def __init__(self, store: Path | None = None) -> None:
        self.store = store if store is not None else cache_dir() / "hashes.json"
        try:
            self._known: dict[str, list[Any]] = json.loads(self.store.read_text())
        except (OSError, ValueError):
            self._known = {}
        self._new_bytes = 0

    def of(self, path: Path) -> str:
        """The file's checksum in hexadecimal."""
        about = path.stat()
        key = str(path.resolve())
        known = self._known.get(key)
        if known is None or known[:2] != [about.st_size, about.st_mtime_ns]:
            with path.open("rb") as file:
                known = [about.st_size, about.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
            self._known[key] = known
            self._new_bytes += about.st_size + 1
            if self._new_bytes > _SAVE_EVERY:
                self.save()
        return str(known[2])

    def save(self) -> None:
        """Write new checksums to the cache."""
        if self._new_bytes:
            self.store.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.store, self._known)
            self._new_bytes = 0


def write_json(path: Path, value: object) -> None:
    """Write a JSON file under a temporary name first, so that it is never incomplete."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
    part.replace(path)


def describe(sources: list[Source], roots: Iterable[Path], hashes: Hashes) -> list[dict[str, Any]]:
    """The manifest's entries, one per source, sorted by name. Paths are relative to the root that holds them."""
    entries = []
    roots = [root.resolve() for root in roots]
    for source in sorted(sources, key=lambda source: source.name):
        files = []
        for part in source.parts:
            path = part.resolve()
            root = next((root for root in roots if path.is_relative_to(root)), path.parent)
            files.append(
                {"file": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": hashes.of(path)}
            )
        entry = {
            "name": source.name, "collection": source.collection, "role": source.role, "kind": source.kind,
            "licence": source.licence, "split": source.split, "minutes": round(source.duration_s / 60, 2),
            "files": files,
        }  # fmt: skip
        made = made_of(source) if source.kind in ("rendered", "singing") else {}
        entries.append(entry | ({"made_of": made} if made else {}))
    hashes.save()
    return entries


def differences(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str:
    """How the sources of two manifests differ, in one line; empty if they have the same audio in the same splits."""

    def key(entries: list[dict[str, Any]]) -> dict[str, Any]:
        return {entry["name"]: (entry["split"], [file["sha256"] for file in entry["files"]]) for entry in entries}

    before, now = key(old), key(new)
    found = []
    for what, names in (
        ("new", now.keys() - before.keys()),
        ("missing", before.keys() - now.keys()),
        ("changed", {name for name in now.keys() & before.keys() if now[name] != before[name]}),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            found.append(f"{what}: {', '.join(sorted(names)[:3])}{more}")
    return "; ".join(found)


def render_table(sources: list[Source]) -> str:
    """A table of collections by kind and split with licences and minutes, followed by the hours of each split."""
    rows: dict[tuple[str, str, str], tuple[set[str], float]] = {}
    for source in sources:
        key = (source.collection, f"{source.kind} {source.role}", source.split)
        licences, minutes = rows.get(key, (set(), 0.0))
        licences = licences | set(source.licence.split(", "))
        rows[key] = (licences, minutes + source.duration_s / 60)
    cells = [("from", "kind", "split", "licence", "minutes")]
    cells += [
        (*key, _ellipsis(", ".join(sorted(licences)), 48), f"{minutes:.1f}")
        for key, (licences, minutes) in sorted(rows.items(), key=lambda row: (SPLITS.index(row[0][2]), row[0]))
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", render_hours(sources)])


def render_hours(sources: list[Source]) -> str:
    """Hours of true stems by role, one line for each split."""
    lines = []
    for split in SPLITS:
        hours = dict.fromkeys(ROLES, 0.0)
        for source in sources:
            if source.split == split:
                hours[source.role] += source.duration_s / 3600
        if sum(hours.values()):
            parts = ", ".join(f"{value:.2f} h {role}" for role, value in hours.items())
            lines.append(f"{split}: {sum(hours.values()):.2f} h ({parts})")
    return "\n".join(lines)


def _ellipsis(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    return [*cells[:-1], row[-1].rjust(widths[-1])]
