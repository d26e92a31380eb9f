"""The training loop: on a CPU, a GPU, or in several processes by accelerate; resumable from its checkpoint with the
same data order."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import Tensor, nn

from ..detect.bank import Detectors
from ..dsp.bands import band_importance
from ..dsp.latent import Latent
from ..errors import TrainingError
from ..features import FeatureMaker
from ..model.base import load_base
from ..model.config import ModelConfig
from ..model.lora import add_adapter, go_on_from, save_adapter
from ..model.network import RepairNet
from ..sampler import BridgeSchedule
from . import losses
from .checkpoint import load_checkpoint, load_start
from .corpus.separators import Spleeter
from .dataset import Batch, PoolBatches, fit_band_scale
from .on_the_fly import FreshMaker, FreshShards
from .options import LossWeights, TrainOptions


def repair_terms(
    estimate: Tensor, batch: dict[str, Tensor], latent: Latent, scale: Tensor, weights: LossWeights, floor: float
) -> dict[str, Tensor]:
    """The terms whose weight is not zero, for estimated latents (B, 64, K, N). `floor` as in log_error_ratio."""
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
        "compressed": lambda: losses.compressed_l1(estimate, truth, importance),
        "log_magnitude": lambda: losses.log_magnitude_l1(estimate, truth, importance),
        "phase": lambda: losses.phase_cosine(estimate, truth, importance),
        "frequency": lambda: losses.instantaneous_frequency(estimate, truth, importance),
        "delay": lambda: losses.group_delay(estimate, truth, importance),
        "multi_resolution": lambda: losses.multi_resolution_stft(
            losses.waveform(spectra["estimate"], 2048, 512), losses.waveform(spectra["truth"], 2048, 512)
        ),
    }
    return {name: term() for name, term in terms.items() if getattr(weights, name)}


def error_floor(first_db: float, done: float) -> float:
    """From `first_db` at the start of a run to -40 dB at its middle, as a ratio of powers."""
    first = first_db / 10
    return float(10 ** (first - (4.0 + first) * min(1.0, 2.0 * done)))


def cosine_rate(peak: float, final: float, warmup: int, step: int, done: float) -> float:
    """Learning rate: linear warm-up, then a cosine down to its final share."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))


def bridge_point(
    truth: Tensor, stem: Tensor, schedule: BridgeSchedule, generator: torch.Generator, at_end: float = 0.5
) -> tuple[Tensor, Tensor]:
    """A random time (B,), with probability `at_end` the end of the bridge, and the point x_t there; the noise is scaled
    by U(0, 1)."""
    size = len(truth)
    t = torch.rand(size, generator=generator, dtype=torch.float64)  # single precision is not exact at the pinned end
    t = torch.where(torch.rand(size, generator=generator) < at_end, torch.ones_like(t), t)
    noise = torch.randn(truth.shape, generator=generator) * torch.rand(size, 1, 1, 1, generator=generator)
    w_x, w_y, sigma = (w.to(truth)[:, None, None, None] for w in schedule.marginal(t))
    return t.to(truth), w_x * truth + w_y * stem + sigma * noise.to(truth)


def tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """A batch as tensors on the device, channels last."""
    out = {}
    for name in ("control", "stem", "mix", "cancelled", "truth"):
        tensor = torch.from_numpy(np.ascontiguousarray(getattr(batch, name)))
        out[name] = tensor.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    last = [out[name].permute(0, 2, 3, 1) for name in ("stem", "mix", "cancelled")]
    out["references"] = torch.stack(last, dim=1).permute(0, 1, 4, 2, 3)
    return out


def make_accelerator(options: TrainOptions) -> Accelerator:
    """What places, casts, and joins the processes, if a launcher has started several."""
    # accelerate keeps its device and precision for the whole Python process; the next run may want others.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=options.torch_device().type == "cpu", mixed_precision="bf16" if options.mixed else "no")


