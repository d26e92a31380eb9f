"""Sums over the last frames, of fixed lengths, made so that the rounding does not depend on how the frames come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

LONGEST = 128
WIDTHS = tuple(2**i for i in range(LONGEST.bit_length()))  # frames of the sums that are made, each of the one before


def no_sums(shape: tuple[int, ...], longest: int = LONGEST) -> tuple[np.ndarray, ...]:
    """What `moving_sums` of values (*shape, N) up to so many frames, a power of two, remembers before the first."""
    return tuple(np.zeros((*shape, 2**i), np.float32) for i in range(longest.bit_length() - 1))


def moving_sums(
    values: np.ndarray, rows: Sequence[np.ndarray], before: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Sums of values (A, J, K, N) over the last 2^i frames for the rows rows[i] of J: (A, J, K, N), and the state after
    them. Each width adds two sums of half of it, of which the last are remembered: the work is that of the new
    frames alone."""
    count = values.shape[-1]
    out = np.empty_like(values)
    total, after = values, []
    for wanted, kept in zip_longest(rows, before):
        if len(wanted):
            out[:, wanted] = total[:, wanted]
        if kept is not None:
            joined = np.concatenate([kept, total], axis=-1)
            after.append(joined[..., count:])
            total = total + joined[..., :count]
    return out, tuple(after)


def longest_sums(values: np.ndarray, before: tuple[np.ndarray, ...]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """`moving_sums` of all rows over as many frames as the state was made for (`no_sums`)."""
    return moving_sums(values, [np.arange(0)] * len(before) + [np.arange(values.shape[1])], before)
