"""The settings of training runs: of one network or adapter (loop.py), and of several adapters jointly (joint.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from ..bundle import base_bundle
from ..errors import TrainingError
from ..model.base import with_base
from ..model.config import ModelConfig
from ..model.lora import PARTS
from .dataset import CropConfig
from .on_the_fly import OnTheFlyConfig
from .settings import read_fields


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms.

    Every term but log_error and pause, which are logarithms, is divided by its typical value for the unchanged stem, a
    running mean. Dividing by the value of the batch itself would give most weight to batches with next to nothing to
    repair.
    """

    log_error: float = 1.0
    compressed: float = 0.5
    log_magnitude: float = 0.3
    distance: float = 0.0
    phase: float = 0.1
    frequency: float = 0.05
    delay: float = 0.05
    multi_resolution: float = 0.0
    pause: float = 0.0


@dataclass(frozen=True)
class TrainOptions:
    """One run.

    start_from: a checkpoint.pt or the folder of an exported bundle. base: the folder of a pretrained U-Net to use as
    the denoiser; it then determines the denoiser's sizes in `model`.
    steps, minutes: the run ends at whichever comes first; `minutes` counts training time, including what a resumed run
    had before. The learning rate falls to `final_rate` of its peak by then.
    floor_db: errors this far below the signal do not count at first; the limit falls to -40 dB by the middle of the
    run.
    at_end: probability that a training example is at the end of the diffusion bridge, where the sampler starts.
    validate_every: steps from one table of progress to the next; there is none if it is more than `steps`.
    trust_from: fraction of the run after which the network may weight its own correction (model/network.py).
    adapter: the name of the adapter to train, with this `rank` and on these `parts` of the network (control, denoiser,
    fine). It starts from the file `on`, whose rank and parts may be smaller, or from scratch.
    """

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
    rank: int = 8
    parts: tuple[str, ...] = ("control", "denoiser")
    start_from: Path | None = None
    base: Path | None = None
    crop: CropConfig = field(default_factory=CropConfig)
    on_the_fly: OnTheFlyConfig = field(default_factory=OnTheFlyConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        _check_length(self.steps, self.minutes)
        if self.base is not None:
            object.__setattr__(self, "model", with_base(self.model, self.base))
            if self.adapter is not None and self.start_from is None:
                raise TrainingError(
                    f"an adapter for base {self.base} needs a checkpoint that was trained from it: set start_from"
                )
        if self.on is not None and self.adapter is None:
            raise TrainingError(f"on={self.on} is an adapter to start from: name the new one with --adapter NAME")
        if self.adapter is not None and self.start_from is None:
            object.__setattr__(self, "start_from", base_bundle())  # an adapter needs the base that it adapts
        if not -40.0 <= self.floor_db <= 0.0:
            raise TrainingError(f"floor_db={self.floor_db:g}: use -40 to 0 dB")
        if not self.parts or set(self.parts) - set(PARTS):
            raise TrainingError(f"parts={list(self.parts)}: use one or more of {', '.join(PARTS)}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise TrainingError(f"device={self.device!r}: choose auto, cpu or cuda")

    def torch_device(self) -> torch.device:
        """The device to compute on. Raises TrainingError for cuda without a CUDA device."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise TrainingError("device=cuda, but torch finds no CUDA device; use device=cpu or auto")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")

    @property
    def mixed_precision(self) -> bool:
        """Whether the network runs in bfloat16: if `bf16` asks for it and the device is fast in it. A CPU without
        AVX-512 takes nine times as long in bfloat16 as in single precision."""
        return self.bf16 and has_bf16(self.torch_device())


@dataclass(frozen=True)
class JointOptions:
    """One run that trains several `adapters` jointly.

    Each adapter's `presets`/<name>/recipe.toml gives its parts, rank, crops, losses and peak learning rate, which is
    multiplied by `rate_share` here. The run ends at `steps` or `minutes`, whichever comes first.
    on: start from the presets' own adapters, if there are any, as with `TrainOptions.on`.
    pairs: fraction of the steps that train two adapters at once. weights: how often each adapter is chosen relative to
    the others, in order; equally often if empty.
    no_mix, clean, upon_separated: as in CropConfig, for the pairs. batch: crops per step. floor_db: as in TrainOptions.
    """

    run: Path = Path("runs/joint")
    pool: Path = Path("data/pool")
    presets: Path = field(default_factory=lambda: base_bundle().parent)
    adapters: tuple[str, ...] = ("musical-noise", "bleed", "phasiness", "dull-highs", "smeared-transients")
    weights: tuple[float, ...] = ()
    start_from: Path = field(default_factory=base_bundle)
    on: bool = True
    pairs: float = 0.5
    no_mix: float = 0.05
    clean: float = 0.1
    upon_separated: float = 0.15
    batch: int = 4
    frames: int = 96
    history: int = 100
    steps: int = 3000
    minutes: float = 1e9
    rate_share: float = 0.5
    warmup: int = 40
    final_rate: float = 0.03
    floor_db: float = -30.0
    ema: float = 0.98
    clip: float = 1.0
    at_end: float = 0.92
    seed: int = 1
    device: str = "auto"
    threads: int = 0
    workers: int = 1
    checkpoint_minutes: float = 4.0

    def __post_init__(self) -> None:
        if len(set(self.adapters)) != len(self.adapters) or len(self.adapters) < 2:
            raise TrainingError(f"adapters={list(self.adapters)}: name two or more, each once")
        if self.weights and (len(self.weights) != len(self.adapters) or min(self.weights) <= 0.0):
            raise TrainingError(f"weights={list(self.weights)}: use one number above 0 for each adapter")
        if not 0.0 <= self.pairs <= 1.0:
            raise TrainingError(f"pairs={self.pairs} is a fraction: use 0 to 1")
        _check_length(self.steps, self.minutes)

    def recipe(self, name: str) -> TrainOptions:
        """An adapter's own settings. Raises OptionError if it has no recipe."""
        return load_options(self.presets / name / "recipe.toml")

    def crop(self, recipes: Sequence[TrainOptions]) -> CropConfig:
        """The crops for one adapter, or for two at once."""
        if len(recipes) == 1:
            return replace(recipes[0].crop, batch=self.batch, frames=self.frames, history=self.history)
        kinds = tuple(kind for recipe in recipes for kind in recipe.crop.artefacts)
        low = max(recipe.crop.severity[0] for recipe in recipes)
        return CropConfig(
            batch=self.batch, frames=self.frames, history=self.history, clean=self.clean, no_mix=self.no_mix, blend=0.0,
            simulated=1.0, together=True, artefacts=kinds, severity=(low, 1.0), upon_separated=self.upon_separated,
        )  # fmt: skip

    @property
    def sets(self) -> list[tuple[tuple[str, ...], float]]:
        """Every adapter and every pair of adapters, each with its probability."""
        weights = dict(zip(self.adapters, self.weights or (1.0,) * len(self.adapters), strict=True))
        alone = [((name,), weight) for name, weight in weights.items()]
        twos = [(pair, weights[pair[0]] * weights[pair[1]]) for pair in combinations(self.adapters, 2)]
        return [
            (names, share * weight / sum(w for _, w in group))
            for group, share in ((alone, 1.0 - self.pairs), (twos, self.pairs))
            for names, weight in group
        ]


def load_options(config: Path | None, **given: Any) -> TrainOptions:
    """The options in `config`, overridden by everything `given` that is not None. Raises OptionError as `read_fields`
    does."""
    options = {"run": Path("runs/base"), "pool": Path("data/pool")} | read_fields(TrainOptions, config)
    return TrainOptions(**(options | _not_none(given)))


def load_joint_options(config: Path | None, **given: Any) -> JointOptions:
    """As `load_options`."""
    return JointOptions(**(read_fields(JointOptions, config) | _not_none(given)))


def has_bf16(device: torch.device) -> bool:
    """Whether a device is at least as fast in bfloat16 as in single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def _not_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None}


def _check_length(steps: int, minutes: float) -> None:
    if steps < 1 or minutes <= 0:
        raise TrainingError(f"steps={steps}, minutes={minutes}: both must be above 0")
