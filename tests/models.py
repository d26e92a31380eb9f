"""Small networks and signals for tests: every path of the real network at a hundredth of the work."""

from __future__ import annotations

import numpy as np
import torch
from stemprover.engine.model.config import ModelConfig
from stemprover.engine.model.network import RepairNet
from stemprover.engine.repair import Repairer

SMALL = ModelConfig(control=(16, 16, 32), denoiser=(16, 16, 16), tokens=16, fine=8)


def lively_net(seed: int = 0, config: ModelConfig = SMALL) -> RepairNet:
    """A network whose zero-initialised parts are random, so that it changes the audio clearly."""
    torch.manual_seed(seed)
    net = RepairNet(config).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if not parameter.any() and not name.endswith("bias"):
                parameter.normal_(std=0.05)
    return net


def untrained_net() -> RepairNet:
    """A network as it is before training: the identity."""
    torch.manual_seed(1)
    return RepairNet(SMALL).eval()


def sound(seconds: float, rate: int = 44100, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Noise bursts with decaying partials (C, T): attacks, tails and quiet passages."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    envelope = np.exp(-((t * 3.1) % 1.0) * 5.0)
    partials = sum(np.sin(2 * np.pi * f * t + p) / f for f, p in ((110, 0.1), (331, 0.7), (1250, 1.9), (2900, 2.0)))
    noise = rng.standard_normal((channels, len(t)))
    return (0.2 * envelope * (noise * 0.3 + 60.0 * partials * rng.uniform(0.5, 1.0, (channels, 1)))).astype(np.float32)


def streamed(
    repairer: Repairer, stem: np.ndarray, mix: np.ndarray | None, rate: int, block: int, frames: int = 4,
    role: str | None = None,
) -> np.ndarray:  # fmt: skip
    """A stem (C, T) sent through a live stream block by block, with the latency removed."""
    stream = repairer.stream(rate, len(stem), has_mix=mix is not None, chunk_frames=frames, role=role)
    out = []
    for at in range(0, stem.shape[1], block):
        part = stem[:, at : at + block]
        out.append(stream.process(part, None if mix is None else mix[:, at : at + block]))
        assert out[-1].shape == part.shape
    joined = np.concatenate([*out, stream.flush()], axis=1)
    return joined[:, stream.latency_samples :]
