"""The control branch: reads the features of stem and mix, once for all steps of the sampler."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import FrequencyTransformer
from .causal import CausalConv2d, ChannelNorm, Delay
from .config import ModelConfig
from .zero_conv import PhaseAwareZeroConv


class ResBlock(nn.Module):
    """Two causal convolutions with a skip connection around them; dilations in frames."""

    def __init__(self, channels: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = CausalConv2d(channels, channels, dilation=dilations[0])
        self.norm2 = ChannelNorm(channels)
        self.conv2 = CausalConv2d(channels, channels, dilation=dilations[1])
        self.identity = Delay(sum(dilations))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        return self.identity(x) + self.conv2(nn.functional.silu(self.norm2(h)))


class ControlBranch(nn.Module):
    """Features (B, LAYOUT.rows, K, N) to residuals for the denoiser's skips and middle block (`ModelConfig.residuals`),
    and band tokens (B, D, K / 4, N). If a pretrained base has more than three levels, the deeper ones get the third
    level's output with its bands halved again.

    The branch sees neither x_t nor t, so its outputs are cached for all steps. The output at frame n + 16 belongs to
    frame n: each convolution is causal, so its centre lies half its width in the past, and the finer levels are delayed
    to match the coarsest. Every level therefore looks equally far to both sides of its frame.
    """

    DILATIONS = (((1, 2),), ((1, 2), (1, 2)), ((1, 2), (2, 2)))

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c0, c1, c2 = config.control
        self.conv_in = nn.Conv2d(config.features, c0, 1)
        self.band_bias = nn.Parameter(torch.zeros(1, c0, config.bands, 1))
        self.down = nn.ModuleList([CausalConv2d(c0, c1, (3, 1), stride=2), CausalConv2d(c1, c2, (3, 1), stride=2)])
        self.levels = nn.ModuleList(
            nn.Sequential(*[ResBlock(width, dilations) for dilations in blocks])
            for width, blocks in zip(config.control, self.DILATIONS, strict=True)
        )
        self.attention = FrequencyTransformer(c2, c2 // config.head_channels, None)
        reach = [sum(map(sum, blocks)) for blocks in self.DILATIONS]
        assert sum(reach) == config.lookahead, reach
        self.wait = nn.ModuleList([Delay(reach[1] + reach[2]), Delay(reach[2])])
        self.places = [level for level, _ in config.residuals]
        self.zero = nn.ModuleList(
            PhaseAwareZeroConv(config.control[min(level, 2)], width) for level, width in config.residuals
        )
        self.deeper = nn.ModuleList(CausalConv2d(c2, c2, (3, 1), stride=2) for _ in config.denoiser[3:])
        self.tokens = nn.Conv2d(c2, config.tokens, 1)

    def forward(self, features: Tensor) -> tuple[list[Tensor], Tensor]:
        """Residuals (one tensor for each of `ModelConfig.residuals`) and band tokens."""
        x = self.levels[0](self.conv_in(features) + self.band_bias)
        fine = self.wait[0](x)
        x = self.levels[1](self.down[0](x))
        middle = self.wait[1](x)
        x = self.levels[2](self.down[1](x))
        x = self.attention(x)[0]
        levels = [fine, middle, x]
        for down in self.deeper:
            levels.append(down(levels[-1]))
        return [zero(levels[place]) for zero, place in zip(self.zero, self.places, strict=True)], self.tokens(x)
