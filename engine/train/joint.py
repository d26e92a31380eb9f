"""Trains several adapters jointly on one frozen base, alone and in pairs, as a blend adds them up.

    python -m stemprover.engine.train.joint --config docs/train-adapters.toml --pool data/pool --run runs/joint

Each step trains one adapter on crops of its own recipe, or two at weight 1 each on crops that have both faults; the
others stay as they are. Adapters trained separately know nothing of each other: where two corrections overlap, their
sum goes too far, or one repairs what the other does well.

Writes runs/joint/<name>.safetensors for each adapter, and continues from runs/joint/checkpoint.pt.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapters import Adapter
from ..detect.detectors import Detectors
from ..dsp.latent import Latent
from ..errors import StemProverError, TrainingError
from ..features import FeatureMaker
from ..model.lora import add_adapter, save_adapter, warm_start
from ..model.network import RepairNet
from ..sampler import DiffusionSchedule
from .checkpoint import load_checkpoint, load_start, write_checkpoint
from .dataset import Batch, PoolBatches
from .loop import Pace, batch_loader, denormals_flushed
from .options import JointOptions, LossWeights, has_bf16, load_joint_options
from .step import (
    averaged,
    batch_tensors,
    changes,
    cosine_rate,
    diffusion_point,
    error_floor,
    relative_terms,
    repair_terms,
    update_average,
    update_typical,
    weighted_loss,
)


@dataclass(frozen=True)
class JointBatches:
    """`batches[step]` is the adapters that the step trains, and its batch. Both depend on seed and step alone."""

    by_set: dict[tuple[str, ...], PoolBatches]
    probabilities: tuple[float, ...]
    seed: int

    def __getitem__(self, step: int) -> tuple[tuple[str, ...], Batch]:
        rng = np.random.default_rng([self.seed, step, 1])
        names = list(self.by_set)[rng.choice(len(self.probabilities), p=self.probabilities)]
        return names, self.by_set[names][step]


class JointTrainer:
    """Holds the network with all adapters on it, their optimiser and averaged weights; call `step()` until `done`."""

    def __init__(self, options: JointOptions) -> None:
        self.options = options
        self.recipes = {name: options.recipe(name) for name in options.adapters}
        first = self.recipes[options.adapters[0]]
        self.device = replace(first, device=options.device).torch_device()
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        net = RepairNet(first.model)
        self.scale = load_start(net, options.start_from, torch.device("cpu"))
        self.latent = Latent(scale=self.scale.numpy())
        model: Any = net
        for name, recipe in self.recipes.items():
            model = add_adapter(model, recipe.rank, name=name, parts=recipe.parts)
            trained = options.presets / name / "adapter.safetensors"
            if options.on and trained.exists() and not Adapter.load(trained).neutral:
                warm_start(model, trained, name)
        self.net, self.model = net, model.to(self.device).to(memory_format=torch.channels_last)
        self.scale = self.scale.to(self.device)
        self.net.denoiser.trusts = True
        parameters = list(self.model.named_parameters())
        self.lora = {
            name: {key: p for key, p in parameters if f".lora_A.{name}." in key or f".lora_B.{name}." in key}
            for name in options.adapters
        }
        groups = [{"params": list(self.lora[name].values()), "name": name} for name in options.adapters]
        self.optimiser = torch.optim.AdamW(groups, 1e-3, (0.95, 0.99), weight_decay=0.01)
        self.trained = {key: p for own in self.lora.values() for key, p in own.items()}
        self.average = {key: p.detach().clone() for key, p in self.trained.items()}
        self.typical: dict[str, dict[str, float]] = {}
        self.taken: dict[str, int] = dict.fromkeys(options.adapters, 0)  # steps of each adapter
        self.step_index, self.seconds = 0, 0.0
        maker = FeatureMaker(self.latent)
        by_set = {
            names: PoolBatches(
                options.pool, "train", maker, options.crop([self.recipes[n] for n in names]), options.seed
            )
            for names, _ in options.sets
        }
        self.batches = JointBatches(by_set, tuple(probability for _, probability in options.sets), options.seed)
        self.schedule = DiffusionSchedule()
        options.run.mkdir(parents=True, exist_ok=True)
        if self.checkpoint_path.exists():
            self._resume(load_checkpoint(self.checkpoint_path, self.device))

    @property
    def checkpoint_path(self) -> Path:
        """File of the run's state."""
        return self.options.run / "checkpoint.pt"

    @property
    def done(self) -> float:
        """Finished fraction of the run, 0 to 1."""
        return min(1.0, max(self.step_index / self.options.steps, self.seconds / 60 / self.options.minutes))

    def step(self, names: tuple[str, ...], batch: Batch) -> dict[str, float]:
        """One optimiser step of these adapters; returns the same values as `Trainer.step`."""
        options = self.options
        recipes = [self.recipes[name] for name in names]
        weights = mean_weights([recipe.weights for recipe in recipes])
        data = batch_tensors(batch, self.device)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + self.step_index)
        t, x_t = diffusion_point(data["truth"], data["stem"], self.schedule, generator, options.at_end)
        for group in self.optimiser.param_groups:
            peak = self.recipes[group["name"]].learning_rate * options.rate_share
            group["lr"] = cosine_rate(peak, options.final_rate, options.warmup, self.step_index, self.done)
        self.activate(names)
        self.model.train()
        bf16 = has_bf16(self.device) and all(recipe.bf16 for recipe in recipes)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            estimate = self.model(data["control"], x_t, t, data["references"])
        arguments = (data, self.latent, self.scale, weights, error_floor(options.floor_db, self.done))
        terms = repair_terms(estimate.float(), *arguments)
        typical = self.typical.setdefault("+".join(names), {})
        with torch.no_grad():
            untouched = repair_terms(data["stem"], *arguments)
        update_typical(typical, untouched, 0.1)
        terms = relative_terms(terms, typical)
        loss = weighted_loss(terms, weights)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        own = [p for name in names for p in self.lora[name].values()]
        norm = torch.nn.utils.clip_grad_norm_(own, options.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        for name in names:
            self.taken[name] += 1
            mine = self.lora[name]
            update_average([self.average[key] for key in mine], list(mine.values()), options.ema, self.taken[name])
        self.step_index += 1
        return {"loss": float(loss.detach()), "norm": float(norm), **changes(terms, untouched, typical)}

    def activate(self, names: tuple[str, ...]) -> None:
        """Make these adapters, and no others, act on the network and get gradients."""
        self.model.base_model.set_adapter(list(names))
        self.net.fine_runs = any("fine" in self.recipes[name].parts for name in names)

    def save(self) -> None:
        """Write the checkpoint and the adapters."""
        state = {
            "net": self.trained,
            "ema": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step_index,
            "seconds": self.seconds,
            "typical": self.typical,
            "taken": self.taken,
            "detectors": Detectors().fingerprint,
        }
        write_checkpoint(self.checkpoint_path, state)
        with averaged(self.model, self.average, self.trained):
            for name in self.options.adapters:
                save_adapter(self.model, self.options.run / f"{name}.safetensors", name)

    def _resume(self, saved: dict[str, Any]) -> None:
        if set(saved["net"]) != set(self.average):
            raise TrainingError(
                f"{self.checkpoint_path} does not hold {', '.join(self.options.adapters)}; use another --run"
            )
        self.model.load_state_dict(saved["net"], strict=False)
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average, self.typical, self.taken = saved["ema"], saved["typical"], saved["taken"]
        self.step_index, self.seconds = saved["step"], saved["seconds"]


def mean_weights(several: Sequence[LossWeights]) -> LossWeights:
    """The mean of each term's weights."""
    names = [item.name for item in fields(LossWeights)]
    return LossWeights(**{name: float(np.mean([getattr(one, name) for one in several])) for name in names})


def train_jointly(options: JointOptions, say: Callable[[str], None] = print) -> Path:
    """Train until `steps` or `minutes`, continuing from a checkpoint if there is one; returns the run's folder, with a
    file for each adapter."""
    with denormals_flushed():
        trainer = JointTrainer(options)
        say(f"{', '.join(options.adapters)} on {trainer.device}, from step {trainer.step_index}")
        last = saved_at = time.monotonic()
        pace = Pace(trainer.step_index)
        running: dict[str, float] = {}
        loader = batch_loader(trainer.batches, range(trainer.step_index, options.steps), options.workers)
        for names, batch in loader:
            terms = trainer.step(tuple(names), batch)
            what = " + ".join(names)
            running[what] = 0.9 * running.get(what, terms["log_error"]) + 0.1 * terms["log_error"]
            now = time.monotonic()
            trainer.seconds, last = trainer.seconds + now - last, now
            if trainer.step_index % 50 == 0:
                shown = ", ".join(f"{name} {10 * value:+.2f}" for name, value in sorted(running.items()))
                progress = pace.update(trainer.step_index, options.steps, options.minutes * 60 - trainer.seconds)
                say(f"step {trainer.step_index}/{options.steps}  {shown} dB  {progress}")
            if now - saved_at > options.checkpoint_minutes * 60:
                trainer.save()
                saved_at = now
            if trainer.seconds > options.minutes * 60:
                break
        trainer.save()
    return options.run


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stemprover.engine.train.joint", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=None, help="settings (TOML): fields of JointOptions")
    parser.add_argument("--pool", type=Path, default=None, help="training material (data/pool)")
    parser.add_argument("--run", type=Path, default=None, help="folder for checkpoint and adapters (runs/joint)")
    parser.add_argument("--adapters", nargs="+", default=None, help="names of two or more presets")
    parser.add_argument("--steps", type=int, default=None, help="stop after this many steps")
    parser.add_argument("--minutes", type=float, default=None, help="stop after this many minutes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default=None, help="where to compute (auto)")
    parser.add_argument("--threads", type=int, default=None, help="CPU cores to use")
    given = vars(parser.parse_args(arguments))
    if given["adapters"] is not None:
        given["adapters"] = tuple(given["adapters"])
    try:
        train_jointly(load_joint_options(**given), lambda line: print(line, flush=True))
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main()
