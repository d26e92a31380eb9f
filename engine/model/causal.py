"""Layers that only see the past and can be run block by block: causal convolution, delay, frequency upsampling, norms.

Frames are the last axis and bands the one before: (B, C, K, N). A layer with memory keeps the last columns of its input
as its cache; `cache is None` means zeros, the state before the first frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(nn.Module):
    """A layer that remembers the last `columns` frames of its input."""

    columns: int = 0
    cache: Tensor | None = None
    next_cache: Tensor | None = None

    def remember(self, x: Tensor) -> Tensor:
        """x with the remembered columns in front; keeps its last columns for the next block."""
        if self.columns == 0:
            return x
        if self.cache is None:
            joined = F.pad(x, (self.columns, 0))
        else:
            joined = torch.cat([self.cache, x], dim=-1)
        self.next_cache = joined[..., -self.columns :]
        return joined


class CausalConv2d(Memory):
    """Convolution over bands (centred) and frames (past only): (B, C, K, N) to (B, C', K / stride, N)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int] = (3, 3), *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.columns = (kernel[1] - 1) * dilation
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=(stride, 1), padding=(kernel[0] // 2, 0), dilation=(1, dilation)
        )

    @classmethod
    def of(cls, conv: nn.Conv2d, stride: int = 1) -> CausalConv2d:
        """A pretrained image convolution (odd kernel) made causal: taps on the past keep their places, and taps on the
        future are added to the present one. For a signal that does not change over time the output is that of the
        original, and it stays aligned with a skip connection around it. `stride` acts on the bands alone."""
        bands, frames = (int(size) for size in conv.kernel_size)
        made = cls(conv.in_channels, conv.out_channels, (bands, frames), stride=stride)
        present = frames // 2
        taps = torch.zeros_like(conv.weight)
        taps[..., frames - present - 1 : -1] = conv.weight[..., :present]
        taps[..., -1] = conv.weight[..., present:].sum(dim=-1)
        with torch.no_grad():
            made.conv.weight.copy_(taps)
            assert made.conv.bias is not None
            if conv.bias is None:
                made.conv.bias.zero_()
            else:
                made.conv.bias.copy_(conv.bias)
        return made

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.conv(self.remember(x))


class Delay(Memory):
    """Passes each frame on `frames` frames later."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.columns = frames

    def forward(self, x: Tensor) -> Tensor:
        return self.remember(x)[..., : x.shape[-1]] if self.columns else x


class FrequencyUpsample(nn.Module):
    """Repeats every band, then convolves causally: (B, C, K, N) to (B, C', 2 K, N), or to 2 K - 1 bands if the skip's
    `size` (bands, frames) has one less. Replaces diffusers' Upsample2D."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = CausalConv2d(inputs, outputs)

    def forward(self, x: Tensor, size: Sequence[int] | None = None, *_: object) -> Tensor:
        wide = torch.repeat_interleave(x, 2, dim=2)
        if size is not None and int(size[0]) < int(wide.shape[2]):
            wide = wide[:, :, : int(size[0])]
        return self.conv(wide)


class ChannelNorm(nn.Module):
    """Layer norm over the channels at each band and frame (Ba et al. 2016), without statistics over time or frequency.

    Not a root-mean-square norm, because torch's fused kernel computes this gradient ten times faster on a CPU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias).permute(0, 3, 1, 2)


class FrameNorm(nn.Module):
    """A pretrained group norm (Wu and He 2018) with statistics over the bands of each frame, and none over time."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, bands, frames = x.shape
        rows = self.norm(x.permute(0, 3, 1, 2).reshape(batch * frames, channels, bands))
        return rows.reshape(batch, frames, channels, bands).permute(0, 2, 3, 1)


def memories(model: nn.Module) -> Iterator[tuple[str, Memory]]:
    """Name and layer of each layer with memory, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, Memory) and module.columns:
            yield name, module


def forget(model: nn.Module) -> None:
    """Reset every layer to the state before the first frame."""
    for _, module in memories(model):
        module.cache = module.next_cache = None


def advance(model: nn.Module) -> None:
    """Move on to the next block: the columns kept from the last one become the cache."""
    for _, module in memories(model):
        module.cache, module.next_cache = module.next_cache, None
