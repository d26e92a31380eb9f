"""Forms of the network and of the loss against each other: each is trained from nothing for the same time, on the same
crops, and measured on the same held-out ones.

    python tools/compare_variants.py data/pool --minutes 4 --run runs/variants

`--only NAME` (as often as wanted) takes some of them. A variant that has a row in RUN/variants.csv is not run again.
"""

from __future__ import annotations

import argparse
import csv
import functools
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from stemprover.engine.model.causal import CausalConv2d, FrequencyUpsample
from stemprover.engine.train import losses
from stemprover.engine.train.dataset import CropConfig, PoolBatches
from stemprover.engine.train.loop import Trainer, tensors
from stemprover.engine.train.options import LossWeights, TrainOptions
from torch import Tensor

SHIPPED = LossWeights(log_error=3.0)
WEIGHTS = {
    "loss: compressed L1 alone": LossWeights(0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
    "loss: without the linear error ratio": replace(SHIPPED, log_error=0.0),
    "loss: linear error ratio alone": LossWeights(3.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "loss: with multi-resolution STFT": replace(SHIPPED, multi_resolution=0.5),
}


def without_outputs(trainer: Trainer, *spans: tuple[int, int]) -> None:
    """Hold outputs of the head at zero; spans in slots of one channel of 16 (mid and side, re and im: four of them)."""
    width = trainer.options.model.latent // 2
    mask = torch.ones(trainer.options.model.head_outputs)
    for start, end in spans:
        mask[start * width : end * width] = 0.0
    trainer.net.denoiser.unet.conv_out.register_forward_hook(lambda _, __, out: out * mask[:, None, None])


def without_future(trainer: Trainer) -> None:
    """The control branch hears nothing after the frame it speaks of."""
    control, ahead = trainer.net.control, trainer.options.model.lookahead
    heard = control.forward
    control.forward = lambda features: heard(F.pad(features, (ahead, 0))[..., :-ahead])  # type: ignore[method-assign]


def centred(trainer: Trainer) -> None:
    """The denoiser's convolutions look to both sides."""

    def both_sides(layer: CausalConv2d, x: Tensor) -> Tensor:
        return F.pad(x, (layer.columns // 2, layer.columns - layer.columns // 2))

    for layer in trainer.net.denoiser.unet.modules():
        if isinstance(layer, CausalConv2d):
            layer.remember = types.MethodType(both_sides, layer)  # type: ignore[method-assign]


def halving_time(trainer: Trainer) -> None:
    """The denoiser's lower levels have half the frames of the one above, as they have half the bands."""
    denoiser, levels = trainer.net.denoiser, [level for level, _ in trainer.options.model.residuals]
    whole = denoiser.forward

    def forward(
        x_t: Tensor, t: Tensor, references: Tensor, residuals: list[Tensor], tokens: Tensor, fine: Tensor
    ) -> Tensor:
        thinned = [r[..., 2**level - 1 :: 2**level] for r, level in zip(residuals, levels, strict=True)]
        return whole(x_t, t, references, thinned, tokens[..., 3::4], fine)

    denoiser.forward = forward  # type: ignore[method-assign]
    for block in denoiser.unet.down_blocks:
        for layer in block.downsamplers or ():
            layer.register_forward_hook(lambda _, __, out: out[..., 1::2])
    for layer in denoiser.unet.modules():
        if isinstance(layer, FrequencyUpsample):
            layer.register_forward_hook(lambda _, __, out: torch.repeat_interleave(out, 2, dim=-1))


VARIANTS: dict[str, Callable[[Trainer], None] | None] = {
    "as shipped: residual and three gates, causal with look-ahead": None,
    "the same with another seed": None,
    "head: residual alone": lambda trainer: without_outputs(trainer, (2, 5)),
    "head: gates alone": lambda trainer: without_outputs(trainer, (0, 2)),
    "head: residual and two gates, no stem without leak": lambda trainer: without_outputs(trainer, (4, 5)),
    **dict.fromkeys(WEIGHTS),
    "denoiser halves time and frequency": halving_time,
    "no look-ahead": without_future,
    "denoiser not causal": centred,
}


def held_out(trainer: Trainer, count: int) -> dict[str, list[dict[str, Tensor]]]:
    """Batches of four by name: the real separator's and simulated faults, of held-out songs and of other ones."""
    found = {}
    for split in ("valid", "valid-other"):
        for name, simulated in (("separated", 0.0), ("simulated", 1.0)):
            crop = replace(trainer.options.crop, batch=4, clean=0.0, no_mix=0.0, blend=0.0, simulated=simulated)
            batches = PoolBatches(trainer.options.pool, split, trainer.batches.maker, crop, seed=5)
            found[f"{split} {name}"] = [tensors(batches[i], trainer.device) for i in range(count)]
    return found


def measured(trainer: Trainer, batches: list[dict[str, Tensor]]) -> tuple[float, float, float]:
    """Of one-step repairs: median gain of SDR over crops in dB, share of crops that lose over 0.2 dB in %, and change
    of the log-magnitude error in %."""
    layout, scale = trainer.latent.layout, trainer.scale
    importance = torch.ones(layout.bands)
    gains, before, after = [], 0.0, 0.0
    trainer.model.eval()
    trainer.net.denoiser.trusts = True
    with torch.no_grad(), trainer.averaged():
        for batch in batches:
            ones = torch.ones(len(batch["stem"]))
            out = trainer.joined(batch["control"], batch["stem"], ones, batch["references"]).float()
            spectra = [losses.linear_spectrum(z, layout, scale) for z in (out, batch["stem"], batch["truth"])]
            floor = 1e-4 * losses.total_power(spectra[2]) + 1e-6
            errors = [losses.total_power(x - spectra[2]) + floor for x in spectra[:2]]
            gains.append(10 * torch.log10(errors[1] / errors[0]))
            after += float(losses.log_magnitude_l1(out, batch["truth"], importance))
            before += float(losses.log_magnitude_l1(batch["stem"], batch["truth"], importance))
    gain = torch.cat(gains).numpy()
    return float(np.median(gain)), 100 * float(np.mean(gain < -0.2)), 100 * (after / before - 1)


def compared(name: str, given: argparse.Namespace, seed: int) -> dict[str, str]:
    """Train one variant and measure it: a row of the table."""
    options = TrainOptions(
        run=given.run / name.replace(" ", "-").replace(":", "").replace(",", ""),
        pool=given.pool,
        steps=1_000_000,
        minutes=given.minutes,
        learning_rate=8e-4,
        warmup=30,
        ema=0.98,
        threads=given.threads,
        seed=seed,
        validate_every=1_000_000,
        crop=CropConfig(batch=4, frames=64, history=64, simulated=0.4, clean=0.1, no_mix=0.2),
        weights=WEIGHTS.get(name, SHIPPED),
    )
    trainer = Trainer(options)
    change = VARIANTS[name]
    if change is not None:
        change(trainer)
    run(trainer)
    row = {"variant": name, "steps": str(trainer.step_index)}
    for kind, batches in held_out(trainer, given.crops // 4).items():
        gain, lost, log_magnitude = measured(trainer, batches)
        row[kind] = f"{gain:+.2f} dB, {lost:.0f}%, {log_magnitude:+.1f}%"
    return row


def run(trainer: Trainer) -> None:
    """The loop, with its clock; nothing is written."""
    loader = torch.utils.data.DataLoader(
        trainer.batches,  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(1_000_000),
        num_workers=1,
        prefetch_factor=3,
        multiprocessing_context="fork",
    )
    last = None
    for batch in loader:
        last = last or time.monotonic()  # the loader's own start is not the variant's time
        trainer.step(batch)
        now = time.monotonic()
        trainer.seconds, last = trainer.seconds + now - last, now
        if trainer.seconds > trainer.options.minutes * 60:
            return


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("--run", type=Path, default=Path("runs/variants"))
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--crops", type=int, default=48, help="held-out ones of each kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="some of them")
    given = parser.parse_args()
    table = given.run / "variants.csv"
    given.run.mkdir(parents=True, exist_ok=True)
    done = set()
    if table.exists():
        with table.open(newline="") as file:
            done = {row["variant"] for row in csv.DictReader(file)}
    torch.set_flush_denormal(True)
    say = functools.partial(print, flush=True)
    for name in given.only or list(VARIANTS):
        if name in done:
            continue
        row = compared(name, given, seed=2 if name == "the same with another seed" else 1)
        with table.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if not done and table.stat().st_size == 0:
                writer.writeheader()
            writer.writerow(row)
        done.add(name)
        say("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
