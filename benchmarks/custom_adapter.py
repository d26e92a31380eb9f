"""How well a user's own adapter works: `stemprover train --pairs` trains one for a fault that no preset covers (a gated
reverb), and it is compared with the shipped presets on songs that it was not trained on.

    python -m stemprover.benchmarks.custom_adapter data/pool --minutes 10 --work custom-adapter
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pedalboard
import soundfile

from ..engine.metrics.basic import log_spectral_distance, sdr, si_sdr, windowed
from ..engine.preset import list_presets, load_preset
from ..engine.repair import Repairer
from .consistency import FULL_SCALE, RATE, WINDOW
from .table import print_table

NAME = "gated-reverb"
QUIETEST = 0.01  # root mean square; quieter voices are left out


def with_gated_reverb(stem: np.ndarray) -> np.ndarray:
    """A stem (2, T) in a room whose tail is cut off by a gate, as on drums of the eighties."""
    board = pedalboard.Pedalboard(
        [
            pedalboard.Reverb(room_size=0.7, damping=0.3, wet_level=0.6, dry_level=0.0, width=0.8),
            pedalboard.NoiseGate(threshold_db=-32, ratio=20, attack_ms=1, release_ms=60),
        ]
    )
    return (stem + board(stem, RATE, reset=True)).astype(np.float32)


def songs(pool: Path, split: str, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """True vocals and mix (2, T) of items that have a voice, evenly spread over the shards of a split."""
    paths = sorted((pool / split).glob("shard_*.npy"))
    given = 0
    for path in (paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), most)).round().astype(int)):
        shard = np.load(path, mmap_mode="r")
        of_this = 0
        for item in shard:
            if given == most or of_this == -(-most // len(paths)):
                break
            vocals, rest = item[:2].astype(np.float32) / np.float32(FULL_SCALE)
            if float(np.sqrt(np.mean(vocals**2))) > QUIETEST:
                given, of_this = given + 1, of_this + 1
                yield vocals, vocals + rest


def write_pairs(pool: Path, folder: Path, most: int) -> None:
    """Write before/, after/ and mix/ for `stemprover train --pairs`."""
    for number, (truth, mix) in enumerate(songs(pool, "train", most)):
        for side, sound in (("before", with_gated_reverb(truth)), ("after", truth), ("mix", mix)):
            (folder / side).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / side / f"{number:03d}.wav", sound.T, RATE, subtype="FLOAT")


def measured(repairer: Repairer, cases: list[tuple[np.ndarray, np.ndarray]]) -> tuple[str, str, str]:
    """As text: median and worst gain of SI-SDR, median change of the log-spectral distance, and the SDR at which true
    stems come back."""
    gains, distances, clean = list[float](), list[float](), list[float]()
    for truth, mix in cases:
        before = with_gated_reverb(truth)
        after = repairer.process(before, RATE, mix)
        for measure, found in ((si_sdr, gains), (log_spectral_distance, distances)):
            difference = windowed(measure, after, truth, WINDOW) - windowed(measure, before, truth, WINDOW)
            found.append(float(np.nanmedian(difference)))
        clean.append(sdr(repairer.process(truth, RATE, mix), truth))
    return (
        f"{np.median(gains):+.2f} dB (worst {min(gains):+.2f})", f"{np.median(distances):+.2f} dB",
        f"{np.median(clean):.1f} dB (worst {min(clean):.1f})",
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for pairs and run; an unfinished run goes on")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--cases", type=int, default=8, help="held-out songs, of the split test")
    given = parser.parse_args(arguments)
    if not (given.work / "pairs").exists():
        write_pairs(given.pool, given.work / "pairs", given.pairs)
    command = ["train", "--adapter", NAME, "--pairs", str(given.work / "pairs"), "--run", str(given.work / "run")]
    command = [sys.executable, "-m", "stemprover", *command, "--minutes", str(given.minutes)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    cases = list(songs(given.pool, "test", given.cases))
    before = [float(np.nanmedian(windowed(si_sdr, with_gated_reverb(truth), truth, WINDOW))) for truth, _ in cases]
    own = load_preset(given.work / "run" / NAME)
    rows = [
        [preset.name, *measured(Repairer(preset), cases)]
        for preset in (own, *(one for one in list_presets() if one.is_shipped))
    ]
    title = f"Gated reverb on {len(cases)} held-out voices, median SI-SDR before {np.median(before):.2f} dB"
    print_table(title, ["preset", "SI-SDR", "log-spectral distance", "a true stem comes back at"], rows)


if __name__ == "__main__":
    main()
