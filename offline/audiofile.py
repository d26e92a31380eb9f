"""Reads and writes audio files block by block, with every sample kept exactly.

libsndfile (soundfile) does most of the work, because it reads and writes integers as integers and knows every subtype.
pedalboard handles 32-bit float WAV in mono and stereo, the only case in which it is exact: it reads 16- and 24-bit
samples one step off, writes half of them one step off again (both measured, pedalboard 0.9.26), and cannot write 32-bit
integers or 64-bit floats.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile

from ..engine.errors import AudioFileError, OptionError
from . import joined, mended, mp3
from .riff import read_chunks
from .samples import FLOATS, LOSSY, SampleCodec
from .views import Layout, View, ViewFile, clock

BLOCK_SAMPLES = 1 << 16
_MPEG_EXTENSIONS = {".mp3", ".mp2", ".mp1", ".mpa"}
STRINGS = ("title", "artist", "album", "date", "genre", "tracknumber", "comment", "copyright", "license")


@dataclass(frozen=True)
class AudioInfo:
    """The header of a file; `container` and `subtype` are libsndfile's names (WAV, PCM_24).

    parts, notes: as in `views.Layout`.
    """

    path: Path
    container: str
    subtype: str
    endian: str
    sample_rate: int
    channels: int
    samples: int
    parts: tuple[View, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return self.samples / self.sample_rate

    @property
    def is_float(self) -> bool:
        return self.subtype in FLOATS


def probe(path: Path, what: str = "") -> AudioInfo:
    """Read the header and check that the file is complete. Raises AudioFileError.

    what: the file in words, for error messages; by default its name alone.
    """
    name = f"{what} {path}" if what else str(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise AudioFileError(f"{name} is a folder, not an audio file")
        if size == 0:
            raise AudioFileError(f"{name}: the file is empty (0 bytes)")
        layout = _read_layout(path)
    except FileNotFoundError:
        what = "the link leads to no file" if path.is_symlink() else "there is no such file"
        raise AudioFileError(f"{name}: {what}") from None
    except OSError as error:
        raise AudioFileError(f"{name} cannot be read ({error.strerror or error})") from error
    if layout is None:
        raise AudioFileError(f"{name} is not a readable audio file; use WAV or FLAC")
    if layout.damage:
        raise AudioFileError(f"{name} {layout.damage}")
    try:
        return _read_header(path, layout, name)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioFileError(f"{name} is not a readable audio file ({reason}); use WAV or FLAC") from error


def _read_layout(path: Path) -> Layout | None:
    """How to read the file; None if it is certainly no audio. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(4)
    if (chunks := read_chunks(path)) is not None:
        if chunks.missing_bytes:
            missing = f"{chunks.missing_bytes} bytes are missing at the end"
            return Layout(damage=f"is cut off: {missing}; get a complete copy")
        return Layout() if chunks.is_usual else mended.read_layout(path, chunks)
    if head == b"OggS":
        return joined.read_ogg_layout(path)
    if head == b"fLaC":
        return joined.read_flac_layout(path)
    if head == b".snd":
        return mended.read_au_layout(path)
    is_mpeg = head[0] == 0xFF and len(head) > 1 and head[1] >= 0xE0
    if is_mpeg or head[:3] == b"ID3" or path.suffix.lower() in _MPEG_EXTENSIONS:
        # mpg123 tries to decode any file called .mp3 and prints its own warnings on the terminal.
        layout = mp3.read_layout(path)
        return Layout() if layout is None and head[:3] == b"ID3" else layout  # a tag may precede other files too
    return Layout()


class _Sequential(soundfile.SoundFile):
    """soundfile seeks after each block that it has read, which fails at the end of a file of unknown length."""

    def seekable(self) -> bool:
        return False


def _open(path: Path, view: View | None) -> Any:
    """A file to read, or the part of it that `view` shows."""
    return _Sequential(_name(path) if view is None else ViewFile(path, view))