class Trainer:
    """Holds model, optimiser, average and data of one run; `step()` until done.

    With P processes each step is one of P batches, one a process: number `step * P + p` of the run's order, so that one
    process sees what it always saw. The first process alone writes.
    """

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.accelerator = make_accelerator(options)
        self.device = self.accelerator.device
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        self.net = RepairNet(options.model).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.typical: dict[str, float] = {}
        self.step_index = 0
        self.seconds = 0.0
        if self.writes:
            options.run.mkdir(parents=True, exist_ok=True)
        checkpoint = self.checkpoint_path
        saved = load_checkpoint(checkpoint, self.device) if checkpoint.exists() else None
        if saved is not None and ModelConfig.from_dict(saved["model"]) != options.model:
            raise TrainingError(
                f"{checkpoint} holds a network of other sizes or of another base; give --base and [model] as when it "
                "was begun, or another --run"
            )
        if saved is None and options.start_from is None:
            if options.base is not None:  # its zero convolutions stay at zero: what it has learnt is not disturbed
                self.net.denoiser.unet = load_base(options.base, options.model).to(
                    self.device, memory_format=torch.channels_last
                )
            else:
                for zero_conv in self.net.control.zero:
                    zero_conv.open()  # the output layer alone keeps the new network silent
        if options.start_from is not None:
            scale = load_start(self.net, options.start_from, self.device)
        elif saved is not None:
            scale = saved["scale"]
        else:
            scale = torch.from_numpy(fit_band_scale(options.pool, FeatureMaker()))
        self.model: nn.Module = self.net
        if options.adapter is not None:
            self.model = self.peft = add_adapter(self.net, options.rank, parts=options.parts)
            if options.on is not None and saved is None:
                go_on_from(self.peft, options.on)
        self.latent = Latent(scale=scale.cpu().numpy())
        self.scale = scale.to(self.device)
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.parameters: list[Tensor] = list(self.trained.values())
        self.joined = self.accelerator.prepare_model(self.model)
        self.optimiser = self.accelerator.prepare_optimizer(
            torch.optim.AdamW(self.parameters, options.learning_rate, (0.95, 0.99), weight_decay=0.01, fused=True)
        )
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        if saved is not None:
            self.model.load_state_dict(saved["net"], strict=False)
            self.optimiser.load_state_dict(saved["optimiser"])
            self.average = saved["ema"]
            self.step_index = saved["step"]
            self.seconds = saved["seconds"]
            self.typical = saved["typical"]
        maker = FeatureMaker(self.latent)
        self.fresh: FreshMaker | None = None
        if options.fresh.share:
            folder = options.run / f"fresh-{self.accelerator.process_index}"
            shards = FreshShards(folder, options.fresh)
            separate = Spleeter(device=self.device).separate_all
            self.fresh = FreshMaker(options.pool, shards, separate, options.seed)
        fresh = None if self.fresh is None else self.fresh.shards
        self.batches = PoolBatches(options.pool, "train", maker, options.crop, options.seed, fresh)
        self.schedule = BridgeSchedule()
        if self.writes:
            (options.run / "options.json").write_text(json.dumps(asdict(options), default=str, indent=1) + "\n")
        self.accelerator.wait_for_everyone()  # nobody looks for a checkpoint when another has begun to write one

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes checkpoints and logs."""
        return self.accelerator.is_main_process

    def batch_number(self, step: int) -> int:
        """Which batch of the run's order this process takes in a step."""
        return step * self.accelerator.num_processes + self.accelerator.process_index

    def agree(self) -> None:
        """The first process's clock for all: learning rate and end of the run hang on it."""
        if self.accelerator.num_processes > 1:
            self.seconds = float(broadcast(torch.tensor(self.seconds, dtype=torch.float32, device=self.device)))

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state is."""
        return self.options.run / "checkpoint.pt"

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        options = self.options
        return cosine_rate(options.learning_rate, options.final_rate, options.warmup, step, self.done)

    @property
    def done(self) -> float:
        """Share of the run that is over, 0 to 1."""
        return min(1.0, max(self.step_index / self.options.steps, self.seconds / 60 / self.options.minutes))

    @property
    def floor(self) -> float:
        """Floor of the error ratio: `floor_db` at first, -15 dB so that clean stems do not hold a new net at the
        identity; it falls to -40 dB by the middle of the run, so that they are left alone in the end."""
        return error_floor(self.options.floor_db, self.done)

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the loss, the norm of its gradient, and what each term gained against leaving
        the stem alone (negative is good; as a share of what that typically costs, tenths of dB for log_error)."""
        options = self.options
        data = tensors(batch, self.device)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + self.batch_number(self.step_index))
        t, x_t = bridge_point(data["truth"], data["stem"], self.schedule, generator, options.at_end)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(self.step_index)
        self.model.train()
        self.net.denoiser.trusts = options.adapter is not None or self.done > options.trust_from
        with self.accelerator.autocast():
            estimate = self.joined(data["control"], x_t, t, data["references"])
        arguments = (data, self.latent, self.scale, options.weights, self.floor)
        terms = repair_terms(estimate.float(), *arguments)
        if self.step_index % 4 == 0:
            with torch.no_grad():
                untouched = self.accelerator.reduce(repair_terms(data["stem"], *arguments), "mean")
            for name, value in untouched.items():
                self.typical[name] = 0.96 * self.typical.get(name, float(value)) + 0.04 * float(value)
        terms = {name: v if name == "log_error" else v / (self.typical[name] + 1e-6) for name, v in terms.items()}
        loss = torch.stack([getattr(options.weights, name) * value for name, value in terms.items()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.parameters, options.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        decay = min(options.ema, (1 + self.step_index) / (10 + self.step_index))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), self.parameters, 1 - decay)
        self.step_index += 1
        gained = {name: float(v.detach()) - (name != "log_error") for name, v in terms.items()}
        return {"loss": float(loss.detach()), "norm": float(norm), **gained}

    def save(self) -> None:
        """Write the checkpoint beside its place and rename it."""
        if not self.writes:
            return
        part = self.checkpoint_path.with_suffix(".part")
        state = {
            "net": dict(self.trained),
            "ema": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step_index,
            "seconds": self.seconds,
            "typical": self.typical,
            "scale": self.scale,
            "model": self.options.model.to_dict(),
            "detectors": Detectors().fingerprint,
        }
        torch.save(state, part)
        os.replace(part, self.checkpoint_path)
        if self.options.adapter is not None:
            with self.averaged():
                save_adapter(self.peft, self.options.run / f"{self.options.adapter}.safetensors")

    def averaged(self) -> AbstractContextManager[None]:
        """The averaged weights in the model's place."""
        return averaged(self.model, self.average, self.trained)


