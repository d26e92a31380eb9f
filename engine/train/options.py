"""The settings of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..bundle import base_bundle
from ..errors import OptionError, TrainingError
from ..model.base import with_base
from ..model.config import ModelConfig
from ..model.lora import PARTS
from ..trust import Ramp
from .dataset import CropConfig
from .on_the_fly import FreshConfig


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; all but log_error are divided by their typical cost of leaving the stem alone (a running
    mean: dividing by each batch's own would let the batches with next to nothing to repair decide)."""

    log_error: float = 1.0
    compressed: float = 0.5
    log_magnitude: float = 0.3
    phase: float = 0.1
    frequency: float = 0.05
    delay: float = 0.05
    multi_resolution: float = 0.0


@dataclass(frozen=True)
class TrainOptions:
    """One run. `start_from` is a checkpoint.pt or an exported bundle's folder. `minutes` (of training, resumed ones
    counted in) and `steps` both end it, and by the nearer of them the learning rate falls to `final_rate` of its
    peak. Errors more than `floor_db` under the sound do not count at first, and by the middle those under -40 dB. An
    `adapter` is of this `rank` and changes these `parts` of the network: control, denoiser, fine; it goes on from the
    file `on`, of the same or a lower rank and the same or fewer parts, or begins anew; when its caution is fitted, real
    separators' stems count `recorded` times, a kind of case so many times as `counts` says, and the gate lets nothing
    and all of the change through at the severities of `ramp`, with the mixture. `base` is the folder of a pretrained
    U-Net for the denoiser's place, which then decides the denoiser's sizes in `model`."""

    run: Path
    pool: Path
    steps: int = 6000
    minutes: float = 1e9
    device: str = "auto"
    threads: int = 0
    workers: int = 1
    bf16: bool = True
    learning_rate: float = 6e-4
    warmup: int = 100
    final_rate: float = 0.03
    floor_db: float = -15.0
    ema: float = 0.998
    clip: float = 1.0
    seed: int = 1
    trust_from: float = 0.4
    at_end: float = 0.92
    validate_every: int = 400
    checkpoint_minutes: float = 4.0
    adapter: str | None = None
    on: Path | None = None
    recorded: float = 3.0
    counts: Mapping[str, float] = field(default_factory=dict)
    ramp: tuple[float, float] = (Ramp.closed, Ramp.opened)
    rank: int = 8
    parts: tuple[str, ...] = ("control", "denoiser")
    start_from: Path | None = None
    base: Path | None = None
    crop: CropConfig = field(default_factory=CropConfig)
    fresh: FreshConfig = field(default_factory=FreshConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.minutes <= 0:
            raise TrainingError(f"steps={self.steps}, minutes={self.minutes}: give more than zero of both")
        if self.base is not None:
            object.__setattr__(self, "model", with_base(self.model, self.base))
            if self.adapter is not None and self.start_from is None:
                raise TrainingError(
                    f"an adapter for base {self.base} needs what was trained from it: set start_from to that checkpoint"
                )
        if self.on is not None and self.adapter is None:
            raise TrainingError(f"on={self.on}: name the adapter that goes on from it")
        if self.adapter is not None and self.start_from is None:
            object.__setattr__(self, "start_from", base_bundle())  # an adapter needs the base that it adapts
        try:
            Ramp.of(self.ramp)
        except OptionError:
            raise TrainingError(f"ramp={list(self.ramp)}: give two rising numbers in 0 to 1") from None
        for kind, times in self.counts.items():
            if not 0.0 < times < float("inf"):
                raise TrainingError(f"counts: {kind} = {times:g}: give a number over 0")
        if not -40.0 <= self.floor_db <= 0.0:
            raise TrainingError(f"floor_db={self.floor_db:g}: give -40 to 0 dB")
        if not self.parts or set(self.parts) - set(PARTS):
            raise TrainingError(f"parts={list(self.parts)}: name some of {', '.join(PARTS)}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise TrainingError(f"device={self.device!r}: choose auto, cpu or cuda")

    def torch_device(self) -> torch.device:
        """Where the run computes."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise TrainingError("device=cuda, but torch sees no CUDA device; use device=cpu or auto")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")

    @property
    def mixed(self) -> bool:
        """Whether the network runs in bfloat16: where `bf16` asks for it and the device is made for it. A processor
        without AVX-512 takes nine times as long in it as in single precision."""
        return self.bf16 and has_bf16(self.torch_device())


def has_bf16(device: torch.device) -> bool:
    """Whether a device is no slower in bfloat16 than in single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False
