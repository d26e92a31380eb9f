"""The audio thread does not allocate, lock or make system calls, repaired or not. A library loaded before the host
counts such calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bridges import running
from fakes import FakeModelRepairer
from hosts import needs

GUARD = Path(__file__).with_name("realtime_guard.c")
HOST = """
import ctypes, sys, time
import numpy as np, pedalboard

guard = ctypes.CDLL(None)
guard.guard_last.restype = ctypes.c_char_p
libc = ctypes.CDLL(None)
# Check that the guard works.
guard.stemprover_audio_begins()
libc.malloc.restype = ctypes.c_void_p
libc.free(ctypes.c_void_p(libc.malloc(100)))
guard.stemprover_audio_ends()
seen = guard.guard_count()
assert seen >= 2, seen

plugin = pedalboard.load_plugin(sys.argv[1])
rng = np.random.default_rng(0)
rate = 48000
for channels in (2, 4, 1):
    stem = (0.2 * rng.standard_normal((channels, 3 * rate // 2))).astype(np.float32)
    plugin.preset, plugin.wet, plugin.bypass = "general", 100.0, False
    plugin.process(stem[:, :2048], rate)
    before, blocks = guard.guard_count(), guard.guard_blocks()
    for _ in range(200):  # the bridge needs a moment to answer
        time.sleep(0.05)
        out = plugin.process(stem[:, :2048], rate, buffer_size=2048, reset=False)
        if np.abs(out[:2]).max(initial=0.0) > 1.5 * np.abs(stem[:2]).max():
            break
    loudest, begun = [], time.monotonic()
    for number, at in enumerate(range(0, stem.shape[1], 256)):
        time.sleep(max(0.0, begun + at / rate - time.monotonic()))
        if number == 130:
            plugin.preset = "bleed"
        if number in (200, 230):
            plugin.wet, plugin.bypass = 40.0, number == 200
        out = plugin.process(stem[:, at:at + 256], rate, buffer_size=2048, reset=False)
        loudest.append(float(np.abs(out[:2]).max()) if out.size else 0.0)
    ran = guard.guard_blocks() - blocks
    bad = guard.guard_count() - before
    assert ran >= 270, ran
    assert bad == 0, f"{bad} in {ran} blocks, the last one {guard.guard_last().decode()}"
    assert max(loudest) > 1.5 * np.abs(stem[:2]).max(), "repaired: twice as loud"
    print(channels, "channels:", ran, "blocks,", bad, "calls")
"""


def test_the_audio_thread_allocates_and_locks_nothing(
    vst3: Path, plugin_environment: Callable[..., None], tmp_path: Path
) -> None:
    needs(shutil.which("cc") is not None, "a C compiler")
    library = tmp_path / "guard.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, GUARD, "-ldl"], check=True)
    with running(FakeModelRepairer({"general": 1.0, "bleed": 2.0})) as bridge:
        plugin_environment(bridge.port, live=True)
        shown = subprocess.run(
            [sys.executable, "-c", HOST, str(vst3)], env={**os.environ, "LD_PRELOAD": str(library)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stdout[-1000:] + shown.stderr[-3000:]
    assert shown.stdout.count(" 0 calls") == 3
