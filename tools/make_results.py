"""Write docs/results.md from the reports and benchmark outputs in a folder.

    python tools/make_results.py report --run --songs FOLDER_OF_SONGS     # measure what is missing (hours), then write
    python tools/make_results.py report                                   # write the page only

MEASUREMENTS below is the list of everything on the page: the sentence, the commands and the files that they write. If a
file is missing, the page has the command in place of the table; such a page replaces an existing one only with
--incomplete. To measure something again, delete its file.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from stemprover import __version__
from stemprover.benchmarks.table import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
#: What the cases are repaired with: by name, the options of `stemprover validate`.
REPAIRS = {"general": "--preset general", "auto": "--preset auto", "without the mix": "--preset general --no-mix"}
ORDER = ("unknown-", "known-", "separated-")  # kinds of cases
HARM_DB = 0.2
NO_SONGS = "FOLDER_OF_SONGS"
UNCHANGED_DB = 150.0  # stands for infinity: a true stem that comes back bit for bit

Case = dict[str, Any]
Cases = list[Case]
Cell = Callable[[str, Cases], str]


def pairs(cases: Cases, measure: str) -> np.ndarray:
    """Values before and after (N, 2) of the cases that have this measure."""
    found = [case["measures"].get(measure) for case in cases]
    return np.array([pair for pair in found if pair is not None and None not in pair], float).reshape(-1, 2)


def gains(cases: Cases) -> np.ndarray:
    """Gains of SI-SDR in dB (N,)."""
    return np.diff(pairs(cases, "SI-SDR"), axis=1)[:, 0]


def gain(_: str, cases: Cases) -> str:
    """Median gain of SI-SDR, and that of the worst case."""
    found = gains(cases)
    return f"{np.median(found):+.2f} ({found.min():+.2f})" if len(found) else "-"


def harmed(_: str, cases: Cases) -> str:
    """Share of the cases that lose more than HARM_DB."""
    found = gains(cases)
    return f"{100 * np.mean(found < -HARM_DB):.0f}%" if len(found) else "-"


def distance(_: str, cases: Cases) -> str:
    """Change of the median log-spectral distance."""
    found = pairs(cases, "Log-spectral distance")
    if not len(found):
        return "-"
    before, after = np.median(found, axis=0)
    return f"{100 * (after / before - 1):+.1f}%"


def pauses(_: str, cases: Cases) -> str:
    """Median change of the level in the true stem's pauses, and that of the worst case."""
    found = np.diff(pairs(cases, "Level in pauses"), axis=1)[:, 0]
    return f"{np.median(found):+.1f} ({found.max():+.1f})" if len(found) else "-"


def preserved(_: str, cases: Cases) -> str:
    """SDR at which the true stems of these cases come back from the same repair: median / worst."""
    found = [UNCHANGED_DB if case["clean_sdr_db"] is None else case["clean_sdr_db"] for case in cases]
    return f"{np.median(found):.1f} / {min(found):.1f}"


def before(_: str, cases: Cases) -> str:
    """Median SI-SDR before the repair."""
    found = pairs(cases, "SI-SDR")
    return f"{np.median(found[:, 0]):.1f}" if len(found) else "-"


COLUMNS: dict[str, Cell] = {
    "SI-SDR before, dB": before, "gain, median (worst)": gain, f"lose more than {HARM_DB} dB": harmed,
    "distance": distance, "pauses, dB": pauses, "a true stem comes back at, dB": preserved,
}  # fmt: skip


def read_cases(path: Path) -> Cases:
    """The cases of a report.json of `stemprover validate`."""
    cases: Cases = json.loads(path.read_text())["cases"]
    return cases


def by_kind(cases: Cases) -> dict[str, Cases]:
    """The cases by kind, in ORDER."""
    kinds = sorted({case["kind"] for case in cases}, key=lambda kind: (not_first(kind), kind))
    return {kind: [case for case in cases if case["kind"] == kind] for kind in kinds}


def not_first(kind: str) -> int:
    """Where a kind of case comes in ORDER."""
    return next((place for place, start in enumerate(ORDER) if kind.startswith(start)), len(ORDER))


def fault_tables(files: Mapping[str, Path]) -> str:
    """A table for each repair, with a row for each kind of case."""
    parts = []
    for name, path in files.items():
        rows = [
            [kind, str(len(cases)), *(cell(kind, cases) for cell in COLUMNS.values())]
            for kind, cases in by_kind(read_cases(path)).items()
        ]
        parts.append(f"### {name}\n\n" + markdown_table(["fault", "cases", *COLUMNS], rows))
    return "\n\n".join(parts)


def printed(files: Mapping[str, Path]) -> str:
    """What the commands printed, which is Markdown."""
    return "\n\n".join(path.read_text().strip() for path in files.values())


def figures(files: Mapping[str, Path]) -> str:
    """Links to the figures of the presets."""
    (folder,) = files.values()
    return "\n".join(
        f"![{path.stem}: before the repair, after it, and the true stem](presets/{path.name})"
        for path in sorted(folder.glob("*.png"))
    )


