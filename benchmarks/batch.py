"""Many songs: a plain loop, workers on this machine, and workers by Ray, in one run.

    python -m stemprover.benchmarks.batch [--songs 4] [--seconds 180] [--short 500] [--planned 100000]

Songs: stems as long as real ones, with their mixes. Each way also runs on one short file, to tell what a start takes
from what a song takes. Short files: what the driver and its largest worker hold on the way. Plan: what a plan of many
stems takes before the first one is repaired; the files do not exist.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from ..engine.constants import MODEL_RATE
from ..offline.manifest import read_manifest
from ..offline.workers import song_tasks
from .processes import call_in_process, clean_environment, resident_mb, run_measured
from .speed import excerpt
from .table import print_table

PLAIN = "plain loop, one core"
WAYS = {
    PLAIN: ("--jobs", "1"),
    "plain loop, two cores": ("--jobs", "2"),
    "2 workers": ("--workers", "2", "--jobs", "1"),
    "1 worker by Ray": ("--workers", "1", "--cluster", "local"),
    "2 workers by Ray": ("--workers", "2", "--cluster", "local"),
}
SHORT_S = 0.5


def make_songs(folder: Path, count: int, seconds: float) -> Path:
    """A table of stems of a length, each with its mix."""
    stem, mix = excerpt(seconds)
    lines = ["stem,mix,output"]
    for number in range(count):
        for name, sound in (("stem", stem), ("mix", mix)):
            soundfile.write(folder / f"{name}{number}.wav", np.roll(sound, 1000 * number, axis=1).T, MODEL_RATE)
        lines.append(f"stem{number}.wav,mix{number}.wav,{number}.wav")
    table = folder / "batch.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def command(table: Path, out: Path, *options: str) -> list[str]:
    """`repair` of a table."""
    repair = sys.executable, "-m", "stemprover", "repair", str(table), "-o", str(out), "--device", "cpu"
    return [*repair, "--preset", "general", *options]


def time_ways(place: Path, songs: int, seconds: float) -> None:
    """Print how long each way takes."""
    for name, count, length in (("long", songs, seconds), ("one", 1, SHORT_S)):
        (place / name).mkdir()
        make_songs(place / name, count, length)
    rows, plain_s = [], 0.0
    for number, (name, options) in enumerate(WAYS.items()):
        start_s, all_s = (
            run_measured(command(place / which / "batch.csv", place / f"{which}-{number}", *options)).wall_s
            for which in ("one", "long")
        )
        song_s = (all_s - start_s) / songs
        plain_s = plain_s or song_s
        rows.append((
            name, f"{start_s:.1f}", f"{song_s:.1f}", f"{60 / song_s:.2f}", f"{plain_s / song_s:.2f}",
        ))  # fmt: skip
    head = "way", "start (s)", "a song (s)", "songs a minute", "times the plain loop"
    print_table(f"{songs} songs of {seconds:g} s", head, rows)


def watch_memory(place: Path, out: Path, count: int, *options: str) -> list[tuple[str, ...]]:
    """Memory in MB of the driver and its largest worker after each fifth of many short files."""
    with subprocess.Popen(
        command(place / "batch.csv", out, *options), env=clean_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        rows, done, began_s = list[tuple[str, ...]](), 0, time.perf_counter()
        for line in process.stdout:
            done += " -> " in line
            if " -> " in line and done % max(1, count // 5) == 0:
                minutes = (time.perf_counter() - began_s) / 60
                driver, worker = resident_mb(process.pid), max(map(resident_mb, worker_pids(process.pid)), default=0.0)
                rows.append((str(done), f"{minutes:.1f}", f"{driver:.0f}", f"{worker:.0f}"))
    return rows


def worker_pids(driver: int) -> list[int]:
    """Worker processes: children of the driver that Python has spawned, or Ray's actors (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"ray::_Actor" in line or (parent == driver and b"spawn_main" in line):
            found.append(int(folder.name))
    return found


def plan_cost(table: str) -> tuple[float, float, float]:
    """Seconds to read a plan, seconds to sort its songs, and the memory in MB that both take."""
    before_mb, began_s = resident_mb(os.getpid()), time.perf_counter()
    plan = read_manifest(Path(table), Path(table).with_name("never"))
    read_s = time.perf_counter() - began_s
    tasks, _ = song_tasks(plan)
    assert tasks
    return read_s, time.perf_counter() - began_s - read_s, resident_mb(os.getpid()) - before_mb


def main() -> None:
    """The command line."""
    from .batch import plan_cost as cost  # by this module's real name, which another process can import

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--songs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--short", type=int, default=500)
    parser.add_argument("--planned", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        time_ways(place, given.songs, given.seconds)
        (place / "short").mkdir()
        make_songs(place / "short", given.short, SHORT_S)
        for name in ("2 workers", "2 workers by Ray"):
            rows = watch_memory(place / "short", place / name, given.short, *WAYS[name])
            head = "files done", "minutes", "driver (MB)", "largest worker (MB)"
            print_table(f"{given.short} files of {SHORT_S:g} s, {name}", head, rows)
        table = place / "plan.csv"
        songs = "".join(f"song {n}/vocals.wav,song {n}/mix.wav,{n}/vocals.wav\n" for n in range(given.planned))
        table.write_text(f"stem,mix,output\n{songs}")
        read_s, sort_s, held_mb = call_in_process(cost, str(table))
        head = "stems", "reading (s)", "sorting (s)", "memory (MB)"
        print_table("A plan", head, [(str(given.planned), f"{read_s:.1f}", f"{sort_s:.1f}", f"{held_mb:.0f}")])


if __name__ == "__main__":
    main()
