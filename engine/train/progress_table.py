"""The short table that a run prints as it progresses: medians over fixed crops of held-out material."""

from __future__ import annotations

import numpy as np
import torch

from ..features import FeatureMaker
from . import losses
from .corpus.pool import FULL_SCALE, open_shard, shard_paths
from .dataset import CHOICES, Batch, CropConfig, PoolBatches
from .step import batch_tensors
from .trainer import Trainer

FRAMES = 300
_KINDS = {"v": "vocals", "a": "accompaniment"}


@torch.no_grad()
def progress_table(trainer: Trainer, count: int = 24) -> dict[str, float]:
    """Medians, for one step of the averaged model, over `count` crops of each held-out split: by stem the SI-SDR
    improvement in dB and the change of the log-magnitude error in %, and the SDR of clean stems in dB."""
    found: dict[str, list[float]] = {}
    one = torch.ones(1, device=trainer.device)
    layout, device = trainer.latent.layout, trainer.device
    trainer.model.eval()
    with trainer.averaged():
        for split in ("valid", "valid-other"):
            if not shard_paths(trainer.options.pool / split):
                continue  # a pool built without a folder of true stems has no whole songs to hold out
            for kind, batch in fixed_crops(trainer, split, count):
                data = batch_tensors(batch, device)
                with torch.autocast(device.type, torch.bfloat16, enabled=trainer.options.mixed_precision):
                    z = trainer.model(data["control"], data["stem"], one, data["references"])
                after, before, truth = (
                    losses.linear_spectrum(v, layout, trainer.scale) for v in (z, data["stem"], data["truth"])
                )
                if kind == "clean":
                    found.setdefault(f"{split}.clean_dB", []).append(min(80.0, _sdr(after, truth)))
                    continue
                weights = torch.ones(layout.bands, device=device)
                ratio = losses.log_magnitude_l1(z, data["truth"], weights) / losses.log_magnitude_l1(
                    data["stem"], data["truth"], weights
                )
                found.setdefault(f"{split}.{kind}.si_sdr", []).append(_si_sdr(after, truth) - _si_sdr(before, truth))
                found.setdefault(f"{split}.{kind}.log_mag", []).append(100.0 * (float(ratio) - 1.0))
    return {name: float(np.median(values)) for name, values in found.items()}


def fixed_crops(trainer: Trainer, split: str, count: int) -> list[tuple[str, Batch]]:
    """Crops of 3.5 s spread evenly over a split: vocals, accompaniment and clean stems in turn, with the mix unless the
    run trains without it."""
    options = trainer.options
    config = CropConfig(batch=1, frames=FRAMES, lookahead=options.crop.lookahead)
    batches = PoolBatches(options.pool, split, FeatureMaker(trainer.latent), config, 0)
    items = [(open_shard(path)[0], i) for path in batches.paths for i in range(len(open_shard(path)[0]))]
    crops, roles = [], options.crop.roles
    kinds = (*[_KINDS[role] for role in roles], "clean")
    dropped = np.array([options.crop.no_mix == 1.0])
    for n, (shard, i) in enumerate(items[:: max(1, len(items) // count)]):
        kind = kinds[n % len(kinds)]
        true_track, zeros, _ = CHOICES[roles[n % len(roles) if kind == "clean" else n % len(kinds)]]
        start = (shard.shape[-1] - batches.crop_samples) // 2
        tracks = shard[i, :, :, start : start + batches.crop_samples].astype(np.float32)[None] / np.float32(FULL_SCALE)
        truth, stem = tracks[:, true_track], tracks[:, true_track if kind == "clean" else zeros]
        if np.square(truth).mean() < 1e-6:
            continue
        crops.append((kind, batches.prepare(truth, stem, tracks[:, 0] + tracks[:, 1], dropped)))
    return crops


def _sdr(estimate: torch.Tensor, truth: torch.Tensor) -> float:
    error = float((estimate - truth).abs().square().sum())
    return 10 * float(np.log10(float(truth.abs().square().sum()) / max(error, 1e-12)))


def _si_sdr(estimate: torch.Tensor, truth: torch.Tensor) -> float:
    scale = (estimate * truth.conj()).real.sum() / truth.abs().square().sum().clamp_min(1e-12)
    return _sdr(estimate, scale * truth)
