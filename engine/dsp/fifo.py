"""A queue of samples."""

from __future__ import annotations

from collections import deque

import numpy as np


class Fifo:
    """Blocks (C, T) in, any number of samples out; `len` is the number of samples inside. One thread may push while
    another pops."""

    def __init__(self) -> None:
        self._blocks: deque[np.ndarray] = deque()
        # Each counter is written by one thread only.
        self._pushed = self._popped = 0

    def __len__(self) -> int:
        return self._pushed - self._popped

    def push(self, block: np.ndarray) -> None:
        """Add samples at the end."""
        if block.shape[1]:
            self._blocks.append(block)
            self._pushed += block.shape[1]

    def push_front(self, block: np.ndarray) -> None:
        """Put samples back that were popped. Only for the thread that pops."""
        if block.shape[1]:
            self._blocks.appendleft(block)
            self._popped -= block.shape[1]

    def pop(self, samples: int) -> np.ndarray:
        """The next `samples` samples (C, samples). samples: 1 to len(self)."""
        taken = self._take(samples)
        return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)

    def drop(self, samples: int) -> None:
        """Discard the next `samples` samples, which must be there."""
        self._take(samples)

    def _take(self, samples: int) -> list[np.ndarray]:
        assert samples <= len(self), f"{samples} of {len(self)} samples"
        taken: list[np.ndarray] = []
        left = samples
        while left > 0:
            block = self._blocks.popleft()
            if block.shape[1] > left:
                self._blocks.appendleft(block[:, left:])
                block = block[:, :left]
            taken.append(block)
            left -= block.shape[1]
        self._popped += samples
        return taken
