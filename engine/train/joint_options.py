"""The settings of adapters that are trained side by side (joint.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from ..bundle import base_bundle
from ..errors import TrainingError
from .dataset import CropConfig
from .options import TrainOptions
from .settings import fields_from, load_options, read_toml


@dataclass(frozen=True)
class JointOptions:
    """One run of these `adapters`, whose recipes are `presets`/<name>/recipe.toml: parts, rank, crops, losses and peak
    of the learning rate, of which `rate_share` is taken here. It ends at `steps` or `minutes`. `on` goes on from the
    presets' own adapters, where they are there, as `TrainOptions.on` does. `pairs`: share of the steps that have two
    adapters; `weights`: how often each is taken for the others, in order (equally often). `no_mix`, `clean`,
    `upon_separated`: as in CropConfig, for the pairs. `batch`: crops of a step; `floor_db` as in TrainOptions."""

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
            raise TrainingError(f"weights={list(self.weights)}: give a number above 0 for each of the adapters")
        if not 0.0 <= self.pairs <= 1.0:
            raise TrainingError(f"pairs={self.pairs} is a share: give 0 to 1")
        if self.steps < 1 or self.minutes <= 0:
            raise TrainingError(f"steps={self.steps}, minutes={self.minutes}: give more than zero of both")

    def recipe(self, name: str) -> TrainOptions:
        """An adapter's own settings. Raises OptionError where there is no recipe."""
        return load_options(self.presets / name / "recipe.toml")

    def crop(self, recipes: Sequence[TrainOptions]) -> CropConfig:
        """What is cut for one adapter, or for two of them."""
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
        """Every adapter and every pair of them, each with its probability."""
        weights = dict(zip(self.adapters, self.weights or (1.0,) * len(self.adapters), strict=True))
        alone = [((name,), weight) for name, weight in weights.items()]
        twos = [(pair, weights[pair[0]] * weights[pair[1]]) for pair in combinations(self.adapters, 2)]
        return [
            (names, share * weight / sum(w for _, w in group))
            for group, share in ((alone, 1.0 - self.pairs), (twos, self.pairs))
            for names, weight in group
        ]


def load_joint_options(config: Path | None, **given: Any) -> JointOptions:
    """The options of a TOML file, and over them what is `given` and not None. Raises OptionError as `load_options`."""
    table = fields_from(JointOptions, read_toml(config), f"{config}: ") if config is not None else {}
    return JointOptions(**(table | {key: value for key, value in given.items() if value is not None}))
