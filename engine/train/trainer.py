"""The state of a training run, and its single step."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import Tensor, nn

from ..detect.detectors import Detectors
from ..dsp.latent import Latent
from ..errors import TrainingError
from ..features import FeatureMaker
from ..model.base import load_base
from ..model.config import ModelConfig
from ..model.lora import add_adapter, save_adapter, warm_start
from ..model.network import RepairNet
from ..sampler import DiffusionSchedule
from .checkpoint import load_checkpoint, load_start, write_checkpoint
from .corpus.spleeter import Spleeter
from .dataset import Batch, PoolBatches, fit_band_scale
from .on_the_fly import OnTheFlyMaker, OnTheFlyShards
from .options import TrainOptions
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


class Trainer:
    """Holds the model, optimiser, averaged weights and data of one run; call `step()` until `done`.

    With P processes each step takes P batches, one per process: process p of P takes number `step * P + p` of the run's
    order. A single process therefore sees the same batches as without accelerate. Only the first process writes files.
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
        saved = load_checkpoint(self.checkpoint_path, self.device) if self.checkpoint_path.exists() else None
        if saved is not None and ModelConfig.from_dict(saved["model"]) != options.model:
            raise TrainingError(
                f"{self.checkpoint_path} holds a network of other sizes or of another base; use the same --base and "
                "[model] as when the run began, or another --run"
            )
        scale = self._load_weights(saved)
        self.model: nn.Module = self.net
        if options.adapter is not None:
            self.model = self.peft = add_adapter(self.net, options.rank, parts=options.parts)
            if options.on is not None and saved is None:
                warm_start(self.peft, options.on)
        self.latent = Latent(scale=scale.cpu().numpy())
        self.scale = scale.to(self.device)
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.parameters: list[Tensor] = list(self.trained.values())
        self.wrapped = self.accelerator.prepare_model(self.model)
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
        self.on_the_fly: OnTheFlyMaker | None = None
        if options.on_the_fly.share:
            folder = options.run / f"on-the-fly-{self.accelerator.process_index}"
            shards = OnTheFlyShards(folder, options.on_the_fly)
            separate = Spleeter(device=self.device).separate_all
            self.on_the_fly = OnTheFlyMaker(options.pool, shards, separate, options.seed)
        self.batches = PoolBatches(
            options.pool, "train", FeatureMaker(self.latent), options.crop, options.seed,
            None if self.on_the_fly is None else self.on_the_fly.shards,
        )  # fmt: skip
        self.schedule = DiffusionSchedule()
        if self.writes:
            (options.run / "options.json").write_text(json.dumps(asdict(options), default=str, indent=1) + "\n")
        self.accelerator.wait_for_everyone()  # no process may look for a checkpoint after another begins to write one

    def _load_weights(self, saved: dict[str, Any] | None) -> Tensor:
        """Weights that the run starts from, into the network; returns the band scale (K,)."""
        options = self.options
        if options.start_from is not None:
            return load_start(self.net, options.start_from, self.device)
        if saved is not None:
            scale: Tensor = saved["scale"]
            return scale
        if (
            options.base is not None
        ):  # its zero convolutions stay at zero, so that the pretrained weights are undisturbed
            self.net.denoiser.unet = load_base(options.base, options.model).to(
                self.device, memory_format=torch.channels_last
            )
        else:
            for zero_conv in self.net.control.zero:
                zero_conv.open()  # the output layer at zero is enough to keep a new network silent
        return torch.from_numpy(fit_band_scale(options.pool, FeatureMaker()))

    @property
    def checkpoint_path(self) -> Path:
        """File of the run's state."""
        return self.options.run / "checkpoint.pt"

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes checkpoints and logs."""
        return self.accelerator.is_main_process

    def batch_number(self, step: int) -> int:
        """The number, in the run's order, of the batch that this process takes in a step."""
        return step * self.accelerator.num_processes + self.accelerator.process_index

    def synchronise_clock(self) -> None:
        """Use the first process's clock in all processes, because the learning rate and the end of the run depend on
        it."""
        if self.accelerator.num_processes > 1:
            self.seconds = float(broadcast(torch.tensor(self.seconds, dtype=torch.float32, device=self.device)))

    @property
    def done(self) -> float:
        """Finished fraction of the run, 0 to 1."""
        return min(1.0, max(self.step_index / self.options.steps, self.seconds / 60 / self.options.minutes))

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step. Returns the loss, the norm of its gradient, and how far each term is from that of the
        unchanged stems: negative is better, as a fraction of the term's typical value (log_error and pause: in units of
        10 dB)."""
        options = self.options
        data = batch_tensors(batch, self.device)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + self.batch_number(self.step_index))
        t, x_t = diffusion_point(data["truth"], data["stem"], self.schedule, generator, options.at_end)
        rate = cosine_rate(options.learning_rate, options.final_rate, options.warmup, self.step_index, self.done)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()
        self.net.denoiser.trusts = options.adapter is not None or self.done > options.trust_from
        with self.accelerator.autocast():
            estimate = self.wrapped(data["control"], x_t, t, data["references"])
        # A high floor at first, so that clean stems do not hold a new network at the identity; a low one in the end, so
        # that it learns to leave them alone.
        floor = error_floor(options.floor_db, self.done)
        arguments = (data, self.latent, self.scale, options.weights, floor)
        terms = repair_terms(estimate.float(), *arguments)
        with torch.no_grad():
            untouched = repair_terms(data["stem"], *arguments)
        if self.step_index % 4 == 0:
            update_typical(self.typical, self.accelerator.reduce(untouched, "mean"), 0.04)
        terms = relative_terms(terms, self.typical)
        loss = weighted_loss(terms, options.weights)
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.parameters, options.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        update_average(list(self.average.values()), self.parameters, options.ema, self.step_index)
        self.step_index += 1
        return {"loss": float(loss.detach()), "norm": float(norm), **changes(terms, untouched, self.typical)}

    def save(self) -> None:
        """Write the checkpoint, and the adapter if the run trains one."""
        if not self.writes:
            return
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
        write_checkpoint(self.checkpoint_path, state)
        if self.options.adapter is not None:
            with self.averaged():
                save_adapter(self.peft, self.options.run / f"{self.options.adapter}.safetensors")

    def averaged(self) -> AbstractContextManager[None]:
        """The averaged weights in the model, for the duration of the block."""
        return averaged(self.model, self.average, self.trained)


def make_accelerator(options: TrainOptions) -> Accelerator:
    """Chooses device and precision, and joins the processes if a launcher has started several."""
    # accelerate keeps its device and precision for the whole Python process, but the next run may need others.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=options.torch_device().type == "cpu", mixed_precision="bf16" if options.mixed_precision else "no"
    )
