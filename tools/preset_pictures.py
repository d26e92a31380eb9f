"""A picture for each preset: a held-out case of its artefact, of Spleeter's vocals for general, before and after the
repair, and as it should be.

python tools/preset_pictures.py cases/test docs/presets
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
SHOWN = {"general": "separated-vocals"}  # where it is not the case of the preset's own name


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
        picture = Image.open(path).convert("RGB")
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
        picture.quantize(64).save(path, optimize=True)
        print(path, f"{path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
