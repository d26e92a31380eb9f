"""The phase-aware zero convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PhaseAwareZeroConv(nn.Module):
    """Complex-linear 1x1 convolution without bias that starts at zero: (B, 2 C, K, N) to (B, 2 C', K, N).

    The first half of the channels is the real part, the second half the imaginary part. The real kernel is
    [[A, -B], [B, A]], so the layer commutes with a rotation of its input's phase (Trabelsi et al., Deep Complex
    Networks, 2018). Starting at zero keeps a new branch silent until it has learnt something (Zhang et al., ControlNet,
    2023).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        if inputs % 2 or outputs % 2:
            raise ValueError(f"inputs={inputs} and outputs={outputs} must be even: one half is re, the other im")
        self.real = nn.Parameter(torch.zeros(outputs // 2, inputs // 2))
        self.imag = nn.Parameter(torch.zeros(outputs // 2, inputs // 2))

    def open(self) -> None:
        """Set random weights in place of zeros. Training from scratch would only be slowed down by a zero start."""
        bound = 0.5 * (2 * self.real.shape[1]) ** -0.5
        nn.init.normal_(self.real, std=bound)
        nn.init.normal_(self.imag, std=bound)

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.cat([torch.cat([self.real, -self.imag], dim=1), torch.cat([self.imag, self.real], dim=1)], dim=0)
        return nn.functional.conv2d(x, kernel[:, :, None, None].to(x.dtype))
