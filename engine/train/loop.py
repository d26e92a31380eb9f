"""The training loop: on a CPU, a GPU, or in several processes started by accelerate. A run continues from its
checkpoint, with the same data in the same order."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .options import TrainOptions
from .progress_table import progress_table
from .trainer import Trainer


def train(options: TrainOptions, say: Callable[[str], None] = print) -> Path:
    """Train until `steps` or `minutes`, continuing from a checkpoint in the run's folder if there is one; returns the
    checkpoint."""
    with denormals_flushed():
        trainer = Trainer(options)
        if trainer.on_the_fly is None:
            return _run(trainer, say)
        trainer.on_the_fly.start(trainer.batch_number(trainer.step_index))
        try:
            return _run(trainer, say)
        finally:
            trainer.on_the_fly.stop()


def _run(trainer: Trainer, say: Callable[[str], None]) -> Path:
    options, processes = trainer.options, trainer.accelerator.num_processes
    where = f"{trainer.device}" if processes == 1 else f"{processes} processes ({trainer.accelerator.distributed_type})"
    if not trainer.writes:
        say = _silent
    say(f"{sum(p.numel() for p in trainer.parameters):,} parameters on {where}, from step {trainer.step_index}")
    first = trainer.batch_number(trainer.step_index)
    loader = batch_loader(trainer.batches, range(first, options.steps * processes, processes), options.workers)
    running: dict[str, float] = {}
    validates = options.validate_every <= options.steps
    if validates and not trainer.step_index and options.start_from is not None:
        _show_progress(trainer, say)
    last = saved_at = time.monotonic()
    pace = Pace(trainer.step_index)
    for batch in loader:
        terms = trainer.step(batch)
        if trainer.on_the_fly is not None:
            trainer.on_the_fly.keep_up(trainer.batch_number(trainer.step_index))
        running = {k: v if k not in running else 0.97 * running[k] + 0.03 * v for k, v in terms.items()}
        now = time.monotonic()
        trainer.seconds, last = trainer.seconds + now - last, now
        trainer.synchronise_clock()
        if trainer.step_index % 20 == 0:
            shown = "  ".join(f"{k} {v:+.3f}" for k, v in running.items())
            progress = pace.update(trainer.step_index, options.steps, options.minutes * 60 - trainer.seconds)
            say(f"step {trainer.step_index}/{options.steps}  {shown}  {progress}")
            if trainer.writes:
                row = {"step": trainer.step_index, "seconds_a_step": pace.seconds_a_step, **running}
                _append(options.run / "log.csv", row)
        if trainer.step_index % options.validate_every == 0:
            _show_progress(trainer, say)
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


def _show_progress(trainer: Trainer, say: Callable[[str], None]) -> None:
    if trainer.writes:
        table = progress_table(trainer)
        say(f"valid {trainer.step_index}: " + "  ".join(f"{k} {v:+.2f}" for k, v in table.items()))
        _append(trainer.options.run / "valid.csv", {"step": trainer.step_index, **table})


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Treats denormal numbers as zero within the block: zero-initialised layers produce many, which take three times
    as long to compute. Threads inherit the setting, so it has to be on before they start."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@dataclass
class Pace:
    """Measures how long a step takes, from one `update` to the next."""

    step: int
    since: float = field(default_factory=time.monotonic)
    seconds_a_step: float = 0.0

    def update(self, step: int, steps: int, seconds_left: float) -> str:
        """Seconds per step, and the minutes left until the last of `steps` or until `seconds_left` are over, as
        text."""
        now = time.monotonic()
        self.seconds_a_step = (now - self.since) / max(1, step - self.step)
        self.step, self.since = step, now
        left = min((steps - step) * self.seconds_a_step, seconds_left)
        return f"{self.seconds_a_step:.2f} s/step  {left / 60:.0f} min left"


def batch_loader(batches: Any, steps: range, workers: int) -> Any:
    """An iterable over `batches[step]`, prepared ahead of time by `workers` processes."""
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
