"""A picture of the plug-in's editor while the demo's sound goes through it and a bridge, for the README.

    make plugin hosts && .venv/bin/python tools/plugin_picture.py docs/plugin.png

The bridge is a real one, on a port of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]


def main(picture: Path) -> None:
    """Writes the picture."""
    from stemprover.benchmarks.bridge import bridge
    from stemprover.benchmarks.xvfb import x_server
    from stemprover.bridge.plugin.install import BUILT

    demo = ROOT / "presets" / "demo"
    parts = [soundfile.read(demo / f"{name}.flac", dtype="float32")[0] for name in ("separated", "song")]
    with tempfile.TemporaryDirectory() as folder, bridge() as (port, _), x_server() as display:
        sound = Path(folder) / "sound.raw"
        np.concatenate(parts, axis=1).astype("<f4").tofile(sound)
        environment = {
            **os.environ, "DISPLAY": display, "STEMPROVER_PORT": str(port), "XDG_CONFIG_HOME": folder,
            "STEMPROVER_COMMAND": "/nowhere/stemprover",
        }  # fmt: skip
        command = [BUILT / "StemProverPicture", sound, picture.resolve(), "bleed"]
        subprocess.run(command, env=environment, check=True, timeout=60, cwd=folder, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/plugin_picture.py PICTURE.png")
    main(Path(sys.argv[1]))
