"""Samples that wait."""

from __future__ import annotations

from collections import deque

import numpy as np


class Fifo:
    """Blocks (C, T) in, any number of samples out. One thread may fill it while another empties it."""

    def __init__(self) -> None:
        self._blocks: deque[np.ndarray] = deque()

    def push(self, block: np.ndarray) -> None:
        """Add samples at the end."""
        if block.shape[1]:
            self._blocks.append(block)

    def pop(self, samples: int) -> np.ndarray:
        """The next `samples` samples, at least one, which have to be there."""
        taken: list[np.ndarray] = []
        while samples > 0:
            block = self._blocks.popleft()
            if block.shape[1] > samples:
                self._blocks.appendleft(block[:, samples:])
                block = block[:, :samples]
            taken.append(block)
            samples -= block.shape[1]
        return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)

    def drop(self, samples: int) -> None:
        """Take out the next `samples` samples, which have to be there, for nothing."""
        while samples > 0:
            block = self._blocks.popleft()
            if block.shape[1] > samples:
                self._blocks.appendleft(block[:, samples:])
            samples -= block.shape[1]
