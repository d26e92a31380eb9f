"""The sizes of the network."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..dsp.latent import SLOTS, BandLayout
from ..errors import ModelError
from ..features import LAYOUT

#: Mask gains for each slot, one for each part that the head may add.
GATES = 4
#: Keys of a U-Net's configuration that have no meaning here: the size and channels of its images (the first and last
#: convolutions are new), and whatever only a text prompt, a class label or a guidance scale would feed.
UNUSED = frozenset(
    {
        "sample_size", "in_channels", "out_channels", "center_input_sample", "conv_in_kernel", "conv_out_kernel",
        "encoder_hid_dim", "encoder_hid_dim_type", "class_embed_type", "num_class_embeds",
        "projection_class_embeddings_input_dim", "addition_embed_type", "addition_time_embed_dim",
        "addition_embed_type_num_heads", "time_cond_proj_dim",
    }
)  # fmt: skip
#: The blocks a U-Net may have: convolutions, and transformers that can run within a frame.
BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
#: Keys with a single supported value.
ONLY = {
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "attention_type": "default",
    "class_embeddings_concat": False,
}


def _check_base(base: dict[str, Any], bands: int) -> None:
    """Raises ModelError if a U-Net of this configuration cannot be the denoiser."""
    for key, known in BLOCKS.items():
        found = base[key]
        for block in found if isinstance(found, list) else [found]:
            if block not in known:
                raise ModelError(
                    f"{key} has {block!r}, whose attention or resampling cannot be kept within a frame, so it cannot "
                    f"be streamed; choose a U-Net of {' and '.join(name for name in known if name)}"
                )
    if "CrossAttnDownBlock2D" not in base["down_block_types"]:
        raise ModelError(
            "down_block_types has no CrossAttnDownBlock2D to read the band tokens; choose a U-Net with one"
        )
    for key, value in ONLY.items():
        if base[key] != value:
            raise ModelError(f"{key}={base[key]!r} is not supported; choose a U-Net with {value!r}")
    widths = base["block_out_channels"]
    deepest = (bands - 1).bit_length() - 1  # leaves two or three bands at the last level
    if not isinstance(widths, list) or not all(isinstance(width, int) for width in widths):
        raise ModelError(f"block_out_channels={widths!r} is not a list of widths; download config.json again")
    if not 2 <= len(widths) <= deepest:
        raise ModelError(
            f"block_out_channels={widths} has {len(widths)} levels, but {bands} bands allow 2 to {deepest}; "
            "choose a U-Net with that many"
        )
    for width in widths:
        if width % 2:
            raise ModelError(
                f"block_out_channels has {width}, but widths must be even (halves for re and im); choose another U-Net"
            )
    reads = base["cross_attention_dim"]
    if isinstance(reads, list) and len(set(reads)) > 1:
        raise ModelError(f"cross_attention_dim={reads} differs by level; choose a U-Net with one for all levels")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of control branch, denoiser and fine branch. Each level has half the bands of the one before, rounded up.

    `base` is the configuration, as diffusers writes it, of a U-Net of the Stable Diffusion family that is used as the
    denoiser (`with_base`). Without it the denoiser is our own, with three levels of one layer each.
    """

    bands: int = BandLayout().bands
    features: int = LAYOUT.rows
    latent: int = 4 * SLOTS
    control: tuple[int, int, int] = (64, 96, 128)
    denoiser: tuple[int, ...] = (32, 48, 64)
    tokens: int = 64
    head_channels: int = 16
    fine: int = 24
    base: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.bands % 4:
            raise ModelError(f"bands={self.bands} must be a multiple of 4, because frequency is halved twice")
        for width in self.control if self.base else (*self.control, *self.denoiser):
            if width % 2 or width % self.head_channels:
                raise ModelError(f"width {width} must be even and a multiple of head_channels={self.head_channels}")
        if self.fine < 1:
            raise ModelError(f"fine={self.fine}: the fine branch needs at least one channel")
        if self.base:
            _check_base(self.base, self.bands)
        elif len(self.denoiser) != 3:
            raise ModelError(f"denoiser={list(self.denoiser)}: our own denoiser has three levels; pass three widths")

    def with_base(self, base: dict[str, Any]) -> ModelConfig:
        """These sizes with a pretrained U-Net as the denoiser: `base` is its configuration (all keys). Takes over its
        widths, and makes the band tokens as wide as its cross-attention expects. Raises ModelError, naming the value,
        for a U-Net that cannot be streamed."""
        kept = json.loads(json.dumps({key: base[key] for key in sorted(base) if key[0] != "_" and key not in UNUSED}))
        _check_base(kept, self.bands)
        reads = kept["cross_attention_dim"]
        tokens = reads[0] if isinstance(reads, list) else reads
        return replace(self, denoiser=tuple(kept["block_out_channels"]), tokens=tokens, base=kept)

    @property
    def residuals(self) -> list[tuple[int, int]]:
        """(level, width) of each point where the control branch adds to the U-Net: its skips in order, then its middle
        block."""
        last, layers = len(self.denoiser) - 1, self.base["layers_per_block"] if self.base else 1
        found = [(0, self.denoiser[0])]
        for level, width in enumerate(self.denoiser):
            found += [(level, width)] * (layers[level] if isinstance(layers, list) else layers)
            if level < last:
                found.append((level + 1, width))
        return [*found, (last, self.denoiser[-1])]

    def bands_at(self, level: int) -> int:
        """Bands at a level: 84, 42, 21, 11, 6."""
        return -(-self.bands // 2**level)

    @property
    def lookahead(self) -> int:
        """Frames of future that the control branch sees: half the length of its stack of convolutions."""
        return 16

    @property
    def gates(self) -> int:
        """Output channels of the fine branch: GATES mask gains for each slot."""
        return GATES * (self.latent // 2)

    @property
    def head_outputs(self) -> int:
        """Channels of the output convolution: residual, GATES mask gains for each slot, a confidence each for mid and
        side."""
        return self.latent + self.gates + 2

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """From JSON. Raises ModelError for unknown keys."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        try:
            return cls(**known)
        except TypeError as error:
            raise ModelError(f"model configuration {sorted(values)}: {error}") from error
