"""Makes a diffusers U-Net causal: replaces its convolutions, resampling, norms and attention in place."""

from __future__ import annotations

from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.downsampling import Downsample2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn

from .attention import FrameTransformer, FrequencyTransformer
from .causal import CausalConv2d, ChannelNorm, FrameNorm, FrequencyUpsample
from .config import ModelConfig


def build_unet(config: ModelConfig) -> UNet2DConditionModel:
    """The denoiser's U-Net, ready for streaming: latent (B, 64, K, N) to head outputs (B, 162, K, N)."""
    if config.base:
        return make_base_causal(UNet2DConditionModel.from_config(base_config(config)))
    unet = UNet2DConditionModel(
        in_channels=config.latent,
        out_channels=config.head_outputs,
        block_out_channels=config.denoiser,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=config.tokens,
        attention_head_dim=config.head_channels,
        norm_num_groups=8,
    )
    return make_causal(unet, config)


def make_causal(unet: UNet2DConditionModel, config: ModelConfig) -> UNet2DConditionModel:
    """Replace, in place, every layer that would look at the future or gather statistics over time. Down- and upsampling
    then act on frequency alone, so any number of frames can be run. Returns the same U-Net."""
    for parent in list(unet.modules()):
        for name, child in list(parent.named_children()):
            causal = _causal_layer(child, config)
            if causal is not None:
                setattr(parent, name, causal)
    nn.init.zeros_(unet.conv_out.conv.weight)
    nn.init.zeros_(unet.conv_out.conv.bias)
    return unet


def _causal_layer(layer: nn.Module, config: ModelConfig) -> nn.Module | None:
    if isinstance(layer, Downsample2D):
        return CausalConv2d(layer.channels, layer.out_channels, (3, 1), stride=2)
    if isinstance(layer, Upsample2D):
        return FrequencyUpsample(layer.channels, layer.out_channels)
    if isinstance(layer, Transformer2DModel):
        width = layer.inner_dim
        return FrequencyTransformer(width, width // config.head_channels, config.tokens)
    if isinstance(layer, nn.GroupNorm):
        return ChannelNorm(layer.num_channels)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size[1] > 1:
        return CausalConv2d(layer.in_channels, layer.out_channels, (layer.kernel_size[0], layer.kernel_size[1]))
    return None


def base_config(config: ModelConfig) -> dict[str, Any]:
    """The configuration of the pretrained U-Net, with our latent as its input and our head's outputs as its output."""
    assert config.base is not None
    return config.base | {"in_channels": config.latent, "out_channels": config.head_outputs}


def make_base_causal(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Replace, in place, the layers of a pretrained U-Net with causal ones that keep its weights. For a signal that
    does not change over time its output stays the same. Only the output convolution starts at zero. Returns the same
    U-Net."""
    _exchange(unet)
    nn.init.zeros_(unet.conv_out.conv.weight)
    nn.init.zeros_(unet.conv_out.conv.bias)
    return unet


def _exchange(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        causal = _same_but_causal(child)
        if causal is None:
            _exchange(child)
        else:
            setattr(parent, name, causal)


def _same_but_causal(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, Downsample2D):
        return CausalConv2d.of(layer.conv, stride=2)
    if isinstance(layer, Upsample2D):
        made = FrequencyUpsample(layer.channels, layer.out_channels)
        made.conv = CausalConv2d.of(layer.conv)
        return made
    if isinstance(layer, Transformer2DModel):
        return FrameTransformer(layer)
    if isinstance(layer, nn.GroupNorm):
        return FrameNorm(layer)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size[1] > 1:
        return CausalConv2d.of(layer)
    return None
