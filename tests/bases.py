"""A tiny random U-Net like Stable Diffusion's, as diffusers saves it: four levels of two layers, attention at three of
them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

SIZES: dict[str, Any] = {
    "sample_size": 8, "block_out_channels": (8, 16, 16, 24), "layers_per_block": 2, "cross_attention_dim": 12,
    "attention_head_dim": 2, "norm_num_groups": 4,
}  # fmt: skip


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    """A U-Net with seeded random weights."""
    torch.manual_seed(5)
    return UNet2DConditionModel(**(SIZES | changes)).eval()


def save_unet(folder: Path, **changes: Any) -> Path:
    """Save a U-Net into the folder; returns the folder."""
    tiny_unet(**changes).save_pretrained(folder)
    return folder
