"""The parts of a training step that training alone (trainer.py) and joint training (joint.py) share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..dsp.bands import band_importance
from ..dsp.latent import Latent
from ..features import REFERENCES
from ..sampler import DiffusionSchedule
from . import losses
from .dataset import Batch
from .options import LossWeights

LOGARITHMS = ("log_error", "pause")  # loss terms in units of 10 dB


def batch_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """A batch as tensors on the device, in the channels-last memory format."""
    out = {}
    for name in ("control", *REFERENCES, "truth"):
        tensor = torch.from_numpy(np.ascontiguousarray(getattr(batch, name)))
        out[name] = tensor.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    last = [out[name].permute(0, 2, 3, 1) for name in REFERENCES]
    out["references"] = torch.stack(last, dim=1).permute(0, 1, 4, 2, 3)
    return out


def diffusion_point(
    truth: Tensor, stem: Tensor, schedule: DiffusionSchedule, generator: torch.Generator, at_end: float = 0.5
) -> tuple[Tensor, Tensor]:
    """A random time t (B,) on the diffusion bridge and the point x_t there. With probability `at_end` it is the end of
    the bridge. The noise is scaled by U(0, 1)."""
    size = len(truth)
    t = torch.rand(size, generator=generator, dtype=torch.float64)  # single precision is not exact at the pinned end
    t = torch.where(torch.rand(size, generator=generator) < at_end, torch.ones_like(t), t)
    noise = torch.randn(truth.shape, generator=generator) * torch.rand(size, 1, 1, 1, generator=generator)
    w_x, w_y, sigma = (w.to(truth)[:, None, None, None] for w in schedule.marginal(t))
    return t.to(truth), w_x * truth + w_y * stem + sigma * noise.to(truth)


def repair_terms(
    estimate: Tensor, batch: Mapping[str, Tensor], latent: Latent, scale: Tensor, weights: LossWeights, floor: float
) -> dict[str, Tensor]:
    """The loss terms with a weight other than zero, for estimated latents (B, 64, K, N). `floor` as in
    `log_error_ratio`."""
    layout, truth = latent.layout, batch["truth"]
    importance = torch.from_numpy(band_importance(layout)).to(estimate)
    spectra = {
        name: losses.linear_spectrum(z, layout, scale, latent.exponent)
        for name, z in (("estimate", estimate), ("stem", batch["stem"]), ("truth", truth), ("mix", batch["mix"]))
    }
    power = {name: losses.total_power(spectra[name]) for name in ("truth", "mix")}
    presence = power["truth"] + 0.05 * power["mix"] + 1e-3
    terms: dict[str, Callable[[], Tensor]] = {
        "log_error": lambda: losses.log_error_ratio(
            spectra["estimate"], spectra["stem"], spectra["truth"], presence, floor
        ),
        "pause": lambda: losses.pause_excess(spectra["estimate"], spectra["truth"], presence),
        "compressed": lambda: losses.compressed_l1(estimate, truth, importance),
        "log_magnitude": lambda: losses.log_magnitude_l1(estimate, truth, importance),
        "distance": lambda: losses.log_spectral_distance(spectra["estimate"], spectra["truth"]),
        "phase": lambda: losses.phase_cosine(estimate, truth, importance),
        "frequency": lambda: losses.instantaneous_frequency(estimate, truth, importance),
        "delay": lambda: losses.group_delay(estimate, truth, importance),
        "multi_resolution": lambda: losses.multi_resolution_stft(
            losses.waveform(spectra["estimate"], 2048, 512), losses.waveform(spectra["truth"], 2048, 512)
        ),
    }
    return {name: term() for name, term in terms.items() if getattr(weights, name)}


def update_typical(typical: dict[str, float], untouched: Mapping[str, Tensor], rate: float) -> None:
    """Move each term's running mean for the unchanged stem towards the newest value by `rate`."""
    for name, value in untouched.items():
        typical[name] = (1.0 - rate) * typical.get(name, float(value)) + rate * float(value)


def relative_terms(terms: Mapping[str, Tensor], typical: Mapping[str, float]) -> dict[str, Tensor]:
    """Each term divided by its typical value for the unchanged stem, but for those that are logarithms already."""
    return {name: v if name in LOGARITHMS else v / (typical[name] + 1e-6) for name, v in terms.items()}


def weighted_loss(terms: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the relative terms."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()


def changes(
    terms: Mapping[str, Tensor], untouched: Mapping[str, Tensor], typical: Mapping[str, float]
) -> dict[str, float]:
    """How far each relative term is from that of the unchanged stems of the same batch; negative is better."""
    before = relative_terms(untouched, typical)
    return {name: float(v.detach()) - float(before[name]) for name, v in terms.items()}


def error_floor(first_db: float, done: float) -> float:
    """The floor of the error ratio as a ratio of powers: `first_db` at the start of a run, falling to -40 dB by its
    middle. `done` is the finished fraction of the run."""
    first = first_db / 10
    return float(10 ** (first - (4.0 + first) * min(1.0, 2.0 * done)))


def cosine_rate(peak: float, final: float, warmup: int, step: int, done: float) -> float:
    """Learning rate: a linear warm-up, then a cosine down to `final` times the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))


def update_average(average: Sequence[Tensor], weights: Sequence[Tensor], decay: float, steps: int) -> None:
    """Exponential moving average of the weights, in place; the first steps decay faster."""
    decay = min(decay, (1 + steps) / (10 + steps))
    with torch.no_grad():
        torch._foreach_lerp_(list(average), list(weights), 1 - decay)


@contextmanager
def averaged(model: nn.Module, average: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> Iterator[None]:
    """The averaged weights in the model, in place of the trained ones, for the duration of the block."""
    kept = {name: p.detach().clone() for name, p in trained.items()}
    model.load_state_dict(average, strict=False)
    try:
        yield
    finally:
        model.load_state_dict(kept, strict=False)
