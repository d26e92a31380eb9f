"""Which file type and sample format to write for an input, and whether it will fit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import soundfile

from ..engine.errors import OptionError, OutputError
from .audiofile import AudioInfo
from .samples import BYTES_PER_SAMPLE, INTEGER_BITS, LOSSY

# Extension -> libsndfile's containers with that extension, the usual one first.
CONTAINERS: dict[str, tuple[str, ...]] = {
    ".wav": ("WAV", "WAVEX", "RF64"),
    ".wave": ("WAV", "WAVEX", "RF64"),
    ".bwf": ("WAV", "WAVEX", "RF64"),
    ".rf64": ("RF64",),
    ".w64": ("W64",),
    ".aiff": ("AIFF",),
    ".aif": ("AIFF",),
    ".aifc": ("AIFF",),
    ".flac": ("FLAC",),
    ".caf": ("CAF",),
    ".au": ("AU",),
    ".ogg": ("OGG",),
    ".oga": ("OGG",),
    ".opus": ("OGG",),
    ".mp3": ("MP3",),
}
# Converted Apple Lossless becomes plain integers. 32-bit ALAC can only be read: libsndfile 1.2.2 writes loud noise
# wrongly (measured).
_PLAIN = {"ALAC_16": "PCM_16", "ALAC_20": "PCM_24", "ALAC_24": "PCM_24", "ALAC_32": "PCM_32"}
_WRITABLE = (INTEGER_BITS.keys() | BYTES_PER_SAMPLE.keys()) - {"ALAC_32"}
_LOSSY_OF = {".ogg": "VORBIS", ".oga": "VORBIS", ".opus": "OPUS", ".mp3": "MPEG_LAYER_III"}
_FOUR_GB = (1 << 32) - (1 << 20)  # less a megabyte for tags
_LIMITED_TO_FOUR_GB = {"AIFF", "AU"}


@dataclass(frozen=True)
class OutputFormat:
    """libsndfile's container and subtype of an output, and a note for users where they are not the input's."""

    container: str
    subtype: str
    note: str = ""


def choose_format(source: AudioInfo, target: Path) -> OutputFormat:
    """The source's own format if the target's extension allows it, else the closest one that loses nothing.

    Raises OptionError if the target's file type is unknown or cannot hold the source's samples.
    """
    extension = target.suffix.lower()
    same_extension = extension == source.path.suffix.lower()
    can_keep = source.container in CONTAINERS.get(extension, ()) or same_extension
    same_codec = same_extension and source.subtype in LOSSY
    if can_keep and (extension not in _LOSSY_OF or same_codec or source.subtype == _LOSSY_OF[extension]):
        return _kept_format(source, target)
    if extension not in CONTAINERS:
        raise OptionError(
            f"{target}: StemProver cannot write {extension or 'files without an extension'}; "
            f"use {', '.join(CONTAINERS)}"
        )
    container = CONTAINERS[extension][0]
    subtype = _LOSSY_OF.get(extension) or _PLAIN.get(source.subtype, source.subtype)
    if extension not in _LOSSY_OF and subtype not in _WRITABLE:
        subtype = "PCM_24"  # for MP3, ADPCM and the like
    if subtype in ("PCM_U8", "PCM_S8") and not soundfile.check_format(container, subtype):
        subtype = "PCM_S8" if subtype == "PCM_U8" else "PCM_U8"
    if not soundfile.check_format(container, subtype):
        raise OptionError(
            f"{target}: {extension} cannot hold the samples of {source.path} ({subtype}) without loss; use .wav"
        )
    if container == "WAV" and _estimated_bytes(source, subtype) > _FOUR_GB:
        return OutputFormat("RF64", subtype, "written as RF64, because WAV is limited to 4 GB")
    _check_four_gb(source, container, subtype, target)
    note = f"converted from {source.container} {source.subtype} to {container} {subtype}"
    if subtype in LOSSY:
        note += ", which is lossy; use .flac or .wav to lose nothing"
    return OutputFormat(container, subtype, note)


def _kept_format(source: AudioInfo, target: Path) -> OutputFormat:
    if source.subtype in LOSSY:
        return OutputFormat(source.container, source.subtype, f"re-encoded as {source.subtype}, which is lossy")
    if source.subtype not in _WRITABLE or not soundfile.check_format(source.container, source.subtype):
        raise OptionError(
            f"{source.path}: {source.container} {source.subtype} can be read but not written; choose another output, "
            f"such as {target.with_suffix('.flac' if source.container == 'WAV' else '.wav').name}, or convert the "
            "input first"
        )
    _check_four_gb(source, source.container, source.subtype, target)
    return OutputFormat(source.container, source.subtype)


def _estimated_bytes(source: AudioInfo, subtype: str) -> int:
    """Size of the samples; 0 if they are compressed."""
    return source.samples * source.channels * BYTES_PER_SAMPLE.get(subtype, 0)


def _check_four_gb(source: AudioInfo, container: str, subtype: str, target: Path) -> None:
    if container in _LIMITED_TO_FOUR_GB and _estimated_bytes(source, subtype) > _FOUR_GB:
        raise OptionError(
            f"{target}: {container} is limited to 4 GB and this file is larger; use .wav (written as RF64) or .w64"
        )


def check_space(source: AudioInfo, chosen: OutputFormat, target: Path) -> None:
    """Raises OutputError if the disk cannot hold the result, before hours of work are spent on it."""
    needed = 0 if chosen.container == "FLAC" else _estimated_bytes(source, chosen.subtype)
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return
    if needed > free:
        raise OutputError(
            f"{target}: the disk is full: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free; "
            "free some space or choose another disk"
        )
