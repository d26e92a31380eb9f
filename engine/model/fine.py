"""The fine branch: gates for single bins, of what stem and song are in the bins around."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..detect.bank import TYPES
from ..dsp.latent import SLOTS, BandLayout
from ..features import LOG_MIX, LOG_REST, LOG_STEM, MIX_FLAG
from .causal import CausalConv2d, Delay
from .config import ModelConfig

FINE_BANDS = 52  # of the latent's bands, up to 11 kHz: above, single bins are hardly heard
GATES = 3
_LOGS = (LOG_STEM, LOG_REST, LOG_MIX)
_TINY = 1e-4


class FineBranch(nn.Module):
    """Features (B, 274, K, N) to gates (B, 96, K, N), zero above 11 kHz: three for each slot of mid and side, of stem,
    mixture less stem, and stem without its leak less stem.

    The U-Net speaks of bands of up to 16 bins through 32 channels, which is too few for a fault that takes each bin by
    itself, as musical noise does. Here a bin is a place of the convolution. The last layer is zero at the start; as
    long as neither training nor an adapter has opened it, this branch is not run.

    As in the control branch the output at frame n + 16 belongs to frame n, and it looks six frames to both sides.
    """

    first: Tensor
    band: Tensor
    shown: Tensor
    place: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layout, width, layers = BandLayout(), config.fine, 4
        inputs = 2 * (len(_LOGS) + 3) + len(TYPES) + 3
        self.bands = config.bands
        self.convs = nn.ModuleList(
            [CausalConv2d(inputs, width, (3, 5)), *[CausalConv2d(width, width) for _ in range(layers)]]
        )
        reach = 2 + layers  # frames to either side
        self.wait = Delay(config.lookahead - reach)
        self.out = nn.Conv2d(width, 2 * GATES, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        # Which slot shows a bin first, in which band it is, and which bin each slot shows.
        shown = layout.slot_bins[:FINE_BANDS].reshape(-1)
        first = np.flatnonzero(np.diff(shown, prepend=-1))
        place = np.stack([np.linspace(-1.0, 1.0, len(first)), layout.widths[first // SLOTS] / SLOTS])
        for name, value in (("first", first), ("band", first // SLOTS), ("shown", shown)):
            self.register_buffer(name, torch.from_numpy(value.astype(np.int64)), persistent=False)
        self.register_buffer("place", torch.from_numpy(place.astype(np.float32))[None, :, :, None], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        x = self._by_bin(features)
        for conv in self.convs:
            x = nn.functional.silu(conv(x))
        gates = self.wait(1.5 * torch.tanh(self.out(x)))
        batch, frames = gates.shape[0], gates.shape[-1]
        slots = torch.index_select(gates, 2, self.shown).reshape(batch, 2 * GATES, FINE_BANDS, SLOTS, frames)
        slots = slots.permute(0, 1, 3, 2, 4).reshape(batch, 2 * GATES * SLOTS, FINE_BANDS, frames)
        return nn.functional.pad(slots, (0, 0, 0, self.bands - FINE_BANDS))

    def _by_bin(self, features: Tensor) -> Tensor:
        """(B, 20, F, N): for mid and side the log-magnitudes, cosine and sine between stem and rest, and the real gain
        with which the rest would be the stem; the severities of the band and the mixture's flag; where the bin is."""
        batch, _, bands, frames = features.shape
        width = 2 * SLOTS
        re, im, rest_re, rest_im = (features[:, i * width : (i + 1) * width] for i in range(4))
        power, dot = rest_re * rest_re + rest_im * rest_im, re * rest_re + im * rest_im
        size = torch.sqrt((re * re + im * im) * power + _TINY)
        slots = [
            *[features[:, start : start + width] for start in _LOGS],
            dot / size,
            (im * rest_re - re * rest_im) / size,
            torch.tanh(dot / (power + _TINY)),
        ]
        by_slot = torch.stack(slots, dim=1).reshape(batch, 2 * len(slots), SLOTS, bands, frames)
        by_slot = by_slot.permute(0, 1, 3, 2, 4).reshape(batch, 2 * len(slots), bands * SLOTS, frames)
        by_band = torch.cat([features[:, -len(TYPES) :], features[:, MIX_FLAG : MIX_FLAG + 1]], dim=1)
        found = [torch.index_select(by_slot, 2, self.first), torch.index_select(by_band, 2, self.band)]
        return torch.cat([*found, self.place.expand(batch, -1, -1, frames)], dim=1)
