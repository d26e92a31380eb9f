"""Make a figure for each preset: spectrograms of a held-out case before the repair, after it, and of the true stem. The
case has the preset's own fault; for general it is a vocal stem by Spleeter.

    python tools/make_preset_figures.py cases/test docs/presets
"""

from __future__ import annotations

import sys
from pathlib import Path

import soundfile
from PIL import Image
from stemprover import Repairer, list_presets
from stemprover.reports.spectrogram import draw_spectrograms
from stemprover.reports.validate import find_cases

START_S, SECONDS, WIDTH = 3.0, 3.0, 760
SHOWN = {"general": "separated-vocals"}  # for presets without a fault of their name


def main() -> None:
    """The command line."""
    cases, out = find_cases(Path(sys.argv[1])), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for preset in list_presets():
        case = next((case for case in cases if case.kind == SHOWN.get(preset.name, preset.name)), None)
        if case is None or not preset.is_shipped or not preset.trained:
            continue
        paths = {"before": case.degraded, "truth": case.truth, "mix": case.mix}
        sounds = {name: soundfile.read(path, dtype="float32")[0].T for name, path in paths.items() if path is not None}
        rate = soundfile.info(case.truth).samplerate
        after = Repairer(preset).process(sounds["before"], rate, sounds.get("mix"))
        shown = {"before": sounds["before"], f"after: {preset.name}": after, "truth": sounds["truth"]}
        part = slice(round(START_S * rate), round((START_S + SECONDS) * rate))
        path = out / f"{preset.name}.png"
        draw_spectrograms({name: sound[:, part] for name, sound in shown.items()}, rate, path)
        figure = Image.open(path).convert("RGB")
        figure = figure.resize((WIDTH, round(figure.height * WIDTH / figure.width)), Image.Resampling.LANCZOS)
        figure.quantize(64).save(path, optimize=True)
        print(path, f"{path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/make_preset_figures.py CASES OUT")
    main()
