"""The whole network: control branch, denoiser and output head, fine branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .control import ControlBranch
from .fine import FineBranch
from .unet import build_unet


class Denoiser(nn.Module):
    """Predicts the true stem's latent from a point x_t on the Schrödinger bridge: (B, 64, K, N) to the same shape.

    The head computes, with z_y the stem's latent and z_c that of the stem without its leakage (engine/dsp/leakage.py),

        z = z_y + c (g1 z_y + g2 (z_mix - z_y) + g3 (z_c - z_y) + r) + f1 z_y + f2 (z_mix - z_y) + f3 (z_c - z_y)

    The mask gains g act on slots: one value for re and im, so they keep the phase. The residual r is free. The
    confidence c in 0..1 weights the correction, for each band and for mid and side. The mask gains f come from the fine
    branch.

    g and r start at zero. Training leaves c out (`trusts` False) until the correction is worth weighting: a network
    that can turn itself down from the start learns that first, and then g and r get no gradient any more.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.slots = config.latent // 4
        self.trusts = True
        self.unet = build_unet(config)

    def forward(
        self, x_t: Tensor, t: Tensor, references: Tensor, residuals: list[Tensor], tokens: Tensor, fine: Tensor
    ) -> Tensor:
        """x_t (B, 64, K, N); t (B,) in 0..1; references (B, 3, 64, K, N): stem, mix, stem without its leakage;
        residuals and tokens from the control branch and fine (B, 96, K, N) from the fine branch, same frames."""
        head = self.unet(
            x_t,
            1000.0 * t,
            encoder_hidden_states=tokens,
            down_block_additional_residuals=tuple(residuals[:-1]),
            mid_block_additional_residual=residuals[-1],
            return_dict=False,
        )[0].float()
        head = 0.25 * head  # small steps of the output layer would otherwise change the audio too much
        stem, mix, cancelled = references.unbind(1)
        width = 2 * self.slots
        residual, gates = 0.1 * head[:, : 2 * width], 1.5 * torch.tanh(head[:, 2 * width : 5 * width])
        if self.trusts:
            trust = torch.sigmoid(head[:, 5 * width :] + 3.0)
            trust = torch.repeat_interleave(trust, self.slots, dim=1)
            residual, gates = torch.cat([trust] * 2, 1) * residual, torch.cat([trust] * 3, 1) * gates
        correction = residual
        for gate, part in zip((gates + fine).chunk(3, dim=1), (stem, mix - stem, cancelled - stem), strict=True):
            correction = correction + torch.cat([gate, gate], 1) * part
        return stem + correction


class RepairNet(nn.Module):
    """Control branch, denoiser and fine branch. With `fine_runs` False the fine branch is skipped, as if all its mask
    gains were zero."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config or ModelConfig()
        self.control = ControlBranch(self.config)
        self.denoiser = Denoiser(self.config)
        self.fine = FineBranch(self.config)
        self.fine_runs = True

    def forward(self, features: Tensor, x_t: Tensor, t: Tensor, references: Tensor) -> Tensor:
        """features (B, LAYOUT.rows, K, N + 16); x_t (B, 64, K, N) and references (B, 3, 64, K, N), whose frame n goes
        with features up to frame n + 16."""
        residuals, tokens = self.control(features)
        ahead = self.config.lookahead
        late = [r[..., ahead:] for r in residuals]
        fine = self.fine(features)[..., ahead:] if self.fine_runs else references.new_zeros(())
        return self.denoiser(x_t, t, references, late, tokens[..., ahead:], fine)