@contextmanager
def averaged(model: nn.Module, average: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> Iterator[None]:
    """The average of what is trained in its place."""
    kept = {name: p.detach().clone() for name, p in trained.items()}
    model.load_state_dict(average, strict=False)
    try:
        yield
    finally:
        model.load_state_dict(kept, strict=False)


def train(options: TrainOptions, say: Callable[[str], None] = print) -> Path:
    """Run until `steps` or `minutes`; returns the checkpoint. Continues where a checkpoint in the run's folder
    stands."""
    # Zero-initialised layers make denormal numbers, at a third of the speed. Threads inherit this where they start.
    torch.set_flush_denormal(True)
    try:
        trainer = Trainer(options)
        if trainer.fresh is None:
            return _run(trainer, say)
        trainer.fresh.start(trainer.batch_number(trainer.step_index))
        try:
            return _run(trainer, say)
        finally:
            trainer.fresh.stop()
    finally:
        torch.set_flush_denormal(False)


def _run(trainer: Trainer, say: Callable[[str], None]) -> Path:
    from .validate import quick_table  # here: validation reads the trainer's own types

    options, processes = trainer.options, trainer.accelerator.num_processes
    where = f"{trainer.device}" if processes == 1 else f"{processes} processes ({trainer.accelerator.distributed_type})"
    if not trainer.writes:
        say = _silent
    say(f"{sum(p.numel() for p in trainer.parameters):,} parameters on {where}, from step {trainer.step_index}")
    first = trainer.batch_number(trainer.step_index)
    loader = batch_loader(trainer.batches, range(first, options.steps * processes, processes), options.workers)
    last = saved_at = time.monotonic()
    running: dict[str, float] = {}
    log = options.run / "log.csv"
    pace = Pace(trainer.step_index)
    for batch in loader:
        terms = trainer.step(batch)
        if trainer.fresh is not None:
            trainer.fresh.keep_up(trainer.batch_number(trainer.step_index))
        running = {k: v if k not in running else 0.97 * running[k] + 0.03 * v for k, v in terms.items()}
        now = time.monotonic()
        trainer.seconds, last = trainer.seconds + now - last, now
        trainer.agree()
        if trainer.step_index % 20 == 0:
            shown = "  ".join(f"{k} {v:+.3f}" for k, v in running.items())
            about = pace.about(trainer.step_index, options.steps, options.minutes * 60 - trainer.seconds)
            say(f"step {trainer.step_index}/{options.steps}  {shown}  {about}")
            if trainer.writes:
                _append(log, {"step": trainer.step_index, "seconds_a_step": pace.seconds_a_step, **running})
        if trainer.step_index % options.validate_every == 0 and trainer.writes:
            table = quick_table(trainer)
            say(f"valid {trainer.step_index}: " + "  ".join(f"{k} {v:+.2f}" for k, v in table.items()))
            _append(options.run / "valid.csv", {"step": trainer.step_index, **table})
            pace = Pace(trainer.step_index)
        if now - saved_at > options.checkpoint_minutes * 60:
            trainer.save()
            saved_at = now
        if trainer.seconds > options.minutes * 60:
            break
    trainer.save()
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return trainer.checkpoint_path


@dataclass
class Pace:
    """How fast a loop goes: the seconds of a step since `about` was last asked."""

    step: int
    since: float = field(default_factory=time.monotonic)
    seconds_a_step: float = 0.0

    def about(self, step: int, steps: int, seconds_left: float) -> str:
        """For people: the pace, and the minutes to the last of the steps or until `seconds_left` are over."""
        now = time.monotonic()
        self.seconds_a_step = (now - self.since) / max(1, step - self.step)
        self.step, self.since = step, now
        left = min((steps - step) * self.seconds_a_step, seconds_left)
        return f"{self.seconds_a_step:.2f} s/step  {left / 60:.0f} min left"


def batch_loader(batches: Any, steps: range, workers: int) -> Any:
    """An iterable over `batches[step]`, made ahead by so many processes."""
    return torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=steps, num_workers=workers, prefetch_factor=3 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )  # fmt: skip


def _silent(_: str) -> None:
    pass


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({k: round(v, 5) for k, v in row.items()})
