"""Attention over frequency alone, within each frame."""

from __future__ import annotations

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from .causal import ChannelNorm


class FrequencyTransformer(nn.Module):
    """Self-attention over the bands of a frame, and cross-attention to the frame's band tokens if there are any.

    x (B, C, K, N), tokens (B, D, K', N) or None. Replaces diffusers' Transformer2DModel, which attends over the whole
    image and therefore over time too. The transformer block inside is the same, so LoRA finds to_q, to_k, to_v and
    to_out under their usual names.
    """

    def __init__(self, channels: int, heads: int, token_channels: int | None) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        block = BasicTransformerBlock(
            channels, heads, channels // heads, cross_attention_dim=token_channels, ff_inner_dim=2 * channels
        )
        for attention in filter(None, (block.attn1, block.attn2)):
            # With some twenty tokens a row, plain matrix products beat the fused kernel, most of all in the backward
            # pass in bfloat16.
            attention.set_processor(AttnProcessor())
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: object) -> tuple[Tensor]:
        batch, channels, bands, frames = x.shape
        rows = self.norm(x).permute(0, 3, 2, 1).reshape(batch * frames, bands, channels)
        tokens = None
        if encoder_hidden_states is not None:
            size = encoder_hidden_states.shape
            tokens = encoder_hidden_states.permute(0, 3, 2, 1).reshape(size[0] * size[3], size[2], size[1])
        for block in self.transformer_blocks:
            rows = block(rows, encoder_hidden_states=tokens)
        rows = self.proj_out(rows)
        return (x + rows.reshape(batch, frames, bands, channels).permute(0, 3, 2, 1),)


class FrameTransformer(nn.Module):
    """A pretrained Transformer2DModel applied to one frame at a time, as an image one column wide. Its attention and
    its norm then run over frequency alone. x (B, C, K, N), tokens (B, D, K', N)."""

    def __init__(self, transformer: Transformer2DModel) -> None:
        super().__init__()
        for layer in transformer.modules():
            if isinstance(layer, Attention):
                layer.set_processor(AttnProcessor())  # few tokens a row, as in FrequencyTransformer
        self.picture = transformer  # the attribute's name is part of the keys of checkpoints

    def forward(self, x: Tensor, encoder_hidden_states: Tensor, **_: object) -> tuple[Tensor]:
        batch, channels, bands, frames = x.shape
        columns = x.permute(0, 3, 1, 2).reshape(batch * frames, channels, bands, 1)
        size = encoder_hidden_states.shape
        tokens = encoder_hidden_states.permute(0, 3, 2, 1).reshape(size[0] * size[3], size[2], size[1])
        out = self.picture(columns, encoder_hidden_states=tokens, return_dict=False)[0]
        return (out.reshape(batch, frames, channels, bands).permute(0, 2, 3, 1),)
