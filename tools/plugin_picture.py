"""A picture of the plug-in's editor while the demo's sound goes through it and a bridge, for the README.

    make plugin && python tools/plugin_picture.py docs/plugin.png

Needs Xvfb. The bridge is a real one, on a port of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "bridge" / "plugin" / "dist" / "StemProverPicture"
DISPLAY, PORT = ":97", 9247


def main() -> None:
    demo = ROOT / "presets" / "demo"
    parts = [soundfile.read(demo / f"{name}.flac", dtype="float32")[0] for name in ("separated", "song")]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    serve = [sys.executable, "-m", "stemprover", "serve", "--port", str(PORT), "--http-port", str(PORT + 1)]
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "sound.raw"
        np.concatenate(parts, axis=1).astype("<f4").tofile(sound)
        started = [subprocess.Popen(["Xvfb", DISPLAY], **quiet), subprocess.Popen(serve, **quiet)]
        try:
            time.sleep(5.0)
            environment = {**os.environ, "DISPLAY": DISPLAY, "STEMPROVER_PORT": str(PORT), "XDG_CONFIG_HOME": folder}
            command = [PICTURE, sound, Path(sys.argv[1]).resolve(), "bleed"]
            subprocess.run(command, env=environment, check=True, timeout=60, cwd=folder)
        finally:
            for process in started:
                process.terminate()


if __name__ == "__main__":
    main()
