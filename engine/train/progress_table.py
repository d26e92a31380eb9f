"""The short table that a run prints as it progresses: medians over fixed crops of held-out material."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..features import FeatureMaker
from . import losses
from .corpus.faulty import FIRST_VERSION, VERSIONS, faulty_shards
from .corpus.pool import FULL_SCALE, open_shard, shard_paths
from .dataset import CHOICES, Batch, CropConfig, PoolBatches, role_of, separated_by
from .faults.registry import MECHANISMS
from .step import batch_tensors
from .trainer import Trainer

FRAMES = 300
SPLITS = ("valid", "valid-other")
_KINDS = {"v": "vocals", "a": "accompaniment"}
UNKNOWN = "unknown"  # mechanisms, on songs that are held out


@torch.no_grad()
def progress_table(trainer: Trainer, count: int = 24) -> dict[str, float]:
    """Medians, for one step of the averaged model, over `count` crops of each held-out split: by stem the SI-SDR
    improvement in dB and the change of the log-magnitude error in %, and the SDR of clean stems in dB. For every family
    of faults the same, over the mechanisms that are never trained on."""
    found: dict[str, list[float]] = {}
    one = torch.ones(1, device=trainer.device)
    layout, device = trainer.latent.layout, trainer.device
    trainer.model.eval()
    with trainer.averaged():
        for kind, batch in held_out_crops(trainer, count):
            data = batch_tensors(batch, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=trainer.options.mixed_precision):
                z = trainer.model(data["control"], data["stem"], one, data["references"])
            after, before, truth = (
                losses.linear_spectrum(v, layout, trainer.scale) for v in (z, data["stem"], data["truth"])
            )
            if kind.endswith(".clean"):
                found.setdefault(f"{kind}_dB", []).append(min(80.0, _sdr(after, truth)))
                continue
            weights = torch.ones(layout.bands, device=device)
            ratio = losses.log_magnitude_l1(z, data["truth"], weights) / losses.log_magnitude_l1(
                data["stem"], data["truth"], weights
            )
            found.setdefault(f"{kind}.si_sdr", []).append(_si_sdr(after, truth) - _si_sdr(before, truth))
            found.setdefault(f"{kind}.log_mag", []).append(100.0 * (float(ratio) - 1.0))
    return {name: float(np.median(values)) for name, values in found.items()}


def held_out_crops(trainer: Trainer, count: int) -> Iterator[tuple[str, Batch]]:
    """All crops of the table, each with the first part of its name there. A split that the pool lacks is left out."""
    for split in SPLITS:
        if shard_paths(trainer.options.pool / split):
            for kind, batch in fixed_crops(trainer, split, count):
                yield f"{split}.{kind}", batch
        yield from unknown_crops(trainer, split, 2 * count)


def fixed_crops(trainer: Trainer, split: str, count: int) -> list[tuple[str, Batch]]:
    """Crops of 3.5 s spread evenly over a split: vocals, accompaniment and clean stems in turn, with the mix unless the
    run trains without it."""
    batches = _batches(trainer, split, 0.0)
    items = [
        (shard[i], separated_by(path))
        for path in batches.paths
        for shard in open_shard(path)[:1]
        for i in range(len(shard))
    ]
    crops, roles = [], trainer.options.crop.roles
    kinds = (*[_KINDS[role] for role in roles], "clean")
    for n, (item, separator) in enumerate(items[:: max(1, len(items) // count)]):
        kind = kinds[n % len(kinds)]
        choice = roles[n % len(roles) if kind == "clean" else n % len(kinds)]
        true_track, zeros, _ = CHOICES[choice]
        tracks = (true_track, 1 - true_track, true_track if kind == "clean" else zeros)
        if (batch := _middle(trainer, batches, item, tracks, role_of(separator, choice))) is not None:
            crops.append((kind, batch))
    return crops


def unknown_crops(trainer: Trainer, split: str, count: int) -> Iterator[tuple[str, Batch]]:
    """Crops of faulty stems whose mechanism is not trained on, spread evenly over a split."""
    if not faulty_shards(trainer.options.pool, split):
        return
    batches = _batches(trainer, split, 1.0)
    items = [
        (shard[i], version, info["faults"][version], info["role"])
        for shard, infos in (open_shard(path) for path in batches.faulty_paths)
        for i, info in enumerate(infos)
        for version in range(VERSIONS)
    ]
    # An odd stride takes all versions in turn.
    for item, version, names, role in items[:: max(1, len(items) // count) | 1]:
        if len(names) == 1 and MECHANISMS[names[0]].unknown:
            batch = _middle(trainer, batches, item, (0, 1, FIRST_VERSION + version), role)
            if batch is not None:
                yield f"{UNKNOWN}.{MECHANISMS[names[0]].family}", batch


def _batches(trainer: Trainer, split: str, faulty: float) -> PoolBatches:
    config = CropConfig(batch=1, frames=FRAMES, lookahead=trainer.options.crop.lookahead, faulty=faulty)
    return PoolBatches(trainer.options.pool, split, FeatureMaker(trainer.latent), config, 0)


def _middle(
    trainer: Trainer, batches: PoolBatches, item: np.ndarray, tracks: tuple[int, ...], role: str
) -> Batch | None:
    """The middle of an item, from its tracks of true stem, rest and stem; None if the true stem is silent there."""
    start = (item.shape[-1] - batches.crop_samples) // 2
    cut = item[list(tracks), :, start : start + batches.crop_samples].astype(np.float32)[:, None]
    truth, rest, stem = cut / np.float32(FULL_SCALE)
    if np.square(truth).mean() < 1e-6:
        return None
    return batches.prepare(truth, stem, truth + rest, np.array([trainer.options.crop.no_mix == 1.0]), [role])


def _sdr(estimate: torch.Tensor, truth: torch.Tensor) -> float:
    error = float((estimate - truth).abs().square().sum())
    return 10 * float(np.log10(float(truth.abs().square().sum()) / max(error, 1e-12)))


def _si_sdr(estimate: torch.Tensor, truth: torch.Tensor) -> float:
    scale = (estimate * truth.conj()).real.sum() / truth.abs().square().sum().clamp_min(1e-12)
    return _sdr(estimate, scale * truth)
