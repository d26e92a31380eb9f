"""Layers that only see the past and can be run block by block: causal convolution, delay, frequency resampling.

Frames are the last axis, bands the one before: (B, C, K, N). A layer with memory keeps its last input columns as its
cache; `cache is None` stands for zeros, the state before the first frame.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(nn.Module):
    """A layer that remembers the last `columns` frames of its input."""

    columns: int = 0
    cache: Tensor | None = None
    next_cache: Tensor | None = None

    def remember(self, x: Tensor) -> Tensor:
        """x with the remembered columns before it; keeps the last columns for the next block."""
        if self.columns == 0:
            return x
        if self.cache is None:
            joined = F.pad(x, (self.columns, 0))
        else:
            joined = torch.cat([self.cache, x], dim=-1)
        self.next_cache = joined[..., -self.columns :]
        return joined


class CausalConv2d(Memory):
    """Convolution over bands (same) and frames (past only): (B, C, K, N) to (B, C', K / stride, N)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int] = (3, 3), *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.columns = (kernel[1] - 1) * dilation
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=(stride, 1), padding=(kernel[0] // 2, 0), dilation=(1, dilation)
        )

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.conv(self.remember(x))


class Delay(Memory):
    """Hands each frame on `frames` later."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.columns = frames

    def forward(self, x: Tensor) -> Tensor:
        return self.remember(x)[..., : x.shape[-1]] if self.columns else x


class FrequencyUpsample(nn.Module):
    """Every band twice, then a causal convolution: (B, C, K, N) to (B, C', 2 K, N). Takes the place of diffusers'
    Upsample2D."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = CausalConv2d(inputs, outputs)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.conv(torch.repeat_interleave(x, 2, dim=2))


class ChannelNorm(nn.Module):
    """Layer norm over the channels at each band and frame (Ba et al. 2016): no statistic runs over time or frequency.

    In place of a root-mean-square norm, because torch's fused kernel makes its gradient ten times faster on a CPU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias).permute(0, 3, 1, 2)


def memories(model: nn.Module) -> Iterator[tuple[str, Memory]]:
    """The layers with memory, with their names, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, Memory) and module.columns:
            yield name, module


def forget(model: nn.Module) -> None:
    """Back to the state before the first frame."""
    for _, module in memories(model):
        module.cache = module.next_cache = None


def advance(model: nn.Module) -> None:
    """Make what the last block left the memory of the next block."""
    for _, module in memories(model):
        module.cache, module.next_cache = module.next_cache, None
