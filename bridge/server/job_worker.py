"""The process that renders one job. It reads its order as a line of JSON on standard input, and writes its progress as
lines of JSON to standard output.

It exits when its input is closed, so it does not outlive the bridge.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...engine.errors import OptionError, StemProverError
from ...engine.preset import AUTO, Preset, load_preset
from ...engine.repair import Repairer
from ...offline.auto import AutoChoice, RepairerChoice
from ...offline.batch import BatchListener, repair_batch
from ...offline.plan import BatchJob, plan_batch
from ...offline.render import Progress, RenderReport

PROGRESS_INTERVAL_S = 0.25
MAX_TEXT = 1000


def send(**message: Any) -> None:
    """Send a line to the bridge."""
    print(json.dumps(message), flush=True)


def check_roots(job: BatchJob, roots: list[Path]) -> None:
    """Raises OptionError if a symbolic link leads out of the allowed folders."""
    for path in (job.source.resolve(), job.target.parent.resolve() / job.target.name):
        if not any(path.is_relative_to(root) for root in roots):
            raise OptionError(f"{path} is outside the allowed folders; to allow it, start the bridge with --root")


class ProgressSender(BatchListener):
    """Sends the events of a batch to the bridge.

    done: how many of the job's files an earlier attempt has finished. total: how many inputs it has.
    """

    def __init__(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._stage, self._sent_s = "", 0.0
        self._failures, self._notes = list[str](), list[str]()

    def started(self, number: int, job: BatchJob) -> None:
        self._stage = job.source.name

    @contextlib.contextmanager
    def repairing(self) -> Iterator[Progress]:
        yield self._progress

    def _progress(self, done_s: float, total_s: float) -> None:
        if (now_s := time.monotonic()) - self._sent_s >= PROGRESS_INTERVAL_S:
            self._sent_s = now_s
            of_file = min(1.0, done_s / total_s) if total_s else 0.0
            send(fraction=(self._done + of_file) / self._total, stage=self._stage)

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        self._done += 1
        self._notes += [f"{job.source}: {note}" for note in report.notes]
        send(done=str(job.target), fraction=self._done / self._total)

    def failed(self, path: Path, error: StemProverError) -> None:
        self._done += 1
        self._failures.append(str(error) if str(path) in str(error) else f"{path}: {error}")
        self.send_text()

    def send_text(self) -> None:
        """Send all failures and notes so far, if there are any."""
        if text := "; ".join([*self._failures, *self._notes]):
            send(text=text[:MAX_TEXT])


def run(order: dict[str, Any]) -> int:
    """Render all files of a job. Returns how many failed."""
    roots = [Path(root) for root in order["roots"]]
    source, output = Path(order["source"]), order["output"]
    mix = Path(order["mix"]) if order["mix"] else None
    plan = plan_batch([source], Path(output), is_folder=output.endswith("/"), mix=mix)

    def make_repairer(preset: Preset) -> Repairer:
        return Repairer(preset, quality=order["quality"], device=order["device"], jobs=order["threads"])

    choice: RepairerChoice
    if order["preset"] == AUTO:
        choice = AutoChoice(make_repairer)
    else:
        preset = load_preset(order["preset"])
        choice = make_repairer(preset), preset
    remaining = tuple(job for job in plan.jobs if not _is_done(job, order))
    sender = ProgressSender(len(plan.jobs) - len(remaining), len(plan.jobs) + len(plan.failures))
    remaining_plan = replace(plan, jobs=remaining)
    failures = repair_batch(remaining_plan, choice, sender, check=lambda job: check_roots(job, roots))
    sender.send_text()
    return len(failures)


def _is_done(job: BatchJob, order: dict[str, Any]) -> bool:
    """Whether an earlier attempt finished this file: reported it, or wrote it and was killed before its report."""
    if str(job.target) in order["done"]:
        return True
    if order["attempts"] > 1:
        with contextlib.suppress(OSError):
            return job.target.stat().st_mtime >= order["created"]
    return False


def _exit_with_input() -> None:
    while sys.stdin.readline():
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Exits with 0 if all files were repaired."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with contextlib.suppress(OSError):
        os.nice(5)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_input, daemon=True).start()
    try:
        sys.exit(1 if run(order) else 0)
    except StemProverError as error:
        send(text=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
