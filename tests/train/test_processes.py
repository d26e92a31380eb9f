"""accelerate: one process computes what plain torch does; two share the batches and end with the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models import SMALL
from stemprover.engine.dsp.latent import Latent
from stemprover.engine.features import FeatureMaker
from stemprover.engine.model.network import RepairNet
from stemprover.engine.sampler import DiffusionSchedule
from stemprover.engine.train import options as training_options
from stemprover.engine.train.dataset import CropConfig, PoolBatches, fit_band_scale
from stemprover.engine.train.options import TrainOptions
from stemprover.engine.train.step import batch_tensors, diffusion_point, repair_terms
from stemprover.engine.train.trainer import Trainer

STEPS = 2


def options(pool: Path, run: Path) -> TrainOptions:
    """Eight planned steps, so that the first two are in the warm-up."""
    return TrainOptions(
        run=run, pool=pool, steps=8, threads=1, workers=0, device="cpu", bf16=False, warmup=4, model=SMALL,
        crop=CropConfig(batch=2, frames=8),
    )  # fmt: skip


def plain_loop(given: TrainOptions, processes: int) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """The first steps in plain torch, without accelerate: the losses of each step's batches, and the weights after
    them. With several processes a step's gradient is the mean over its batches."""
    torch.set_num_threads(given.threads)  # as the trainer does; the order of sums depends on the number of threads
    torch.manual_seed(given.seed)
    net = RepairNet(given.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for zero_conv in net.control.zero:
        zero_conv.open()
    net.train().denoiser.trusts = False
    scale = torch.from_numpy(fit_band_scale(given.pool, FeatureMaker()))
    latent = Latent(scale=scale.numpy())
    batches = PoolBatches(given.pool, "train", FeatureMaker(latent), given.crop, given.seed)
    optimiser = torch.optim.AdamW(net.parameters(), given.learning_rate, (0.95, 0.99), weight_decay=0.01, fused=True)
    typical: dict[str, float] = {}
    found = []
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = given.learning_rate * (step + 1) / given.warmup
        floor = 10 ** (-1.5 - 2.5 * 2.0 * step / given.steps)
        numbers = range(step * processes, (step + 1) * processes)
        data = [batch_tensors(batches[number], torch.device("cpu")) for number in numbers]
        if step == 0:
            untouched = [repair_terms(one["stem"], one, latent, scale, given.weights, floor) for one in data]
            typical = {name: sum(float(terms[name]) for terms in untouched) / processes for name in untouched[0]}
        losses = []
        for number, one in zip(numbers, data, strict=True):
            generator = torch.Generator().manual_seed(given.seed * 1_000_003 + number)
            t, x_t = diffusion_point(one["truth"], one["stem"], DiffusionSchedule(), generator, given.at_end)
            estimate = net(one["control"], x_t, t, one["references"])
            terms = repair_terms(estimate, one, latent, scale, given.weights, floor)
            terms = {name: v if name == "log_error" else v / (typical[name] + 1e-6) for name, v in terms.items()}
            losses.append(torch.stack([getattr(given.weights, name) * v for name, v in terms.items()]).sum())
        optimiser.zero_grad()
        (torch.stack(losses).sum() / processes).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), given.clip)
        optimiser.step()
        found.append([loss.item() for loss in losses])
    return found, net.state_dict()


def test_one_process_computes_what_plain_torch_does(pool: Path, tmp_path: Path) -> None:
    given = options(pool, tmp_path)
    losses, weights = plain_loop(given, processes=1)
    trainer = Trainer(given)
    assert [trainer.batch_number(step) for step in range(3)] == [0, 1, 2]
    assert [[trainer.step(trainer.batches[step])["loss"]] for step in range(STEPS)] == losses
    for name, value in trainer.net.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize("bf16", [True, False])
def test_a_python_process_can_run_several_trainings(
    pool: Path, tmp_path: Path, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate itself refuses a second precision in the same process."""
    from dataclasses import replace

    monkeypatch.setattr(training_options, "has_bf16", lambda device: True)
    for precision in (bf16, not bf16):
        trainer = Trainer(replace(options(pool, tmp_path / str(precision)), bf16=precision))
        assert trainer.accelerator.mixed_precision == ("bf16" if precision else "no")
        assert trainer.device.type == "cpu"


def in_each_process(pool: str, run: str) -> None:
    """Run by the launcher in each process: two steps, then weights, losses and batch numbers into the run's folder."""
    trainer = Trainer(options(Path(pool), Path(run)))
    numbers = [trainer.batch_number(step) for step in range(STEPS)]
    losses = [trainer.step(trainer.batches[number])["loss"] for number in numbers]
    trainer.save()
    found = {"net": trainer.net.state_dict(), "ema": trainer.average, "numbers": numbers, "losses": losses}
    torch.save(found | {"typical": trainer.typical}, Path(run) / f"process-{trainer.accelerator.process_index}.pt")


def test_two_processes_share_the_batches_and_end_with_the_same_weights(pool: Path, tmp_path: Path) -> None:
    script = f"from accelerate import debug_launcher; import {Path(__file__).stem} as this; " + (
        f"debug_launcher(this.in_each_process, ({str(pool)!r}, {str(tmp_path)!r}), num_processes=2)"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)
    first, second = (torch.load(tmp_path / f"process-{i}.pt", weights_only=True) for i in range(2))
    assert (first["numbers"], second["numbers"]) == ([0, 2], [1, 3])
    assert first["losses"] != second["losses"]
    assert first["typical"] == second["typical"]
    for kind in ("net", "ema"):
        for name, value in first[kind].items():
            assert torch.equal(value, second[kind][name]), name
    losses, weights = plain_loop(options(pool, tmp_path / "plain"), processes=2)
    for ours, theirs in zip(zip(first["losses"], second["losses"], strict=True), losses, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for name, value in weights.items():
        assert torch.allclose(first["net"][name], value, atol=2e-5), name
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == STEPS
    assert all(torch.equal(saved["net"][name], value) for name, value in first["net"].items())
