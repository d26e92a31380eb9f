"""Training material without end: while a run trains, the real separator separates new mixes of the pool's true stems.

Shard k of a run holds remixes of true stems from anywhere in the pool, with new levels, equalisers and widths,
separated by Spleeter on the run's device. Batch b draws from shards k - window + 1 to k, where k = b // every. What a
batch holds therefore depends on (seed, b) alone, and a resumed run makes the same shards again. Older shards are
deleted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ..errors import TrainingError
from .corpus.mixing import active_rms
from .corpus.pool import FULL_SCALE, Separate, make_shard, open_shard, separated_tracks, shards_of
from .corpus.remix import Remix, augment

_PEAK, _QUIET = 0.9, 2e-3
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class OnTheFlyConfig:
    """share: fraction of crops cut from this material; with 0 none is made. items: items per shard. every: batches from
    one shard to the next. window: number of shards that a batch may draw from."""

    share: float = 0.0
    items: int = 12
    every: int = 100
    window: int = 6

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise TrainingError(f"share={self.share} in [on_the_fly] is a fraction: use 0 to 1")
        for name in ("items", "every", "window"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name}={getattr(self, name)} in [on_the_fly]: use 1 or more")


@dataclass(frozen=True)
class OnTheFlyShards:
    """Where a run's shards are, and which of them a batch draws from. Can be sent to a worker process."""

    folder: Path
    config: OnTheFlyConfig

    def numbers(self, batch: int) -> range:
        """Numbers of the shards that a batch draws from."""
        last = batch // self.config.every
        return range(max(last - self.config.window + 1, 0), last + 1)

    def path(self, number: int) -> Path:
        """File of a shard, whether it exists or not."""
        return self.folder / "train" / f"shard_{number:03d}.npy"

    def draw(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """A random item (6, 2, T) for this batch. Waits for its shard; raises TrainingError after five minutes."""
        numbers = self.numbers(batch)
        path = self.path(numbers[rng.integers(len(numbers))])
        until = time.monotonic() + _PATIENCE_S
        while not path.exists():
            if time.monotonic() > until:
                raise TrainingError(f"{path} was not made within {_PATIENCE_S:g} s; set share = 0 in [on_the_fly]")
            time.sleep(0.05)
        shard = open_shard(path)[0]
        return np.asarray(shard[rng.integers(len(shard))])


@dataclass
class OnTheFlyMaker:
    """Makes the shards in a thread while the run trains. Call `keep_up` to tell the thread how far the run is."""

    pool: Path
    shards: OnTheFlyShards
    separate: Separate
    seed: int
    _batch: int = 0
    _error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _more: threading.Event = field(default_factory=threading.Event)

    def start(self, batch: int) -> None:
        """Start with the shards that this batch needs."""
        self._batch = batch
        self._thread = threading.Thread(target=self._work, name="on-the-fly material", daemon=True)
        self._thread.start()

    def keep_up(self, batch: int) -> None:
        """Tell the thread that the run is at this batch. Raises TrainingError if the thread has failed."""
        if self._error is not None:
            raise TrainingError(f"making material on the fly failed: {self._error}") from self._error
        self._batch = batch
        self._more.set()

    def stop(self) -> None:
        """Stop, and delete all shards."""
        self._stop.set()
        self._more.set()
        self._thread.join()
        for path in self._existing():
            self._delete(path)

    def make(self, number: int) -> Path:
        """Make one shard, even if it exists."""
        config = self.shards.config
        items = range(number * config.items, (number + 1) * config.items)
        return make_shard(
            self.shards.folder,
            "train",
            number,
            items,
            partial(separated_tracks, self._draw, self.separate),
            seed=self.seed,
            say=_silent,
        )

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                # Loader processes fetch batches ahead of the run, so the next shard must exist before its first batch.
                wanted = [*self.shards.numbers(self._batch), self.shards.numbers(self._batch)[-1] + 1]
                missing = [number for number in wanted if not self.shards.path(number).exists()]
                if missing:
                    self.make(missing[0])
                    continue
                for path in self._existing():
                    if int(path.stem[6:]) < wanted[0] - 1:  # a loader process may be a batch or two behind
                        self._delete(path)
                self._more.wait(1.0)
                self._more.clear()
        except BaseException as error:  # keep_up raises it in the run's own thread
            self._error = error

    def _existing(self) -> list[Path]:
        return sorted((self.shards.folder / "train").glob("shard_[0-9]*.npy"))

    @staticmethod
    def _delete(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)

    @cached_property
    def _pool(self) -> list[np.ndarray]:
        opened = [open_shard(path) for path in shards_of(self.pool, "train")]
        return [
            items for items, infos in opened if "stem" not in infos[0]
        ]  # items of the second separator hold other stems

    def _draw(self, rng: np.random.Generator) -> Remix:
        """Vocals of one item and the band of another, each rotated in time, with new timbres and levels."""
        for _ in range(20):
            x_v, x_a = (self._true(rng, track) for track in (0, 1))
            levels = active_rms(x_v), active_rms(x_a)
            if min(levels) > _QUIET:
                break
        x_v = x_v * np.float32(10 ** (rng.uniform(-10.0, 6.0) / 20) * levels[1] / max(levels[0], _QUIET))
        peak = max(float(np.abs(audio).max()) for audio in (x_v, x_a, x_v + x_a))
        scale = np.float32(_PEAK * 10 ** (rng.uniform(-12.0, 0.0) / 20) / max(peak, 1e-6))
        return Remix(x_v * scale, x_a * scale, {})

    def _true(self, rng: np.random.Generator, track: int) -> np.ndarray:
        shard = self._pool[rng.integers(len(self._pool))]
        audio = shard[rng.integers(len(shard)), track].astype(np.float32) / np.float32(FULL_SCALE)
        # Items fade in and out, so rotating one leaves no click where its end meets its beginning.
        return augment(rng, np.roll(audio, int(rng.integers(audio.shape[1])), axis=1))


def _silent(_: str) -> None:
    pass
