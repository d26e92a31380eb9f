"""Converts samples between a file's own type and the float32 of the repair, without loss.

libsndfile returns integers left-aligned in int32. Integers of up to 24 bits fit float32 exactly and are restored by
rounding, without dither, so samples that the repair does not change are stored unchanged. 32-bit integers and 64-bit
floats do not fit: for them, the repair's correction is added to the file's own samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INTEGER_BITS = {
    "PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "ULAW": 16, "ALAW": 16,
    "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32,
}  # fmt: skip
FLOATS = {"FLOAT", "DOUBLE"}
LOSSY = {"VORBIS", "OPUS", "MPEG_LAYER_III"}
BYTES_PER_SAMPLE = {
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1
}  # fmt: skip
_FLOAT32_BITS = 24


@dataclass(frozen=True)
class Encoded:
    """Samples (C, T) ready to be written, and how many of them were clipped to full scale."""

    native: np.ndarray
    clipped_samples: int


@dataclass(frozen=True)
class SampleCodec:
    """Converts between a libsndfile subtype and float32."""

    subtype: str

    @property
    def bits(self) -> int | None:
        """Bits of an integer sample; None for float and lossy subtypes."""
        return INTEGER_BITS.get(self.subtype)

    @property
    def dtype(self) -> type[np.generic]:
        """The type in which samples are read and written."""
        if self.bits is not None:
            return np.int32
        return np.float64 if self.subtype == "DOUBLE" else np.float32

    @property
    def needs_original(self) -> bool:
        """Whether float32 is too coarse for these samples, so that `encode` needs the file's own samples."""
        return self.subtype == "DOUBLE" or (self.bits or 0) > _FLOAT32_BITS

    def decode(self, native: np.ndarray) -> np.ndarray:
        """Samples as read (C, T) to float32 (C, T), with full scale = 1."""
        if self.bits is None:
            with np.errstate(over="ignore"):
                return native.astype(np.float32, copy=False)
        return native.astype(np.float32) * np.float32(2.0**-31)

    def encode(self, audio: np.ndarray, original: np.ndarray | None = None) -> Encoded:
        """Float32 (C, T) to samples as written. original: the file's own samples that `decode` was given, if needed."""
        if original is not None and self.needs_original:
            change = audio.astype(np.float64) - self.decode(original)
            if self.bits is None:
                return Encoded(original + change, 0)
            return self._to_integer(original.astype(np.float64) + np.rint(change * 2.0**31), 0)
        if self.bits is None:
            return Encoded(audio.astype(self.dtype, copy=False), 0)
        return self._to_integer(np.rint(audio.astype(np.float64) * 2.0 ** (self.bits - 1)), 32 - self.bits)

    def _to_integer(self, levels: np.ndarray, shift: int) -> Encoded:
        """Integers (as floats) to left-aligned int32. Full scale itself is one step too high, but not clipped."""
        full = 2.0 ** (31 - shift)
        clipped = int(np.count_nonzero((levels > full) | (levels < -full)))
        held = np.clip(levels, -full, full - 1).astype(np.int64)
        return Encoded((held << shift).astype(np.int32), clipped)
