"""Batches of crops from the pool. Each batch depends on (seed, step) alone, so a resumed run sees the same data in the
same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..dsp.stft import Stft
from ..errors import TrainingError
from ..features import FeatureMaker
from .corpus.faulty import FIRST_VERSION, faulty_shards
from .corpus.pool import FULL_SCALE, TRACKS, open_shard, shards_of
from .corpus.simulated_faults import SIMULATORS
from .faults.factory import FAMILIES
from .faults.registry import MECHANISMS
from .on_the_fly import OnTheFlyShards

SHARDS = ("spleeter", "drums", "bass", "other", "vocals")
# (true stem, separated stem with zeros above 11 kHz, the same with the averaged mask)
CHOICES = {s: (TRACKS.index(f"x_{s}"), TRACKS.index(f"y_{s}_zeros"), TRACKS.index(f"y_{s}_average")) for s in "va"}


@dataclass(frozen=True)
class CropConfig:
    """What the crops of a batch are.

    batch: crops per batch. frames, lookahead: frames of a crop, and of the future after it. history: frames before the
    crop that the features have already seen. gain_db: largest random gain up or down.
    faulty: the share of crops from the shards of faulty stems (corpus/faulty.py); the others are from the pool.
    families: of these only stems with a fault of one of these families (train/faults); all if empty.
    The following are probabilities, 0 to 1. clean: the stem is the true one. no_mix: there is no mix. no_role: the
    stem's role is not told. mono: both channels are equal. blend: the fault is scaled by 0 to 1.5, on the line from the
    true stem to the faulty one. average: the stem was made with Spleeter's averaged mask above 11 kHz instead of zeros.
    simulated: the stem has one or two of `artefacts`, simulated, instead of the real separator's. upon_separated: of
    these crops, how many start from the separated stem instead of the true one. beside: of these crops, how many also
    have another kind of simulated fault before or after.
    together: every simulated crop has all of `artefacts`, in random order. severity: range of the simulated faults.
    roles: the pool's stems to crop, v for vocals, a for accompaniment. shards: the pool's shards to use: spleeter for
    Spleeter's, and drums, bass, other or vocals for a stem of the second separator; all if empty.
    """

    batch: int = 8
    frames: int = 64
    lookahead: int = 16
    history: int = 64
    gain_db: float = 6.0
    faulty: float = 0.0
    families: tuple[str, ...] = ()
    clean: float = 0.15
    no_mix: float = 0.5
    blend: float = 0.15
    average: float = 0.25
    simulated: float = 0.25
    upon_separated: float = 0.3
    beside: float = 0.0
    together: bool = False
    mono: float = 0.03
    no_role: float = 0.25
    artefacts: tuple[str, ...] = tuple(SIMULATORS)
    severity: tuple[float, float] = (0.1, 1.0)
    roles: str = "va"
    shards: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (
            "faulty", "clean", "no_mix", "blend", "average", "simulated", "upon_separated", "beside", "mono", "no_role",
        ):  # fmt: skip
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise TrainingError(f"{name}={getattr(self, name)} is a probability: use 0 to 1")
        unknown = [name for name in self.artefacts if name not in SIMULATORS]
        if unknown or not self.artefacts:
            raise TrainingError(f"artefacts={list(self.artefacts)}: use one or more of {', '.join(SIMULATORS)}")
        if strange := sorted(set(self.families) - set(FAMILIES)):
            raise TrainingError(f"families={strange}: use any of {', '.join(FAMILIES)}")
        if not self.roles or set(self.roles) - set("va"):
            raise TrainingError(f"roles={self.roles!r}: use v for vocals, a for accompaniment, or va for both")
        unknown = [name for name in self.shards if name not in SHARDS]
        if unknown:
            raise TrainingError(f"shards={list(self.shards)}: use any of {', '.join(SHARDS)}")
        low, high = self.severity
        if not 0.0 <= low <= high <= 1.0:
            raise TrainingError(f"severity={list(self.severity)} is a range: use two rising numbers from 0 to 1")


@dataclass(frozen=True)
class Batch:
    """control (B, LAYOUT.rows, K, N + L); stem, mix, cancelled, masked, truth (B, 64, K, N), all float32; clean (B,) is
    True where stem and truth are equal."""

    control: np.ndarray
    stem: np.ndarray
    mix: np.ndarray
    cancelled: np.ndarray
    masked: np.ndarray
    truth: np.ndarray
    clean: np.ndarray


class PoolBatches:
    """`batches[step]` is the batch of that step, with crops of material that is made during the run (on_the_fly.py) if
    there is any. Maps the shards on first use, so it can be sent to a worker process."""

    def __init__(
        self, pool: Path, split: str, maker: FeatureMaker, config: CropConfig, seed: int,
        on_the_fly: OnTheFlyShards | None = None,
    ) -> None:  # fmt: skip
        self.maker, self.config, self.seed, self.on_the_fly = maker, config, seed, on_the_fly
        found = shards_of(pool, split) if config.faulty < 1.0 else []
        self.paths = [path for path in found if not config.shards or separated_by(path) in config.shards]
        if not self.paths and config.faulty < 1.0:
            raise TrainingError(f"{pool / split} has no shards of {', '.join(config.shards)}; build a larger pool")
        self.faulty_paths = faulty_shards(pool, split) if config.faulty else []
        if config.faulty and not self._versions:
            raise TrainingError(
                f"{pool / split} has no faulty stems{' of these families' if config.families else ''}: build the pool "
                "again, or set faulty = 0 in [crop]"
            )
        self.stft = Stft(maker.stft)

    @cached_property
    def _shards(self) -> list[np.ndarray]:
        return [open_shard(path)[0] for path in self.paths]

    @cached_property
    def _separated(self) -> list[str]:
        return [separated_by(path) for path in self.paths]

    @cached_property
    def _faulty(self) -> list[np.ndarray]:
        return [open_shard(path)[0] for path in self.faulty_paths]

    @cached_property
    def _versions(self) -> list[tuple[int, int, int, str]]:
        """Of each faulty stem that may be drawn: the shard, the item, the track, and the stem's role."""
        wanted, found = set(self.config.families or FAMILIES), []
        for number, path in enumerate(self.faulty_paths):
            for item, info in enumerate(open_shard(path)[1]):
                for version, names in enumerate(info["faults"]):
                    if any(MECHANISMS[name].family in wanted for name in names):
                        found.append((number, item, FIRST_VERSION + version, info["role"]))
        return found

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        crops = [self._crop(rng, step) for _ in range(self.config.batch)]
        truth, stem, mix = (np.stack([crop.audio[i] for crop in crops]) for i in range(3))
        dropped = rng.random(self.config.batch) < self.config.no_mix
        hidden = rng.random(self.config.batch) < self.config.no_role
        roles = [None if hide else crop.role for crop, hide in zip(crops, hidden, strict=True)]
        return self.prepare(truth, stem, mix, dropped, roles)

    def prepare(
        self, truth: np.ndarray, stem: np.ndarray, mix: np.ndarray, dropped: np.ndarray, roles: Sequence[str | None]
    ) -> Batch:
        """A batch from waveforms (B, 2, `crop_samples`); `dropped` (B,) is True for crops without a mix. roles: of each
        stem, as in `FeatureMaker.start`."""
        latent, ahead, history = self.maker.latent, self.config.lookahead, self.config.history
        features = []
        for i in range(len(truth)):
            y, m = self._spectrum(stem[i]), None if dropped[i] else self._spectrum(mix[i])
            state = self.maker.start(1, roles[i])
            if history:
                state = self.maker.listen(y[..., :history], None if m is None else m[..., :history], state)
            features.append(self.maker(y[..., history:], None if m is None else m[..., history:], state)[0])
        z_true = np.concatenate([latent.encode(self._spectrum(audio)[..., history:]) for audio in truth])
        keep = slice(0, z_true.shape[-1] - ahead)
        return Batch(
            np.concatenate([f.control for f in features]),
            np.concatenate([f.stem for f in features])[..., keep],
            np.concatenate([f.mix for f in features])[..., keep],
            np.concatenate([f.cancelled for f in features])[..., keep],
            np.concatenate([f.masked for f in features])[..., keep],
            z_true[..., keep],
            np.array([np.array_equal(a, b) for a, b in zip(truth, stem, strict=True)]),
        )

    @property
    def crop_samples(self) -> int:
        """Samples of one crop with its history; the first frame is complete."""
        stft, config = self.maker.stft, self.config
        return (config.history + config.frames + config.lookahead) * stft.hop + stft.delay_samples

    def _from_pool(self, rng: np.random.Generator, step: int) -> tuple[np.ndarray, int, int, str]:
        """An item, its tracks of a true stem and of the separated one, and the stem's role."""
        config, separated = self.config, SHARDS[0]
        if self.on_the_fly is not None and rng.random() < self.on_the_fly.config.share:
            item = self.on_the_fly.draw(rng, step)
        else:
            number = int(rng.integers(len(self._shards)))
            shard, separated = self._shards[number], self._separated[number]
            item = shard[rng.integers(len(shard))]
        choice = config.roles[rng.integers(len(config.roles))]
        true_track, zeros, average = CHOICES[choice]
        return item, true_track, average if rng.random() < config.average else zeros, role_of(separated, choice)

    def _cut(self, item: np.ndarray, tracks: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """A crop of these tracks (n, 2, `crop_samples`), float32 with full scale 1."""
        span = self.crop_samples
        starts = rng.integers(0, item.shape[-1] - span + 1, 3)
        # Usually the loudest of three positions, because silence teaches little.
        power = [np.square(item[tracks[0], :, s : s + span : 7].astype(np.float32)).sum() for s in starts]
        start = starts[int(np.argmax(power))] if rng.random() < 0.8 else starts[0]
        return item[list(tracks), :, start : start + span].astype(np.float32) / np.float32(FULL_SCALE)

    def _simulated(self, stem: np.ndarray, residual: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        names = rng.permutation(self.config.artefacts)
        if not self.config.together:
            names = names[: rng.integers(1, 3)]
        others = [name for name in SIMULATORS if name not in self.config.artefacts]
        if others and self.config.beside and rng.random() < self.config.beside:
            names = rng.permutation([*names, rng.choice(others)])
        for name in names:
            stem = SIMULATORS[name](stem, residual, float(rng.uniform(*self.config.severity)), rng)
        return stem

    def _spectrum(self, audio: np.ndarray) -> np.ndarray:
        edge = self.maker.stft.delay_samples
        state = type(self.stft.start_analysis(2))(audio[:, :edge])
        return self.stft.analysis(audio[:, edge:], state)[0][None]

    def _crop(self, rng: np.random.Generator, step: int) -> _Crop:
        config = self.config
        if config.faulty and rng.random() < config.faulty:
            shard, number, track, role = self._versions[rng.integers(len(self._versions))]
            truth, residual, stem = self._cut(self._faulty[shard][number], (0, 1, track), rng)
        else:
            item, true_track, separated, role = self._from_pool(rng, step)
            truth, residual, stem = self._cut(item, (true_track, 1 - true_track, separated), rng)
            if rng.random() < config.simulated:
                stem = self._simulated(stem if rng.random() < config.upon_separated else truth, residual, rng)
        mix = truth + residual
        if rng.random() < config.blend:
            stem = truth + np.float32(rng.uniform(0.0, 1.5)) * (stem - truth)
        if rng.random() < config.clean:
            stem = truth
        gain = 10 ** (rng.uniform(-config.gain_db, config.gain_db) / 20) * rng.choice([-1.0, 1.0])
        order = [1, 0] if rng.random() < 0.5 else [0, 1]
        crops = [np.float32(gain) * audio[order] for audio in (truth, stem, mix)]
        if rng.random() < config.mono:
            crops = [np.repeat(audio.mean(axis=0, keepdims=True), 2, axis=0) for audio in crops]
        return _Crop((crops[0], crops[1], crops[2]), role)


@dataclass(frozen=True)
class _Crop:
    """Truth, stem and mix (2, `crop_samples`), and the stem's role."""

    audio: tuple[np.ndarray, np.ndarray, np.ndarray]
    role: str


def role_of(shard: str, choice: str) -> str:
    """The role of a stem of the pool, one of ROLES: `shard` is one of SHARDS, `choice` v for its stem, a for the rest
    of the song."""
    if choice == "v":
        return "vocals" if shard == SHARDS[0] else shard
    return "accompaniment" if shard in (SHARDS[0], "vocals") else "other"


def separated_by(path: Path) -> str:
    """Which of SHARDS a shard belongs to."""
    name: str = open_shard(path)[1][0].get("stem", SHARDS[0])
    return name


def fit_band_scale(pool: Path, maker: FeatureMaker, items: int = 60, seed: int = 0) -> np.ndarray:
    """One factor per band (K,) that gives the latents of the training mixes unit deviation."""
    rng = np.random.default_rng(seed)
    stft, total, count = Stft(maker.stft), 0.0, 0
    paths = shards_of(pool, "train")
    for _ in range(items):
        shard = open_shard(paths[rng.integers(len(paths))])[0]
        item = shard[rng.integers(len(shard))]
        start = rng.integers(0, item.shape[-1] - 90000)
        mix = (item[0] + item[1].astype(np.float32))[:, start : start + 88064] / np.float32(FULL_SCALE)
        z = maker.latent.encode(stft.analysis(mix, stft.start_analysis(2))[0][None])
        total, count = total + np.square(z).mean(axis=(0, 1, 3)), count + 1
    return np.asarray(maker.latent.scale / np.sqrt(total / count + 1e-8), np.float32)
