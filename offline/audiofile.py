"""Reads and writes audio files block by block, with every sample kept exactly.

libsndfile (soundfile) does most of the work, because it reads and writes integers as integers and knows every subtype.
pedalboard handles 32-bit float WAV in mono and stereo, the only case in which it is exact: it reads 16- and 24-bit
samples one step off, writes half of them one step off again (both measured, pedalboard 0.9.26), and cannot write 32-bit
integers or 64-bit floats.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile

from ..engine.errors import AudioFileError, OptionError
from .riff import read_chunks
from .samples import FLOATS, LOSSY, SampleCodec

BLOCK_SAMPLES = 1 << 16
_STRINGS = ("title", "artist", "album", "date", "genre", "tracknumber", "comment", "copyright", "license")


@dataclass(frozen=True)
class AudioInfo:
    """The header of a file; `container` and `subtype` are libsndfile's names (WAV, PCM_24)."""

    path: Path
    container: str
    subtype: str
    endian: str
    sample_rate: int
    channels: int
    samples: int

    @property
    def duration_s(self) -> float:
        return self.samples / self.sample_rate

    @property
    def is_float(self) -> bool:
        return self.subtype in FLOATS


def clock(seconds: float) -> str:
    """A time in minutes and seconds, 1:02.345, or with hours, 1:00:02.345."""
    minutes, rest = divmod(round(seconds * 1000) / 1000, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:06.3f}" if hours else f"{minutes}:{rest:06.3f}"


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
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise AudioFileError(f"{name}: there is no such file") from None
    except OSError as error:
        raise AudioFileError(f"{name} cannot be read ({error.strerror or error})") from error
    # mpg123 tries to decode any file called .mp3 and prints its own warnings on the terminal.
    if path.suffix.lower() == ".mp3" and not (
        head[:3] == b"ID3" or (head[0] == 0xFF and len(head) > 1 and head[1] >= 0xE0)
    ):
        raise AudioFileError(f"{name} is not a readable audio file; use WAV or FLAC")
    try:
        with soundfile.SoundFile(_name(path)) as file:
            info = AudioInfo(path, file.format, file.subtype, file.endian, file.samplerate, file.channels, file.frames)
            _check_whole(info, file, name)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioFileError(f"{name} is not a readable audio file ({reason}); use WAV or FLAC") from error
    return info


def _name(path: Path) -> str | bytes:
    """A file name for soundfile, which cannot encode names that are not valid text."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _check_whole(info: AudioInfo, file: Any, name: str) -> None:
    chunks = read_chunks(info.path)
    missing_bytes = chunks.missing_bytes if chunks else _missing_bytes_by_log(file)
    if missing_bytes:
        raise AudioFileError(f"{name} is cut off: {missing_bytes} bytes are missing at the end; get a complete copy")
    if info.samples == 0:
        raise AudioFileError(f"{name} contains no audio (0 samples)")
    if info.samples >= 1 << 60:
        raise AudioFileError(f"{name} has no length in its header; save it again with an audio editor")
    try:
        file.seek(info.samples - 1)
        last = len(file.read(1))
    except soundfile.SoundFileError:
        last = 0
    if not last or (info.container == "OGG" and not _ogg_has_end(info.path)):
        raise AudioFileError(
            f"{name} is cut off or damaged: it cannot be read to its end at {clock(info.duration_s)}; "
            "get a complete copy"
        )


def _missing_bytes_by_log(file: Any) -> int:
    """libsndfile reads W64, CAF and AU files that are cut off, and only its log shows it: `data : 9 (should be 5)`."""
    sizes = re.findall(r"^ *(?:riff|data|Data Size)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    return max((int(expected) - int(actual) for expected, actual in sizes), default=0)


def _ogg_has_end(path: Path) -> bool:
    """Whether the last page (at most 65 kB) is complete and has the end-of-stream flag (RFC 3533, header bit 4)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""
    if len(page) < 27 or not page[5] & 4:
        return False
    lengths = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lengths)


def read_start(path: Path, max_samples: int | None = None) -> np.ndarray:
    """A file, or its first `max_samples` samples, as float32 (C, T). Raises AudioFileError."""
    parts, count = [], 0
    with AudioReader(probe(path)) as reader:
        for block in reader.blocks():
            parts.append(reader.codec.decode(block))
            count += block.shape[1]
            if max_samples is not None and count >= max_samples:
                break
    return np.concatenate(parts, axis=1)[:, :max_samples]


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
        if self._by_pedalboard:
            from pedalboard.io import AudioFile

            self._stream = info.path.open("rb")
            self._file: Any = AudioFile(self._stream)
        else:
            self._file = soundfile.SoundFile(_name(info.path))

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
        return self._file.read(samples, dtype=np.dtype(self.codec.dtype).name, always_2d=True).T

    def _clock(self, position: int) -> str:
        return clock(position / self.info.sample_rate)


class AudioWriter:
    """Writes blocks to a new file; `close` (or the end of the `with` block) completes it. OSErrors pass through."""

    def __init__(
        self, path: Path, like: AudioInfo, container: str, subtype: str, *, strings_from: Path | None = None
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
            with soundfile.SoundFile(_name(strings_from)) as old:
                for name in _STRINGS:
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
