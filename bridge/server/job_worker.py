"""The process that renders one job: its order comes as a line of JSON on standard input, its news go out as such.

It ends when its input does, so it does not outlive the bridge.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ...engine.errors import OptionError, StemProverError
from ...engine.preset import AUTO, Preset, load_preset
from ...engine.repair import Repairer
from ...offline.auto import AutoChoice
from ...offline.batch import RenderJob, make_folder, plan_renders
from ...offline.outfile import check_output
from ...offline.render import ChunkRepairer, render_file

TOLD_EVERY_S = 0.25


def tell(**news: Any) -> None:
    """A line to the bridge."""
    print(json.dumps(news), flush=True)


def check_roots(job: RenderJob, roots: list[Path]) -> None:
    """Raises OptionError where a file lies outside the allowed folders, by way of a symbolic link."""
    for path in (job.source.resolve(), job.target.parent.resolve() / job.target.name):
        if not any(path.is_relative_to(root) for root in roots):
            raise OptionError(f"{path} is outside the allowed folders; start the bridge with --root for it")


def run(order: dict[str, Any]) -> int:
    """All files of a job; returns how many failed."""
    roots = [Path(root) for root in order["roots"]]
    source, output = Path(order["source"]), order["output"]
    mix = Path(order["mix"]) if order["mix"] else None
    plan = plan_renders([source], Path(output), is_folder=output.endswith("/"))
    inputs = [job.source for job in plan.jobs] + ([mix] if mix is not None else [])

    def make(preset: Preset) -> ChunkRepairer:
        return Repairer(preset, quality=order["quality"], device=order["device"], jobs=order["threads"])

    chosen = None if order["preset"] == AUTO else load_preset(order["preset"])
    choose = AutoChoice(make)
    repairer = None if chosen is None else make(chosen)
    failed = [f"{path}: {error}" for path, error in plan.failures]
    told, said = 0.0, list[str]()
    for number, job in enumerate(plan.jobs):

        def progress(done_s: float, total_s: float, at: int = number, name: str = job.source.name) -> None:
            nonlocal told
            if (now := time.monotonic()) - told >= TOLD_EVERY_S:
                told = now
                share = min(1.0, done_s / total_s) if total_s else 0.0
                tell(fraction=(at + share) / len(plan.jobs), stage=name)

        if str(job.target) in order["done"] or (order["attempts"] > 1 and _made_since(job.target, order["created"])):
            continue  # by an earlier attempt
        try:
            check_roots(job, roots)
            check_output(job.target, inputs, overwrite=False)
            if plan.makes_folders:
                make_folder(job.target.parent)
            using, preset = (repairer, chosen) if repairer is not None else choose(job.source, mix)
            report = render_file(job.source, job.target, using, mix=mix, preset=preset, progress=progress)
            said += [f"{job.source}: {note}" for note in report.notes]
        except StemProverError as error:
            failed.append(str(error) if str(job.source) in str(error) else f"{job.source}: {error}")
            tell(text="; ".join(failed)[:1000])
        else:
            tell(done=str(job.target), fraction=(number + 1) / len(plan.jobs))
    if failed or said:
        tell(text="; ".join([*failed, *said])[:1000])
    return len(failed)


def _made_since(target: Path, created: float) -> bool:
    with contextlib.suppress(OSError):
        return target.stat().st_mtime >= created
    return False


def _end_with_input() -> None:
    while sys.stdin.readline():
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Ends with 0 if all went well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with contextlib.suppress(OSError):
        os.nice(5)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        sys.exit(1 if run(order) else 0)
    except StemProverError as error:
        tell(text=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
