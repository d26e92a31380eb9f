"""MIDI music as a source of sound: taken out of Doom-style WAD files, played by fluidsynth with a sound bank."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import soundfile as sf

SAMPLE_RATE = 44_100
RENDER_S = 75.0


def wad_midis(wads: list[Path], folder: Path) -> list[Path]:
    """The Standard MIDI files in some WAD files (directories of named lumps), each once, written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[bytes, Path] = {}
    for wad in wads:
        data = wad.read_bytes()
        count, directory = struct.unpack("<II", data[4:12])
        for entry in range(count):
            offset, size, name = struct.unpack_from("<II8s", data, directory + 16 * entry)
            lump = data[offset : offset + size]
            if lump[:4] != b"MThd" or lump in found:
                continue
            path = folder / f"{wad.stem}-{name.rstrip(bytes(1)).decode('ascii').lower()}.mid"
            if not path.exists():
                path.write_bytes(lump)
            found[lump] = path
    return sorted(found.values())


def render_midi(song: Path, bank: Path, folder: Path, seconds: float = RENDER_S) -> Path | None:
    """The first `seconds` of a MIDI file, played by fluidsynth with a SoundFont, as `folder/<song>.flac`.

    None where fluidsynth is not installed, or where what it plays is shorter than 20 s or silent. Done once, then read.
    """
    target = folder / f"{song.stem}.flac"
    useless = target.with_suffix(".useless")
    if target.exists():
        return target
    program = shutil.which("fluidsynth")
    if program is None or useless.exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        program,
        "-niq",
        "-r",
        str(SAMPLE_RATE),
        "-g",
        "0.6",
        "-O",
        "s16",
        "-T",
        "raw",
        "-F",
        "-",
        str(bank),
        str(song),
    ]
    wanted = int(seconds * SAMPLE_RATE) * 4
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as player:
        assert player.stdout is not None
        raw = player.stdout.read(wanted)
        player.kill()
    audio = np.frombuffer(raw[: len(raw) // 4 * 4], "<i2").reshape(-1, 2)
    loud = np.abs(audio.astype(np.int32)).max(initial=0) > 300
    if len(audio) < 20 * SAMPLE_RATE or not loud:
        useless.touch()
        return None
    part = folder / f"{song.stem}.{os.getpid()}.part"
    sf.write(str(part), audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    part.replace(target)
    return target