def _name(path: Path) -> str | bytes:
    """A file name for soundfile, which cannot encode names that are not valid text."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _read_header(path: Path, layout: Layout, name: str) -> AudioInfo:
    found = []
    for view in layout.parts or (None,):
        with _open(path, view) as file:
            samples = file.frames if file.frames < 1 << 60 else _count_samples(file)
            info = AudioInfo(path, file.format, file.subtype, file.endian, file.samplerate, file.channels, samples)
            found.append(info)
            if samples and samples == file.frames and layout.samples is None:
                _check_whole(info, file, name)
    info, samples = found[0], layout.samples
    if samples is None:
        samples = sum(part.samples for part in found)
    if len({(part.sample_rate, part.channels, part.subtype) for part in found}) > 1:
        raise AudioFileError(f"{name} is several different files joined into one; cut them apart")
    if samples == 0:
        raise AudioFileError(f"{name} contains no audio (0 samples)")
    return replace(info, samples=samples, parts=layout.parts, notes=layout.notes)


def _count_samples(file: Any) -> int:
    """The length of a file whose header does not tell it, as FLAC that was written to a pipe."""
    count = 0
    while read := len(file.read(BLOCK_SAMPLES)):
        count += read
    return count


def _check_whole(info: AudioInfo, file: Any, name: str) -> None:
    if info.container.startswith("WAV") and info.subtype.startswith("MPEG"):
        raise AudioFileError(f"{name} is MP3 inside a WAV file, which cannot be read; convert it to plain WAV or MP3")
    try:
        file.seek(info.samples - 1)
        is_whole = len(file.read(1)) == 1
    except soundfile.SoundFileError:
        is_whole = False
    if not is_whole:
        raise AudioFileError(
            f"{name} is cut off or damaged: it cannot be read to its end at {clock(info.duration_s)}; "
            "get a complete copy"
        )


def read_start(path: Path, max_samples: int | None = None) -> np.ndarray:
    """A file, or its first `max_samples` samples, as float32 (C, T). Raises AudioFileError."""
    return read_part(path, 0, max_samples)


def read_part(path: Path, start: int, max_samples: int | None = None) -> np.ndarray:
    """A file from sample `start` on, at most `max_samples` samples, as float32 (C, T). Raises AudioFileError."""
    info = probe(path)
    end = info.samples if max_samples is None else min(start + max_samples, info.samples)
    parts, at = [np.zeros((info.channels, 0), np.float32)], 0
    with AudioReader(info) as reader:
        for block in reader.blocks():
            if at + block.shape[1] > start:
                parts.append(reader.codec.decode(block)[:, max(0, start - at) : end - at])
            at += block.shape[1]
            if at >= end:
                break
    return np.concatenate(parts, axis=1)


def check_finite(info: AudioInfo) -> None:
    """Raises AudioFileError at the first non-finite sample. Only float files need to be read for this."""
    if not info.is_float:
        return
    position = 0
    with AudioReader(info) as reader:
        for block in reader.blocks():
            finite = np.isfinite(reader.codec.decode(block)).all(axis=0)
            if not finite.all():
                sample = position + int(np.argmin(finite))
                raise AudioFileError(
                    f"{info.path} has a non-finite sample (NaN or infinite) at "
                    f"{clock(sample / info.sample_rate)} (sample {sample}); export the file again or cut this spot out"
                )
            position += block.shape[1]


def _is_pedalboard_exact(container: str, subtype: str, channels: int, endian: str) -> bool:
    return container == "WAV" and subtype == "FLOAT" and channels <= 2 and endian != "BIG"


class AudioReader:
    """Reads the samples of a probed file once, from the start, in the codec's own type."""

    def __init__(self, info: AudioInfo) -> None:
        self.info = info
        self.codec = SampleCodec(info.subtype)
        self._by_pedalboard = _is_pedalboard_exact(info.container, info.subtype, info.channels, info.endian)
        self._waiting = list(info.parts)
        view = self._waiting.pop(0) if self._waiting else None
        if self._by_pedalboard:
            from pedalboard.io import AudioFile

            self._stream = info.path.open("rb") if view is None else ViewFile(info.path, view)
            self._file: Any = AudioFile(self._stream)
        else:
            self._file = _open(info.path, view)

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._by_pedalboard:
            self._stream.close()

    def blocks(self, block_samples: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
        """Blocks (C, T <= block_samples), `info.samples` in total. Raises AudioFileError if the file is damaged."""
        position = 0
        while position < self.info.samples:
            wanted = min(block_samples, self.info.samples - position)
            try:
                block = self._read(wanted)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise AudioFileError(
                    f"{self.info.path} cannot be read beyond {self._clock(position)} ({error})"
                ) from error
            if block.shape[1] == 0:
                raise AudioFileError(
                    f"{self.info.path} is cut off or damaged: it ends at {self._clock(position)} "
                    f"instead of {clock(self.info.duration_s)}; get a complete copy"
                )
            position += block.shape[1]
            yield block

    def _read(self, samples: int) -> np.ndarray:
        if self._by_pedalboard:
            return self._file.read(samples)
        while True:
            block = self._file.read(samples, dtype=np.dtype(self.codec.dtype).name, always_2d=True).T
            if block.shape[1] or not self._waiting:
                return block
            self._file.close()
            self._file = _open(self.info.path, self._waiting.pop(0))

    def _clock(self, position: int) -> str:
        return clock(position / self.info.sample_rate)


class AudioWriter:
    """Writes blocks to a new file; `close` (or the end of the `with` block) completes it. OSErrors pass through."""

    def __init__(
        self, path: Path, like: AudioInfo, container: str, subtype: str, *, strings_from: AudioInfo | None = None
    ) -> None:
        """like: has the sample rate and channels of the new file.
        strings_from: a file whose title, artist and so on are copied; `lost_tags` becomes True if this file type has no
        place for them.

        Raises OptionError if the format does not support this rate, number of channels or subtype.
        """
        self.codec, self.lost_tags = SampleCodec(subtype), False
        endian = like.endian if like.container == container else "FILE"
        self._by_pedalboard = strings_from is None and _is_pedalboard_exact(container, subtype, like.channels, endian)
        if self._by_pedalboard:
            from pedalboard.io import AudioFile

            self._stream = path.open("wb")
            self._file: Any = AudioFile(self._stream, "w", like.sample_rate, like.channels, bit_depth=32, format="wav")
            return
        quality = {"compression_level": 0.1} if subtype in LOSSY else {}
        if subtype == "MPEG_LAYER_III":
            quality["compression_level"] = 0.0
        try:
            self._file = soundfile.SoundFile(
                _name(path), "w", like.sample_rate, like.channels, subtype, format=container,
                endian=endian, **quality,
            )  # fmt: skip
        except (soundfile.SoundFileError, ValueError) as error:
            raise OptionError(
                f"{container} cannot hold {like.channels} channels at {like.sample_rate} Hz as {subtype}; "
                "choose another file type for the output, such as .wav"
            ) from error
        if strings_from is not None:
            with _open(strings_from.path, strings_from.parts[0] if strings_from.parts else None) as old:
                for name in STRINGS:
                    if text := getattr(old, name):
                        try:
                            setattr(self._file, name, text)
                        except soundfile.SoundFileError:  # this file type has no such field
                            self.lost_tags = True

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, native: np.ndarray) -> None:
        """Samples (C, T) in the codec's type."""
        if not self._by_pedalboard:
            self._file.write(np.ascontiguousarray(native.T))
        elif native.shape[0] == native.shape[1]:  # pedalboard confuses the axes of a square block
            for column in native.T:
                self._file.write(column[:, None])
        else:
            self._file.write(native)

    def close(self) -> None:
        self._file.close()
        if self._by_pedalboard:
            self._stream.close()
