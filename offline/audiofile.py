"""Audio files in and out, block by block, with every sample kept exactly.

libsndfile (soundfile) does the work, since it reads and writes integers as integers and knows every subtype. pedalboard
is used where it is exact too, which is 32-bit float WAV in mono and stereo: its float samples of 16- and 24-bit files
are one step off, it stores half of them one step off again (both measured, pedalboard 0.9.26), and it has no 32-bit
integers and no 64-bit floats to write.
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
    """What a file's header says; `container` and `subtype` as libsndfile names them (WAV, PCM_24)."""

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
    def may_hold_nan(self) -> bool:
        return self.subtype in FLOATS


def clock(seconds: float) -> str:
    """Seconds as a musician reads them: 1:02.345, or 1:00:02.345 from an hour on."""
    minutes, rest = divmod(round(seconds * 1000) / 1000, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:06.3f}" if hours else f"{minutes}:{rest:06.3f}"


def probe(path: Path) -> AudioInfo:
    """Read the header and make sure that the file is whole. Raises AudioFileError, one line that says what is wrong."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise AudioFileError(f"{path}: is a folder, not an audio file")
        if size == 0:
            raise AudioFileError(f"{path}: the file is empty (0 bytes)")
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise AudioFileError(f"{path}: there is no such file") from None
    except OSError as error:
        raise AudioFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    # mpg123 takes anything called .mp3 for MP3 and complains on the terminal by itself.
    if path.suffix.lower() == ".mp3" and not (
        head[:3] == b"ID3" or (head[0] == 0xFF and len(head) > 1 and head[1] >= 0xE0)
    ):
        raise AudioFileError(f"{path}: is not audio that can be read; convert it to WAV or FLAC first")
    try:
        with soundfile.SoundFile(_name(path)) as file:
            info = AudioInfo(path, file.format, file.subtype, file.endian, file.samplerate, file.channels, file.frames)
            _check_whole(info, file)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioFileError(
            f"{path}: is not audio that can be read ({reason}); convert it to WAV or FLAC first"
        ) from error
    return info


def _name(path: Path) -> str | bytes:
    """A file name for soundfile, which cannot encode names with bytes of no encoding by itself."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _check_whole(info: AudioInfo, file: Any) -> None:
    chunks = read_chunks(info.path)
    missing_bytes = chunks.missing_bytes if chunks else _missing_bytes_by_log(file)
    if missing_bytes:
        raise AudioFileError(
            f"{info.path}: is cut off, {missing_bytes} bytes are missing at the end; get a whole copy of it"
        )
    if info.samples == 0:
        raise AudioFileError(f"{info.path}: holds no sound (0 samples)")
    if info.samples >= 1 << 60:
        raise AudioFileError(f"{info.path}: does not say how long it is; save it anew with an audio editor")
    try:
        file.seek(info.samples - 1)
        last = len(file.read(1))
    except soundfile.SoundFileError:
        last = 0
    if not last or (info.container == "OGG" and not _ogg_has_end(info.path)):
        raise AudioFileError(
            f"{info.path}: is cut off or damaged, it cannot be read to its end at {clock(info.duration_s)}; "
            "get a whole copy of it"
        )


def _missing_bytes_by_log(file: Any) -> int:
    """For W64, CAF and AU, libsndfile takes what is there and says so only in its log: `data : 9 (should be 5)`."""
    sizes = re.findall(r"^ *(?:riff|data|Data Size)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    return max((int(said) - int(found) for said, found in sizes), default=0)


def _ogg_has_end(path: Path) -> bool:
    """Whether the last page (65 kB at most) is whole and has the end-of-stream mark (RFC 3533, header type bit 4)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""
    if len(page) < 27 or not page[5] & 4:
        return False
    lengths = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lengths)


def read_start(path: Path, longest: int | None = None) -> np.ndarray:
    """A file, or its first `longest` samples, as float32 (C, T). Raises AudioFileError."""
    parts, count = [], 0
    with AudioReader(probe(path)) as reader:
        for block in reader.blocks():
            parts.append(reader.codec.decode(block))
            count += block.shape[1]
            if longest is not None and count >= longest:
                break
    return np.concatenate(parts, axis=1)[:, :longest]


def check_finite(info: AudioInfo) -> None:
    """Raises AudioFileError at the first value that is not a finite number. Only float files are read for this."""
    if not info.may_hold_nan:
        return
    position = 0
    with AudioReader(info) as reader:
        for block in reader.blocks():
            finite = np.isfinite(reader.codec.decode(block)).all(axis=0)
            if not finite.all():
                sample = position + int(np.argmin(finite))
                raise AudioFileError(
                    f"{info.path}: holds a value that is not a number (NaN or infinite) at "
                    f"{clock(sample / info.sample_rate)} (sample {sample}); render it again or cut that place out"
                )
            position += block.shape[1]


def _is_pedalboard_exact(container: str, subtype: str, channels: int, endian: str) -> bool:
    return container == "WAV" and subtype == "FLOAT" and channels <= 2 and endian != "BIG"


class AudioReader:
    """Reads the samples of a probed file once, from its start, as the codec's own type."""

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
        """Blocks (C, T <= block_samples), `info.samples` in all. Raises AudioFileError where the file breaks off."""
        position = 0
        while position < self.info.samples:
            wanted = min(block_samples, self.info.samples - position)
            try:
                block = self._read(wanted)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise AudioFileError(
                    f"{self.info.path}: cannot be read on from {self._clock(position)} ({error})"
                ) from error
            if block.shape[1] == 0:
                raise AudioFileError(
                    f"{self.info.path}: is cut off or damaged, it ends at {self._clock(position)} "
                    f"instead of {clock(self.info.duration_s)}; get a whole copy of it"
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
    """Writes blocks to a new file. `close` (or leaving the `with`) finishes it; the system's errors pass through."""

    def __init__(
        self, path: Path, like: AudioInfo, container: str, subtype: str, *, strings_from: Path | None = None
    ) -> None:
        """A file of `like`'s rate and channels. `strings_from`: a file whose title, artist and so on are taken over;
        `lost_tags` is set where this type of file holds none.

        Raises OptionError where the format cannot hold that.
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
                        except soundfile.SoundFileError:  # this type holds none
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
        elif native.shape[0] == native.shape[1]:  # pedalboard cannot tell the axes of a square apart
            for column in native.T:
                self._file.write(column[:, None])
        else:
            self._file.write(native)

    def close(self) -> None:
        self._file.close()
        if self._by_pedalboard:
            self._stream.close()
