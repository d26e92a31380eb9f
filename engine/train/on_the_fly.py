"""Material that never runs out: while a run trains, the real separator hears new mixtures of the pool's true stems.

Shard k of a run holds remixes of true stems from anywhere in the pool, with other levels, equalisers and widths,
separated by Spleeter on the run's device. The batch with number b draws from shards k - window + 1 to k, k = b //
every, so what it sees hangs on (seed, b) alone, as everything else does, and a run that is resumed makes the same
shards again. Older ones are deleted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import TrainingError
from .corpus.mixing import loudness
from .corpus.pool import FULL_SCALE, Separate, fill_shard, open_shard, shards_of
from .corpus.remix import Remix, colour

_PEAK, _QUIET = 0.9, 2e-3
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class FreshConfig:
    """share: of crops that are cut from fresh material (0: none is made). items: of a shard. every: batches until the
    next shard. window: shards that a batch may draw from."""

    share: float = 0.0
    items: int = 12
    every: int = 100
    window: int = 6

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise TrainingError(f"share={self.share} in [fresh] is a probability: give 0 to 1")
        for name in ("items", "every", "window"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name}={getattr(self, name)} in [fresh]: give 1 or more")


@dataclass(frozen=True)
class FreshShards:
    """Where a run's fresh shards are, and which of them a batch draws from; can be sent to a worker process."""

    folder: Path
    config: FreshConfig

    def numbers(self, batch: int) -> range:
        """The shards of a batch."""
        last = batch // self.config.every
        return range(max(last - self.config.window + 1, 0), last + 1)

    def path(self, number: int) -> Path:
        """A shard's file, there or not."""
        return self.folder / "train" / f"shard_{number:03d}.npy"

    def draw(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """An item (6, 2, T) for this batch; waits for it to be made. Raises TrainingError after five minutes."""
        numbers = self.numbers(batch)
        path = self.path(numbers[rng.integers(len(numbers))])
        until = time.monotonic() + _PATIENCE_S
        while not path.exists():
            if time.monotonic() > until:
                raise TrainingError(f"{path} was not made within {_PATIENCE_S:g} s; set share = 0 in [fresh]")
            time.sleep(0.05)
        shard = open_shard(path)[0]
        return np.asarray(shard[rng.integers(len(shard))])


@dataclass
class FreshMaker:
    """Makes them, in a thread beside the training: `keep_up` tells it how far the run is."""

    pool: Path
    shards: FreshShards
    separate: Separate
    seed: int
    _batch: int = 0
    _error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _more: threading.Event = field(default_factory=threading.Event)

    def start(self, batch: int) -> None:
        """Begin with what this batch needs."""
        self._batch = batch
        self._thread = threading.Thread(target=self._work, name="fresh material", daemon=True)
        self._thread.start()

    def keep_up(self, batch: int) -> None:
        """The run is at this batch. Raises what went wrong in the thread."""
        if self._error is not None:
            raise TrainingError(f"fresh material cannot be made: {self._error}") from self._error
        self._batch = batch
        self._more.set()

    def stop(self) -> None:
        """Stop, and delete what was made."""
        self._stop.set()
        self._more.set()
        self._thread.join()
        for path in self._there():
            self._delete(path)

    def make(self, number: int) -> Path:
        """One shard, whatever is there already."""
        config = self.shards.config
        items = range(number * config.items, (number + 1) * config.items)
        return fill_shard(
            self.shards.folder, "train", number, items, self._draw, self.separate, seed=self.seed, say=_silent
        )

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                # Workers fetch batches ahead of the run: the next shard has to be there before its first batch.
                wanted = [*self.shards.numbers(self._batch), self.shards.numbers(self._batch)[-1] + 1]
                missing = [number for number in wanted if not self.shards.path(number).exists()]
                if missing:
                    self.make(missing[0])
                    continue
                for path in self._there():
                    if int(path.stem[6:]) < wanted[0] - 1:  # a worker may be a batch or two behind
                        self._delete(path)
                self._more.wait(1.0)
                self._more.clear()
        except BaseException as error:  # told to the run by keep_up
            self._error = error

    def _there(self) -> list[Path]:
        return sorted((self.shards.folder / "train").glob("shard_[0-9]*.npy"))

    @staticmethod
    def _delete(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)

    @cached_property
    def _pool(self) -> list[np.ndarray]:
        opened = [open_shard(path) for path in shards_of(self.pool, "train")]
        return [items for items, infos in opened if "stem" not in infos[0]]  # the second separator's have other stems

    def _draw(self, rng: np.random.Generator) -> Remix:
        """Vocals of one item and the band of another, each from another place on, in other colours and levels."""
        for _ in range(20):
            x_v, x_a = (self._true(rng, track) for track in (0, 1))
            levels = loudness(x_v), loudness(x_a)
            if min(levels) > _QUIET:
                break
        x_v = x_v * np.float32(10 ** (rng.uniform(-10.0, 6.0) / 20) * levels[1] / max(levels[0], _QUIET))
        peak = max(float(np.abs(audio).max()) for audio in (x_v, x_a, x_v + x_a))
        scale = np.float32(_PEAK * 10 ** (rng.uniform(-12.0, 0.0) / 20) / max(peak, 1e-6))
        return Remix(x_v * scale, x_a * scale, {})

    def _true(self, rng: np.random.Generator, track: int) -> np.ndarray:
        shard = self._pool[rng.integers(len(self._pool))]
        audio = shard[rng.integers(len(shard)), track].astype(np.float32) / np.float32(FULL_SCALE)
        # What the pool holds is faded in and out, so that its end joins its beginning.
        return colour(rng, np.roll(audio, int(rng.integers(audio.shape[1])), axis=1))


def _silent(_: str) -> None:
    pass

