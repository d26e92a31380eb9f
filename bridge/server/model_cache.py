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
from ...engine.stream import DeltaStream

KEPT = 6  # models in memory that no stream may be using
NICE = 10  # of the thread that loads, above what sounds
RESERVE = 0.6  # of the processors' time, what streams may take: the rest is the DAW's, and what keeps blocks in time

Key = tuple[tuple[tuple[Path, float], ...], str]


def shared_key(preset: Preset, quality: str) -> Key:
    """What two streams must have in common to share a model."""
    return tuple(sorted(preset.adapters.items())), quality


class Models:
    """`get` a model as a future; the same one for the same adapters and quality. `make`: called in the loading thread
    with a preset and its quality. processors: that will be at work at once."""

    def __init__(self, make: Callable[[Preset, str], Repairer], processors: int = 1) -> None:
        self._make, self._processors = make, processors
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="stemprover-loader", initializer=_give_way)
        self._found: OrderedDict[Key, Future[DeltaStream]] = OrderedDict()
        self._lock = threading.Lock()
        self._asked: dict[Future[DeltaStream], list[Callable[[], object]]] = {}
        self.cost_per_step: float | None = None  # seconds of processor a second of a channel pair

    def get(self, preset: Preset, quality: str) -> Future[DeltaStream]:
        """The model's stream; raises in the future whatever loading raises."""
        key = shared_key(preset, quality)
        future = self._found.get(key)
        if future is None or (future.done() and future.exception() is not None):
            future = self._found[key] = self._loader.submit(self._load, preset, quality)
            future.add_done_callback(self._tell)
        self._found.move_to_end(key)
        done = [old for old, found in self._found.items() if found.done()]
        for old in done[: max(0, len(self._found) - KEPT)]:  # what still loads, somebody waits for
            del self._found[old]
        return future

    def when_loaded(self, future: Future[DeltaStream], then: Callable[[], object]) -> None:
        """Have `then` called once a future of `get` is done, in the loading thread or at once. A future keeps its own
        callbacks, and with them whoever asked, for as long as it lives: so they are kept here."""
        with self._lock:
            if not future.done():
                self._asked.setdefault(future, []).append(then)
                return
        then()

    def _tell(self, future: Future[DeltaStream]) -> None:
        with self._lock:
            asked = self._asked.pop(future, [])
        for then in asked:
            then()

    def close(self) -> None:
        """Let go of the thread."""
        self._loader.shutdown(cancel_futures=True)

    def _load(self, preset: Preset, quality: str) -> DeltaStream:
        delta = self._make(preset, quality).delta_stream()
        if self.cost_per_step is None:
            self.cost_per_step = measure_cost(delta, self._processors) / delta.steps
        return delta


def _give_way() -> None:
    """Loading is for later, what sounds is for now. On Linux alone a thread has a priority of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def measure_cost(delta: DeltaStream, processors: int, chunk_frames: int = 4, seconds: float = 0.4) -> float:
    """Processor time that the model takes for a channel pair, as a share of the sound's own time: the median chunk,
    with all processors at work, since two that share a core take longer than each by itself."""
    rng = np.random.default_rng(0)
    sound = 0.05 * rng.standard_normal((1, 2, chunk_frames * delta.hop)).astype(np.float32)
    ends = time.perf_counter() + seconds

    def work(number: int) -> list[float]:
        state, times = delta.start(), list[float]()
        while time.perf_counter() < ends or len(times) < 8:
            start = time.perf_counter()
            _, state = delta.process(sound, sound, state)
            times.append(time.perf_counter() - start)
        return times[4:]

    with ThreadPoolExecutor(processors) as pool:
        times = [taken for found in pool.map(work, range(processors)) for taken in found]
    return float(np.median(times)) / (sound.shape[2] / MODEL_RATE)


def steps_of(quality: str) -> int:
    """Steps of the sampler. Raises OptionError for an unknown quality."""
    if quality not in QUALITY_STEPS:
        raise OptionError(f"quality {quality!r} is unknown; choose {', '.join(QUALITY_STEPS)}")
    return QUALITY_STEPS[quality]


def load_of(pairs: int, quality: str, cost_per_step: float) -> float:
    """Processors that a stream keeps busy."""
    return pairs * steps_of(quality) * cost_per_step


def fits(loads: Mapping[int, float], more: float, processors: int) -> bool:
    """Whether another stream may open beside those that are open: there is always room for one."""
    return not loads or sum(loads.values()) + more <= RESERVE * processors
