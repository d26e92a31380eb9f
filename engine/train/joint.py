"""Several adapters trained side by side on one frozen base, alone and in pairs, as a blend adds them up.

    python -m stemprover.engine.train.joint --config docs/train-adapters.toml --pool data/pool --run runs/joint

Each step takes one adapter, on crops of its own recipe, or two at weight 1 each, on crops that have both faults; only
theirs are changed. Adapters that are trained apart know nothing of each other, and two whose changes overlap do too
much, or each other's harm, where they are added up.

writes runs/joint/<name>.safetensors for each adapter, and goes on from runs/joint/checkpoint.pt.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapters import Adapter
from ..detect.bank import Detectors
from ..dsp.latent import Latent
from ..errors import StemProverError, TrainingError
from ..features import FeatureMaker
from ..model.lora import add_adapter, go_on_from, save_adapter
from ..model.network import RepairNet
from ..sampler import BridgeSchedule
from .checkpoint import load_checkpoint, load_start
from .dataset import Batch, PoolBatches
from .joint_options import JointOptions, load_joint_options
from .loop import Pace, averaged, batch_loader, bridge_point, cosine_rate, error_floor, repair_terms, tensors
from .options import LossWeights, has_bf16


@dataclass(frozen=True)
class JointBatches:
    """`batches[step]`: which adapters the step is for, and the batch; both hang on seed and step alone."""

    by_set: dict[tuple[str, ...], PoolBatches]
    shares: tuple[float, ...]
    seed: int

    def __getitem__(self, step: int) -> tuple[tuple[str, ...], Batch]:
        names = list(self.by_set)[np.random.default_rng([self.seed, step, 1]).choice(len(self.shares), p=self.shares)]
        return names, self.by_set[names][step]


class JointTrainer:
    """The network with all adapters on it, their optimiser and averages; `step()` until done."""

    def __init__(self, options: JointOptions) -> None:
        self.options = options
        self.recipes = {name: options.recipe(name) for name in options.adapters}
        self.device = replace(next(iter(self.recipes.values())), device=options.device).torch_device()
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        net = RepairNet(next(iter(self.recipes.values())).model)
        self.scale = load_start(net, options.start_from, torch.device("cpu"))
        self.latent = Latent(scale=self.scale.numpy())
        model: Any = net
        for name, recipe in self.recipes.items():
            model = add_adapter(model, recipe.rank, name=name, parts=recipe.parts)
            trained = options.presets / name / "adapter.safetensors"
            if options.on and trained.exists() and not Adapter.load(trained).neutral:
                go_on_from(model, trained, name)
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
        self.taken: dict[str, int] = dict.fromkeys(options.adapters, 0)
        self.step_index, self.seconds = 0, 0.0
        maker = FeatureMaker(self.latent)
        by_set = {
            names: PoolBatches(
                options.pool, "train", maker, options.crop([self.recipes[n] for n in names]), options.seed
            )
            for names, _ in options.sets
        }
        self.batches = JointBatches(by_set, tuple(share for _, share in options.sets), options.seed)
        self.schedule = BridgeSchedule()
        options.run.mkdir(parents=True, exist_ok=True)
        if self.checkpoint_path.exists():
            self._resume(load_checkpoint(self.checkpoint_path, self.device))

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state is."""
        return self.options.run / "checkpoint.pt"

    @property
    def done(self) -> float:
        """Share of the run that is over, 0 to 1."""
        return min(1.0, max(self.step_index / self.options.steps, self.seconds / 60 / self.options.minutes))

    def step(self, names: tuple[str, ...], batch: Batch) -> dict[str, float]:
        """One optimiser step of these adapters; returns the loss and what each term gained against leaving the stem
        alone, as `Trainer.step`."""
        options = self.options
        recipes = [self.recipes[name] for name in names]
        weights = mean_weights([recipe.weights for recipe in recipes])
        data = tensors(batch, self.device)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + self.step_index)
        t, x_t = bridge_point(data["truth"], data["stem"], self.schedule, generator, options.at_end)
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
            for name, value in repair_terms(data["stem"], *arguments).items():
                typical[name] = 0.9 * typical.get(name, float(value)) + 0.1 * float(value)
        terms = {name: v if name == "log_error" else v / (typical[name] + 1e-6) for name, v in terms.items()}
        loss = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        own = {key: p for name in names for key, p in self.lora[name].items()}
        norm = torch.nn.utils.clip_grad_norm_(own.values(), options.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        for name in names:
            self.taken[name] += 1
            decay = min(options.ema, (1 + self.taken[name]) / (10 + self.taken[name]))
            with torch.no_grad():
                mine = self.lora[name]
                torch._foreach_lerp_([self.average[key] for key in mine], list(mine.values()), 1 - decay)
        self.step_index += 1
        gained = {name: float(v.detach()) - (name != "log_error") for name, v in terms.items()}
        return {"loss": float(loss.detach()), "norm": float(norm), **gained}

    def activate(self, names: tuple[str, ...]) -> None:
        """Only these adapters are heard, and have gradients."""
        self.model.base_model.set_adapter(list(names))
        self.net.fine_runs = any("fine" in self.recipes[name].parts for name in names)

    def save(self) -> None:
        """Checkpoint and adapters, each written beside its place and renamed."""
        part = self.checkpoint_path.with_suffix(".part")
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
        torch.save(state, part)
        os.replace(part, self.checkpoint_path)
        with averaged(self.model, self.average, self.trained):
            for name in self.options.adapters:
                save_adapter(self.model, self.options.run / f"{name}.safetensors", name)

    def _resume(self, saved: dict[str, Any]) -> None:
        if set(saved["net"]) != set(self.average):
            raise TrainingError(
                f"{self.checkpoint_path} holds other adapters than {', '.join(self.options.adapters)}; give another run"
            )
        self.model.load_state_dict(saved["net"], strict=False)
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average, self.typical, self.taken = saved["ema"], saved["typical"], saved["taken"]
        self.step_index, self.seconds = saved["step"], saved["seconds"]


def mean_weights(several: Sequence[LossWeights]) -> LossWeights:
    """Each term's weight, averaged."""
    names = [item.name for item in fields(LossWeights)]
    return LossWeights(**{name: float(np.mean([getattr(one, name) for one in several])) for name in names})


def train_jointly(options: JointOptions, say: Callable[[str], None] = print) -> Path:
    """Run until `steps` or `minutes`; returns the run's folder, with an adapter for each name. Continues where a
    checkpoint stands."""
    # Zero-initialised layers make denormal numbers, at a third of the speed. Threads inherit this where they start.
    torch.set_flush_denormal(True)
    try:
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
                about = pace.about(trainer.step_index, options.steps, options.minutes * 60 - trainer.seconds)
                say(f"step {trainer.step_index}/{options.steps}  {shown} dB  {about}")
            if now - saved_at > options.checkpoint_minutes * 60:
                trainer.save()
                saved_at = now
            if trainer.seconds > options.minutes * 60:
                break
        trainer.save()
    finally:
        torch.set_flush_denormal(False)
    return options.run


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stemprover.engine.train.joint", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=None, help="settings (TOML), the fields of JointOptions")
    parser.add_argument("--pool", type=Path, default=None)
    parser.add_argument("--run", type=Path, default=None)
    parser.add_argument("--adapters", nargs="+", default=None, help="two or more presets by name")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default=None)
    parser.add_argument("--threads", type=int, default=None)
    given = vars(parser.parse_args(arguments))
    if given["adapters"] is not None:
        given["adapters"] = tuple(given["adapters"])
    try:
        train_jointly(load_joint_options(**given), lambda line: print(line, flush=True))
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main()
