"""The whole network: control branch, denoiser and output head, fine branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import GATES, ModelConfig
from .control import ControlBranch
from .fine import FineBranch
from .unet import build_unet


class Denoiser(nn.Module):
    """Predicts the true stem's latent from a point x_t on the Schrödinger bridge: (B, 64, K, N) to the same shape.

    The head starts from z_c, the latent of the stem without its leakage (engine/dsp/leakage.py), and adds to it. With
    z_y the stem's latent and z_m that of the mix through the stem's mask,

        d = z_y, z_mix - z_y, z_c - z_y, z_m - z_c
        z = z_c + c (g1 d1 + g2 d2 + g3 d3 + g4 d4 + r) + f1 d1 + f2 d2 + f3 d3 + f4 d4

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
        """x_t (B, 64, K, N); t (B,) in 0..1; references (B, 4, 64, K, N): stem, mix, stem without its leakage, masked
        mix; residuals and tokens from the control branch and fine (B, 128, K, N) from the fine branch, same frames."""
        head = self.unet(
            x_t,
            1000.0 * t,
            encoder_hidden_states=tokens,
            down_block_additional_residuals=tuple(residuals[:-1]),
            mid_block_additional_residual=residuals[-1],
            return_dict=False,
        )[0].float()
        head = 0.25 * head  # small steps of the output layer would otherwise change the audio too much
        stem, mix, cancelled, masked = references.unbind(1)
        width, last = 2 * self.slots, (2 + GATES) * 2 * self.slots
        residual, gates = 0.1 * head[:, : 2 * width], 1.5 * torch.tanh(head[:, 2 * width : last])
        if self.trusts:
            trust = torch.sigmoid(head[:, last:] + 3.0)
            trust = torch.repeat_interleave(trust, self.slots, dim=1)
            residual, gates = torch.cat([trust] * 2, 1) * residual, torch.cat([trust] * GATES, 1) * gates
        correction = residual
        parts = stem, mix - stem, cancelled - stem, masked - cancelled
        for gate, part in zip((gates + fine).chunk(GATES, dim=1), parts, strict=True):
            correction = correction + torch.cat([gate, gate], 1) * part
        return cancelled + correction


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
        """features (B, LAYOUT.rows, K, N + 16); x_t (B, 64, K, N) and references (B, 4, 64, K, N), whose frame n goes
        with features up to frame n + 16."""
        residuals, tokens = self.control(features)
        ahead = self.config.lookahead
        late = [r[..., ahead:] for r in residuals]
        fine = self.fine(features)[..., ahead:] if self.fine_runs else references.new_zeros(())
        return self.denoiser(x_t, t, references, late, tokens[..., ahead:], fine)
