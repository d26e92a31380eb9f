"""MIDI files: read, write, extract from Doom's WAD files, and play with fluidsynth and a sound bank."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf

from .sources import SAMPLE_RATE

RENDER_S = 75.0
_META, _TEMPO, _END = 0xFF, 0x51, 0x2F


def wad_midis(wads: list[Path], folder: Path) -> list[Path]:
    """Extract the Standard MIDI files of some WAD files (archives of named lumps) to `folder`, each once."""
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
                part = path.with_suffix(f".{os.getpid()}.part")
                part.write_bytes(lump)
                part.replace(path)
            found[lump] = path
    return sorted(found.values())


def read_midi(path: Path) -> list[tuple[float, bytes]]:
    """(seconds, channel message) of all tracks of a Standard MIDI file, in order. Raises ValueError for other files."""
    data = path.read_bytes()
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError(f"{path} is not a MIDI file")
    size, division = struct.unpack_from(">4xI4xH", data)
    events: list[tuple[int, bytes]] = []
    at = 8 + size
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(">4sI", data, at)
        try:
            events += _track_events(data[at + 8 : at + 8 + size]) if kind == b"MTrk" else ()
        except IndexError as error:
            raise ValueError(f"{path} is truncated in the middle of a track") from error
        at += 8 + size
    in_frames = bool(division & 0x8000)
    per_beat = (256 - (division >> 8)) * (division & 0xFF) if in_frames else division
    tick_s = (1.0 if in_frames else 0.5) / max(per_beat, 1)
    found, seconds, now = [], 0.0, 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        seconds += (tick - now) * tick_s
        now = tick
        if message[0] != _META:
            found.append((seconds, message))
        elif not in_frames:
            tick_s = int.from_bytes(message[3:6], "big") / 1e6 / max(per_beat, 1)
    return found


def _track_events(track: bytes) -> Iterator[tuple[int, bytes]]:
    """(tick, message) for the channel messages and tempo changes of a track."""
    at = tick = status = 0
    while at < len(track):
        delta, at = _number(track, at)
        tick += delta
        if track[at] & 0x80:
            status, at = track[at], at + 1
        if status == _META:
            kind = track[at]
            size, at = _number(track, at + 1)
            if kind == _TEMPO:
                yield tick, bytes([_META, _TEMPO, 3]) + track[at : at + 3]
            elif kind == _END:
                return
            at += size
        elif status >= 0xF0:
            size, at = _number(track, at)
            at += size
        else:
            size = 1 if status & 0xE0 == 0xC0 else 2
            yield tick, bytes([status]) + track[at : at + size]
            at += size


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity, and the position after it."""
    value = 0
    while True:
        value = value << 7 | data[at] & 0x7F
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def write_midi(events: list[tuple[float, bytes]], path: Path) -> None:
    """Write (seconds, message) pairs as a Standard MIDI file with one track and 1000 ticks per second."""
    track, now = bytearray(), 0
    for seconds, message in sorted(events, key=lambda event: event[0]):
        delta = max(0, round(seconds * 1000) - now)
        now += delta
        digits = [delta & 0x7F]
        while delta := delta >> 7:
            digits.append(delta & 0x7F | 0x80)
        track += bytes(digits[::-1]) + message
    track += b"\x00\xff\x2f\x00"
    tempo = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")
    head = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, 1000)
    path.write_bytes(head + struct.pack(">4sI", b"MTrk", len(tempo) + len(track)) + tempo + bytes(track))


def can_play() -> bool:
    """Whether fluidsynth is installed."""
    return shutil.which("fluidsynth") is not None


def play_midi(song: Path, bank: Path, seconds: float) -> np.ndarray:
    """At most the first `seconds` of a MIDI file, played by fluidsynth with a SoundFont: (T, 2) int16."""
    options = ["-niq", "-r", str(SAMPLE_RATE), "-g", "0.6", "-O", "s16", "-T", "raw", "-F", "-"]
    command = ["fluidsynth", *options, str(bank), str(song)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as player:
        assert player.stdout is not None
        raw = player.stdout.read(int(seconds * SAMPLE_RATE) * 4)
        player.kill()
    return np.frombuffer(raw[: len(raw) // 4 * 4], "<i2").reshape(-1, 2)


def render_midi(song: Path, bank: Path, folder: Path, seconds: float = RENDER_S) -> Path | None:
    """The first `seconds` of a MIDI file, played by fluidsynth with a SoundFont, as `folder/<song>.flac`.

    Rendered once, then reused. None if fluidsynth is not installed, or if the audio is silent or shorter than 20 s.
    """
    target = folder / f"{song.stem}.flac"
    useless = target.with_suffix(".useless")
    if target.exists():
        return target
    if not can_play() or useless.exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    audio = play_midi(song, bank, seconds)
    loud = np.abs(audio.astype(np.int32)).max(initial=0) > 300
    if len(audio) < 20 * SAMPLE_RATE or not loud:
        useless.touch()
        return None
    part = folder / f"{song.stem}.{os.getpid()}.part"
    sf.write(str(part), audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    part.replace(target)
    return target
