"""Channels as pairs, as the model takes them: stereo stays together, more channels go two by two, and an odd last one
fills both sides of its pair."""

from __future__ import annotations

import numpy as np

from ..errors import MixMismatchError

LOUDEST = 1e4  # times full scale


def pair_count(channels: int) -> int:
    """B, the number of pairs."""
    return (channels + 1) // 2


def to_pairs(audio: np.ndarray) -> np.ndarray:
    """Waveform (C, T) to pairs (B, 2, T); of an odd number the last channel is doubled, so its side signal is zero."""
    if len(audio) % 2:
        audio = np.concatenate([audio, audio[-1:]])
    return audio.reshape(len(audio) // 2, 2, -1)


def from_pairs(pairs: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of `to_pairs`: (B, 2, T) to (C, T); a doubled channel becomes the mean of its two sides."""
    flat = pairs.reshape(-1, pairs.shape[-1])
    if channels % 2:
        return np.concatenate(
            [flat[: channels - 1], flat[channels - 1 :].mean(axis=0, keepdims=True, dtype=np.float32)]
        )
    return flat


def check_mix(stem: np.ndarray, mix: np.ndarray) -> None:
    """Raises MixMismatchError unless the mix has the shape of the stem (C, T)."""
    found, wanted = np.shape(mix), np.shape(stem)
    if found == wanted:
        return
    if len(found) != 2:
        raise MixMismatchError(f"mix of shape {found}: pass (channels, samples), as the stem's {wanted}")
    if found[0] != wanted[0]:
        hint = f"convert the mix to {'mono' if wanted[0] == 1 else f'{wanted[0]} channels'}"
    else:
        hint = f"pass the {wanted[1]} samples of the mix that belong to the stem"
    raise MixMismatchError(
        f"the mix has {found[0]} x {found[1]} and the stem {wanted[0]} x {wanted[1]} (channels x samples); {hint}"
    )


def finite(sound: np.ndarray) -> np.ndarray:
    """A copy, channel by channel, without non-finite or absurdly large samples, which would stay in a model's
    memory."""
    return np.nan_to_num(np.clip(sound, -LOUDEST, LOUDEST, order="C"), nan=0.0, copy=False)
