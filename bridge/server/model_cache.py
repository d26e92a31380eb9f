"""The models that streams share: loaded once for each preset and quality, in a thread of their own."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ...engine.constants import MODEL_RATE
from ...engine.errors import OptionError
from ...engine.preset import Preset
from ...engine.repair import QUALITY_STEPS, Repairer
from ...engine.stream import CorrectionStream

KEPT = 6  # models in memory that no stream may be using
NICE = 10  # of the loading thread, above the streams
MAX_LOAD = 0.6  # of the cores, that streams may occupy: the rest is for the DAW, and keeps blocks in time

Key = tuple[tuple[tuple[Path, float], ...], bool, str]


class ModelCache:
    """`get` returns a model as a future, the same one for the same adapters, quality and kind of stem (a separator's or
    not). make: called in the loading thread with a preset and a quality. cores: that work at the same time."""

    def __init__(self, make: Callable[[Preset, str], Repairer], cores: int = 1) -> None:
        self._make, self._cores = make, cores
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="stemprover-loader", initializer=_lower_priority)
        self._futures: OrderedDict[Key, Future[CorrectionStream]] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting: dict[Future[CorrectionStream], list[Callable[[], object]]] = {}
        self.cost_per_step: float | None = None  # CPU seconds for a second of one channel pair

    def get(self, preset: Preset, quality: str) -> Future[CorrectionStream]:
        """The model's stream; the future raises whatever loading raises."""
        key = tuple(sorted(preset.adapters.items())), preset.separated, quality
        future = self._futures.get(key)
        if future is None or (future.done() and future.exception() is not None):
            future = self._futures[key] = self._loader.submit(self._load, preset, quality)
            future.add_done_callback(self._loaded)
        self._futures.move_to_end(key)
        done = [old for old, found in self._futures.items() if found.done()]
        for old in done[: max(0, len(self._futures) - KEPT)]:  # somebody waits for those that still load
            del self._futures[old]
        return future

    def when_loaded(self, future: Future[CorrectionStream], then: Callable[[], object]) -> None:
        """Have `then` called once a future of `get` is done, in the loading thread or at once. A future would keep its
        callbacks, and whoever they belong to, for as long as it lives: so they are kept here."""
        with self._lock:
            if not future.done():
                self._waiting.setdefault(future, []).append(then)
                return
        then()

    def _loaded(self, future: Future[CorrectionStream]) -> None:
        with self._lock:
            waiting = self._waiting.pop(future, [])
        for then in waiting:
            then()

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded."""
        return any(future.running() for future in self._futures.values())

    def close(self) -> None:
        """End the thread after the model that it is loading, without waiting for that."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _load(self, preset: Preset, quality: str) -> CorrectionStream:
        model = self._make(preset, quality).correction_stream()
        if self.cost_per_step is None:
            self.cost_per_step = measure_cost(model, self._cores) / model.steps
        return model


def _lower_priority() -> None:
    """Load models at low priority so that running streams keep theirs. Only Linux has priorities for threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def measure_cost(model: CorrectionStream, cores: int, chunk_frames: int = 4, seconds: float = 0.4) -> float:
    """CPU time that the model takes for a channel pair, as a fraction of real time: the median chunk, with all cores at
    work, since two chunks on one core take longer than each alone."""
    rng = np.random.default_rng(0)
    block = 0.05 * rng.standard_normal((1, 2, chunk_frames * model.timing.hop)).astype(np.float32)
    ends = time.perf_counter() + seconds

    def work(number: int) -> list[float]:
        state, times = model.start(), list[float]()
        while time.perf_counter() < ends or len(times) < 8:
            start = time.perf_counter()
            _, state = model.process(block, block, state)
            times.append(time.perf_counter() - start)
        return times[4:]

    with ThreadPoolExecutor(cores) as pool:
        times = [taken for found in pool.map(work, range(cores)) for taken in found]
    return float(np.median(times)) / (block.shape[2] / MODEL_RATE)


def steps_of(quality: str) -> int:
    """Steps of the sampler. Raises OptionError for an unknown quality."""
    if quality not in QUALITY_STEPS:
        raise OptionError(f"quality {quality!r} is unknown; choose {', '.join(QUALITY_STEPS)}")
    return QUALITY_STEPS[quality]


def load_of(pairs: int, quality: str, cost_per_step: float) -> float:
    """CPU cores a stream occupies."""
    return pairs * steps_of(quality) * cost_per_step


def fits(loads: Mapping[int, float], more: float, cores: int) -> bool:
    """Whether another stream may open beside the open ones: there is always room for one."""
    return not loads or sum(loads.values()) + more <= MAX_LOAD * cores