@dataclass(frozen=True)
class Measurement:
    """A section of the page. inputs: by name, the file that its command writes under the folder, and the command. A
    command that ends with > FILE writes what it prints; {folder}, {pool}, {cases} and {songs} stand for folders."""

    title: str
    sentence: str
    inputs: dict[str, tuple[str, str]]
    render: Callable[[Mapping[str, Path]], str] = field(default=printed)

    def is_complete(self, folder: Path) -> bool:
        """Whether all its files are in the folder."""
        return all((folder / file).exists() for file, _ in self.inputs.values())


def validate(name: str, options: str) -> tuple[str, str]:
    """The report of `stemprover validate` on the held-out cases, and the command for it."""
    return f"{name}/report.json", f"stemprover validate {{cases}}/test -o {{folder}}/{name} {options}"


def prints(name: str, command: str) -> tuple[str, str]:
    """A file with what a command prints, and the command with its redirection."""
    return f"{name}.md", f"{command} > {{folder}}/{name}.md"


def module(name: str, benchmark: str, options: str = "") -> tuple[str, str]:
    """As `prints`, for a module of stemprover.benchmarks."""
    return prints(name, f"python -m stemprover.benchmarks.{benchmark} {options}".strip())


MEASUREMENTS = (
    Measurement(
        "Faults and separators",
        "Songs that neither weights nor trust were fitted on. Unknown faults are made by mechanisms that were never "
        "trained on, known ones by those that were; separated stems are Spleeter's. Each table is one repair.",
        {name: validate(name.replace(" ", "-"), f"{options} --brief") for name, options in REPAIRS.items()},
        fault_tables,
    ),
    Measurement(
        "Two faults at once",
        "Stems with two simulated faults, repaired with the blend of the two presets at weight 1 each, compared with "
        "either preset alone and with general.",
        {"two-faults": prints("two-faults", "python tools/measure_two_faults.py {cases}/test --stems 4")},
    ),
    Measurement(
        "A preset's own figure",
        "Spectrograms of one held-out case for each preset.",
        {"figures": (str(ROOT / "docs" / "presets"), "python tools/make_preset_figures.py {cases}/test docs/presets")},
        figures,
    ),
    Measurement(
        "Other methods",
        "StemProver compared with other methods on the same cases, each on one CPU core; the real-time factor is CPU "
        "seconds a second of audio.",
        {"peers": module("peers", "peers", "{cases}/test --cases 6")},
    ),
    Measurement(
        "True stems",
        "Stems of recorded songs with nothing to repair: the SDR at which they come back. Then stems with a tenth of "
        "the rest of their mix in them: what is gained.",
        {
            name: prints(f"true-stems-{name}", f"python tools/measure_true_stems.py {{songs}} {options}")
            for name, options in {
                "general": "--preset general",
                "auto": "--preset auto",
                "general-bleed": "--preset general --bleed 0.1",
                "auto-bleed": "--preset auto --bleed 0.1",
            }.items()
        },
    ),
    Measurement(
        "Stems that sum to the mix",
        "Both stems of a song by Spleeter, repaired, and then corrected so that they sum to the mix.",
        {"consistency": module("consistency", "consistency", "{pool} --split test")},
    ),
    Measurement(
        "Recognising a separator's stems",
        "How many stems of each kind `analyze` and auto take for the output of a mask-based separator.",
        {
            "separator-mark": prints(
                "separator-mark",
                "python tools/measure_separator_mark.py {cases}/test --pool {pool}/test --items 40 --songs {songs}",
            )
        },
    ),
    Measurement(
        "Phase by band",
        "How well phases agree with the true stem, and those between the channels, before and after a repair.",
        {"phase": module("phase-by-band", "phase_by_band", "{cases}/test --cases 6")},
    ),
    Measurement(
        "Sampler steps",
        "What more than one step gains and costs; and the error of a single prediction from points along the bridge.",
        {
            "steps": module("sampler-steps", "sampler_steps", "{cases}/test --cases 1"),
            "path": module("sampler-path", "sampler_steps", "{cases}/test --cases 2 --path"),
        },
    ),
    Measurement(
        "An adapter of one's own",
        "A fault that no preset covers (a gated reverb), learnt from 40 pairs of files in 8 minutes.",
        {
            "custom-adapter": module(
                "custom-adapter", "custom_adapter", "{pool} --minutes 8 --work {folder}/custom-adapter"
            )
        },
    ),
    Measurement(
        "Speed and memory",
        "Wall seconds are what a user waits; CPU seconds are those of all threads together.",
        {"speed": prints("speed", "stemprover bench")},
    ),
    Measurement(
        "The bridge",
        "Round trips of a block compared with a bare echo and with python-osc's own server, and how the bridge behaves "
        "under load.",
        {
            "load": module("bridge", "bridge", "round-trips carried blends memory"),
            "fuzz": module("bridge-fuzz", "bridge", "fuzz --messages 200000"),
            "soak": module("bridge-soak", "bridge", "soak --minutes 8"),
        },
    ),
    Measurement(
        "The plug-in",
        "Rendering, the cost of a block on the audio thread, an export by Ardour, and ten minutes in real time.",
        {
            "render": module("plugin", "plugin", "render audio-thread --seconds 15"),
            "ardour": module("plugin-ardour", "plugin", "ardour --seconds 60"),
            "live": module("plugin-live", "plugin", "live --minutes 10 --period 256"),
        },
    ),
)

