"""The whole network: control branch, denoiser and output head, fine branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .control import ControlBranch
from .fine import FineBranch
from .unet import build_unet


class Denoiser(nn.Module):
    """Predicts the true stem's latent from a point x_t on the bridge: (B, 64, K, N) to the same shape.

    Head: z = z_y + c (g1 z_y + g2 (z_mix - z_y) + g3 (z_c - z_y) + r) + f1 z_y + f2 (z_mix - z_y) + f3 (z_c - z_y), z_c
    the stem without its leak (engine/dsp/leakage.py). The gates g act on slots (one value for re and im, so they keep the
    phase), r is free, c in 0..1 is the network's confidence in its own change, for each band, for mid and side; the
    gates f are the fine branch's.
    Gates and r are zero at the start. Training leaves c out (`trusts` False) until there is a change worth trusting:
    a net that may distrust itself from the start learns that first, and then neither gates nor r have a gradient
    left.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.slots = config.latent // 4
        self.trusts = True
        self.unet = build_unet(config)

    def forward(
        self, x_t: Tensor, t: Tensor, references: Tensor, residuals: list[Tensor], tokens: Tensor, fine: Tensor
    ) -> Tensor:
        """x_t (B, 64, K, N), t (B,) in 0..1, references (B, 3, 64, K, N): stem, mixture, stem without its leak;
        residuals and tokens from the control branch, fine (B, 96, K, N) from the fine branch, same frames."""
        head = self.unet(
            x_t,
            1000.0 * t,
            encoder_hidden_states=tokens,
            down_block_additional_residuals=tuple(residuals[:-1]),
            mid_block_additional_residual=residuals[-1],
            return_dict=False,
        )[0].float()
        head = 0.25 * head  # a small step of the output layer is a large one of the sound
        stem, mix, cancelled = references.unbind(1)
        width = 2 * self.slots
        residual, gates = 0.1 * head[:, : 2 * width], 1.5 * torch.tanh(head[:, 2 * width : 5 * width])
        if self.trusts:
            trust = torch.sigmoid(head[:, 5 * width :] + 3.0)
            trust = torch.repeat_interleave(trust, self.slots, dim=1)
            residual, gates = torch.cat([trust] * 2, 1) * residual, torch.cat([trust] * 3, 1) * gates
        change = residual
        for gate, part in zip((gates + fine).chunk(3, dim=1), (stem, mix - stem, cancelled - stem), strict=True):
            change = change + torch.cat([gate, gate], 1) * part
        return stem + change


class RepairNet(nn.Module):
    """Control branch, denoiser and fine branch. `fine_runs` False leaves the last out, as where its gates are zero."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config or ModelConfig()
        self.control = ControlBranch(self.config)
        self.denoiser = Denoiser(self.config)
        self.fine = FineBranch(self.config)
        self.fine_runs = True

    def forward(self, features: Tensor, x_t: Tensor, t: Tensor, references: Tensor) -> Tensor:
        """features (B, 274, K, N + 16); x_t (B, 64, K, N), references (B, 3, 64, K, N): frame n of them goes with
        features up to n + 16."""
        residuals, tokens = self.control(features)
        ahead = self.config.lookahead
        late = [r[..., ahead:] for r in residuals]
        fine = self.fine(features)[..., ahead:] if self.fine_runs else references.new_zeros(())
        return self.denoiser(x_t, t, references, late, tokens[..., ahead:], fine)
