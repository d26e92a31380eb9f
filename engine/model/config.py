"""The sizes of the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ModelError
from ..features import FEATURES
from ..latent import SLOTS, BandLayout


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of control branch and denoiser; three levels, each with half the bands of the one before."""

    bands: int = BandLayout().bands
    features: int = FEATURES
    latent: int = 4 * SLOTS
    control: tuple[int, int, int] = (64, 96, 128)
    denoiser: tuple[int, int, int] = (32, 48, 64)
    tokens: int = 64
    head_channels: int = 16

    def __post_init__(self) -> None:
        if self.bands % 4:
            raise ModelError(f"bands={self.bands} must be a multiple of 4: frequency is halved twice")
        for width in (*self.control, *self.denoiser):
            if width % 2 or width % self.head_channels:
                raise ModelError(f"width {width} must be even and a multiple of head_channels={self.head_channels}")

    @property
    def lookahead(self) -> int:
        """L, the frames of future that the control branch sees: the centre of its stack of convolutions."""
        return 16

    @property
    def head_outputs(self) -> int:
        """Channels of the output convolution: residual, two gates a slot, a confidence for mid and for side."""
        return self.latent + 2 * (self.latent // 2) + 2

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """From JSON; unknown keys are errors."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        try:
            return cls(**known)
        except TypeError as error:
            raise ModelError(f"model configuration {sorted(values)}: {error}") from error
