"""The fine branch: mask gains for single bins, from stem and mix in the bins around."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..detect.detectors import TYPES
from ..dsp.latent import SLOTS, BandLayout
from ..features import LAYOUT
from .causal import CausalConv2d, Delay
from .config import GATES, ModelConfig

FINE_BANDS = 52  # of the latent's bands, up to 11 kHz; above that, single bins are hardly audible
_LOGS = (LAYOUT.log_stem, LAYOUT.log_residual, LAYOUT.log_mix)
_TINY = 1e-4


class FineBranch(nn.Module):
    """Features (B, LAYOUT.rows, K, N) to mask gains (B, 128, K, N), zero above 11 kHz: for each slot of mid and side
    one gain for each part that the head adds (network.py).

    The U-Net describes a band of up to 16 bins with 32 channels, too few for a fault that differs from bin to bin, as
    musical noise does. Here every bin is a position of the convolution. The last layer starts at zero; as long as
    neither training nor an adapter has opened it, this branch is not run.

    As in the control branch, the output at frame n + 16 belongs to frame n. It looks six frames to both sides.
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
        # The first slot that shows each bin, that slot's band, and the bin that each slot shows.
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
        """(B, 20, F, N): for mid and side the log-magnitudes, the cosine and sine of the angle between stem and
        residual, and the real gain that maps the residual to the stem; for the bin's band the severities and the flag
        of the mix; and the bin's position."""
        batch, _, bands, frames = features.shape
        re, im = features[:, LAYOUT.stem].chunk(2, dim=1)
        residual_re, residual_im = features[:, LAYOUT.residual].chunk(2, dim=1)
        power, dot = residual_re * residual_re + residual_im * residual_im, re * residual_re + im * residual_im
        size = torch.sqrt((re * re + im * im) * power + _TINY)
        slots = [
            *[features[:, rows] for rows in _LOGS],
            dot / size,
            (im * residual_re - re * residual_im) / size,
            torch.tanh(dot / (power + _TINY)),
        ]
        by_slot = torch.stack(slots, dim=1).reshape(batch, 2 * len(slots), SLOTS, bands, frames)
        by_slot = by_slot.permute(0, 1, 3, 2, 4).reshape(batch, 2 * len(slots), bands * SLOTS, frames)
        by_band = torch.cat([features[:, LAYOUT.severity], features[:, LAYOUT.has_mix]], dim=1)
        found = [torch.index_select(by_slot, 2, self.first), torch.index_select(by_band, 2, self.band)]
        return torch.cat([*found, self.place.expand(batch, -1, -1, frames)], dim=1)
