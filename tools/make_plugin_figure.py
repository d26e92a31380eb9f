"""Make docs/plugin.png: the plug-in's editor while the demo's stem plays through it and a bridge with the model.

make plugin hosts && .venv/bin/python tools/make_plugin_figure.py docs/plugin.png
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


def main(figure: Path) -> None:
    """Write the figure."""
    from stemprover.benchmarks.bridge import bridge
    from stemprover.benchmarks.xvfb import x_server
    from stemprover.bridge.plugin.install import BUILT

    demo = ROOT / "presets" / "demo"
    parts = [soundfile.read(demo / f"{name}.flac", dtype="float32")[0] for name in ("separated", "song")]
    with tempfile.TemporaryDirectory() as folder, bridge() as (port, _), x_server() as display:
        audio = Path(folder) / "audio.raw"
        np.concatenate(parts, axis=1).astype("<f4").tofile(audio)
        environment = {
            **os.environ, "DISPLAY": display, "STEMPROVER_PORT": str(port), "XDG_CONFIG_HOME": folder,
            "STEMPROVER_COMMAND": "/nowhere/stemprover",
        }  # fmt: skip
        command = [BUILT / "StemProverPicture", audio, figure.resolve(), "bleed"]
        subprocess.run(command, env=environment, check=True, timeout=60, cwd=folder, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/make_plugin_figure.py FIGURE.png")
    main(Path(sys.argv[1]))