INTRODUCTION = """# Results

- **SI-SDR**, the scale-invariant signal-to-distortion ratio, is the energy of the true stem in a file over the energy
  of everything else in it, in dB; higher is better, and a constant gain does not count.
- **Log-spectral distance** ("distance") is how far the spectrum in dB is from the true stem's, as a root mean square
  over frequency and a mean over time; lower is better.
- **Pauses** is the change of the level where the true stem is silent; lower is better.
- **A true stem comes back at** says what a repair does to a stem with nothing wrong in it: the SDR of the result
  against the stem itself; higher is better.
- **Worst** is the worst case.

The cases were made by

    {cases_command}

from songs that were kept out of training (docs/training.md describes the pool). This page is written by `make results`
(tools/make_results.py). StemProver {version}, weights denoiser.onnx of SHA-256 {weights}.
"""


def section(one: Measurement, folder: Path, places: Mapping[str, str]) -> str:
    """The text of a section. If an input is missing, it names the commands to run and has no table."""
    files = {name: folder / path for name, (path, _) in one.inputs.items()}
    commands = {name: command.format(**places) for name, (_, command) in one.inputs.items()}
    missing = [name for name, path in files.items() if not path.exists()]
    shown = "\n".join(f"    {commands[name]}" for name in missing or files)
    if missing:
        return f"## {one.title}\n\nNot measured. To measure it, run\n\n{shown}\n"
    return f"## {one.title}\n\n{one.sentence}\n\n{shown}\n\n{one.render(files)}\n"


def page(folder: Path, places: Mapping[str, str]) -> str:
    """The whole page."""
    bundle = json.loads((ROOT / "presets" / "base" / "bundle.json").read_text())
    introduction = INTRODUCTION.format(
        cases_command=f"python -m stemprover.engine.train.cases {places['pool']} {places['cases']} "
        "--separated 20 --faulty 6",
        version=__version__, weights=bundle["sha256"]["denoiser.onnx"][:12],
    )  # fmt: skip
    return "\n".join([introduction, *(section(one, folder, places) for one in MEASUREMENTS)])


def run_missing(folder: Path, places: Mapping[str, str]) -> list[str]:
    """Run the commands of all missing files, for which the working directory has to be the repository's root. Returns
    those that failed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path}  # for `python` and `stemprover` of this environment
    failed = []
    for file, command in dict.fromkeys(found for one in MEASUREMENTS for found in one.inputs.values()):
        if (folder / file).exists() or ("{songs}" in command and places["songs"] == NO_SONGS):
            continue
        text = command.format(**places)
        print(text, flush=True)
        words, _, printed_to = text.partition(" > ")
        part = folder / f"{file}.part"
        if printed_to:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("w") as out:
                done = subprocess.run(shlex.split(words), env=environment, stdout=out)
            if done.returncode == 0:
                part.rename(folder / file)
            else:
                part.unlink()
        else:
            done = subprocess.run(shlex.split(words), env=environment)
        if done.returncode:
            print(f"failed ({done.returncode}): {text}", file=sys.stderr, flush=True)
            failed.append(text)
    return failed


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("report"))
    parser.add_argument("--run", action="store_true", help="first run the commands whose files are missing (hours)")
    parser.add_argument("--pool", default="data/pool", help="the training pool")
    parser.add_argument("--cases", default="cases", help="cases made from it")
    parser.add_argument(
        "--songs", help="songs, each a folder of files named after their stems; without it true stems are not measured"
    )
    parser.add_argument("-o", "--out", type=Path, default=PAGE)
    parser.add_argument("--incomplete", action="store_true", help="replace the page even if measurements are missing")
    given = parser.parse_args(arguments)
    places = {
        "folder": str(given.folder), "pool": given.pool, "cases": given.cases, "songs": given.songs or NO_SONGS
    }  # fmt: skip
    failed = run_missing(given.folder, places) if given.run else []
    missing = [one.title for one in MEASUREMENTS if not one.is_complete(given.folder)]
    if missing and given.out.exists() and not given.incomplete:
        sys.exit(
            f"{given.out} is unchanged, because {given.folder} lacks files for: {', '.join(missing)}. "
            "Measure them with --run, or pass --incomplete."
        )
    given.out.write_text(page(given.folder, places))
    print(f"wrote {given.out}")
    if failed:
        sys.exit("These commands failed, and the page has no table for them:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
