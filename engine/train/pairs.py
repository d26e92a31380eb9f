"""A user's own before/after files as training material for an adapter.

    DIR/before/<name>.wav   the stem with the fault
    DIR/after/<name>.wav    the same stem without it
    DIR/mix/<name>.wav      the mix it came from (optional)

In any format that libsndfile reads, at any sample rate, mono or stereo. Files of the same name must be aligned to the
sample.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from ..bundle import base_bundle
from ..errors import TrainingError
from ..repair import Repairer
from ..trust import TERMS, TrustCurve
from .cases import CLEAN
from .corpus.pool import FULL_SCALE, SAMPLE_RATE, open_shard, shard_paths, write_shard
from .dataset import CropConfig
from .fit_trust import STARTS, fit_weights, measure, write_adapter_trust_curve
from .options import LossWeights, TrainOptions

ITEM_S = 8.0
HELD_OUT = 0.15
_SHORTEST_S = 4.0
_QUIET = 1e-4
_COMPARED_S = 30.0
_FARTHEST_S = 0.25
_ADAPTER = "adapter.safetensors"
_MOST_HELD_OUT = 24
_WHOLE_CORRECTION = np.eye(1, len(TERMS), dtype=np.float32)  # weights of a trust curve
_FORMATS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")


@dataclass(frozen=True)
class Pair:
    """The files of one name."""

    name: str
    before: Path
    after: Path
    mix: Path | None


def find_pairs(folder: Path) -> list[Pair]:
    """All pairs in a folder, by name. Raises TrainingError, naming what is missing."""
    for side in ("before", "after"):
        if not (folder / side).is_dir():
            raise TrainingError(
                f"{folder} has no folder {side!r}; put the files into {folder}/before and {folder}/after"
            )
    files = {side: _audio(folder / side) for side in ("before", "after", "mix")}
    if not files["before"]:
        raise TrainingError(f"{folder / 'before'} has no audio files; add some ({', '.join(_FORMATS)})")
    for one, other in (("before", "after"), ("after", "before")):
        lacking = sorted(set(files[one]) - set(files[other]))
        if lacking:
            name = files[one][lacking[0]].name
            raise TrainingError(f"{folder / one / name} has no counterpart in {folder / other}; add or remove one")
    if files["mix"] and set(files["mix"]) != set(files["before"]):
        lacking = sorted(set(files["before"]) ^ set(files["mix"]))
        raise TrainingError(f"{folder}: {lacking[0]} is not in all three folders; add a mix for all pairs or for none")
    return [
        Pair(name, files["before"][name], files["after"][name], files["mix"].get(name))
        for name in sorted(files["before"])
    ]


def build_pairs(pairs: list[Pair], out: Path) -> dict[str, float]:
    """Write a pool and return its minutes by split. Its shards, in OUT/train and OUT/valid, have three tracks: true
    stem, residual, faulty stem. The last 15% of every file are held out. Raises TrainingError for pairs that do not
    match."""
    items: dict[str, list[np.ndarray]] = {"train": [], "valid": []}
    samples = dict.fromkeys(items, 0)
    length = int(ITEM_S * SAMPLE_RATE)
    for pair in pairs:
        before, after, mix = _read_pair(pair)
        tracks = np.stack([after, mix - after if mix is not None else np.zeros_like(after), before])
        tracks /= max(1.0, float(np.abs(tracks).max()))
        cut = round((1 - HELD_OUT) * after.shape[1])
        for split, part in (("train", tracks[..., :cut]), ("valid", tracks[..., cut:])):
            count = max(1, round(part.shape[-1] / length))
            for start in np.linspace(0, max(part.shape[-1] - length, 0), count).astype(int):
                item = part[..., start : start + length]
                unpadded = item.shape[-1]
                item = np.pad(item, ((0, 0), (0, 0), (0, length - unpadded)))
                if np.abs(item[0]).max() > _QUIET:
                    samples[split] += unpadded
                    items[split].append(np.rint(item * FULL_SCALE).astype(np.int16))
    if not items["train"]:
        raise TrainingError("the files in after/ are silent, so there is nothing to learn; add audible ones")
    for split, cuts in items.items():
        if cuts:
            write_shard(out / split, 0, cuts, [{"item": n} for n in range(len(cuts))], split=split, separator="pairs")
    return {split: count / SAMPLE_RATE / 60 for split, count in samples.items()}


def pair_crops(pairs: list[Pair]) -> CropConfig:
    """Crops for the pool that `build_pairs` writes."""
    with_mix = pairs[0].mix is not None
    return CropConfig(
        batch=6,
        roles="v",
        average=0.0,
        simulated=0.0,
        no_role=1.0,
        no_mix=0.3 if with_mix else 1.0,
        clean=0.1,
        blend=0.2,
    )


def pair_settings() -> dict[str, Any]:
    """Settings for training an adapter in a few minutes, used if there is no settings file."""
    return {
        "learning_rate": 1.5e-3, "warmup": 40, "ema": 0.99, "validate_every": 1000,
        "weights": LossWeights(log_error=3.0),
    }  # fmt: skip


def finish(options: TrainOptions, pairs: list[Pair], lengths: dict[str, float]) -> Path:
    """Make the preset folder RUN/<adapter>: the trained adapter with its trust curve, preset.toml, and recipe.json with
    the material and settings. Returns the path of preset.toml."""
    name = str(options.adapter)
    folder = options.run / name
    folder.mkdir(exist_ok=True)
    part = folder / f".{_ADAPTER}.part"
    shutil.copyfile(options.run / f"{name}.safetensors", part)
    part.replace(folder / _ADAPTER)
    fit_own_trust_curve(options, folder / _ADAPTER)
    recipe = {
        "files": [pair.name for pair in pairs], "minutes_of_audio": lengths, "crop": asdict(options.crop),
        "weights": asdict(options.weights), "rank": options.rank, "learning_rate": options.learning_rate,
        "seed": options.seed, "minutes": options.minutes, "steps": options.steps,
    }  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1, default=str) + "\n")
    (folder / "preset.toml").write_text(
        f'name = "{name}"\ntitle = "{name.replace("-", " ").capitalize()}"\n'
        f'description = "Trained on {len(pairs)} pairs of files, {lengths["train"]:.1f} minutes."\n'
        f'for = "the fault that the pairs show"\nwet = 1.0\n\n[adapters]\n"{_ADAPTER}" = 1.0\n'
    )
    return folder / "preset.toml"


def fit_own_trust_curve(options: TrainOptions, adapter: Path) -> None:
    """Fit the adapter's trust curve on the held-out parts of the pairs, and write it into the adapter's file. If
    nothing is held out, or the base is a checkpoint that was not exported, the whole correction is let through."""
    bundle = options.start_from or base_bundle()
    held_out = shard_paths(options.pool / "valid") if bundle.is_dir() else []
    items = [item.astype(np.float32) / FULL_SCALE for path in held_out for item in open_shard(path)[0]]
    if not items:
        rows = np.repeat(_WHOLE_CORRECTION, len(STARTS), axis=0)
        write_adapter_trust_curve(adapter, TrustCurve(STARTS, rows, rows))
        return
    repairer = Repairer(bundle=bundle, blend={adapter: 1.0}, restrained=False)
    with_mix = options.crop.no_mix < 1.0
    fitted = []
    for has_mix in (True, False):
        cases = [
            case
            for truth, residual, faulty in items[:_MOST_HELD_OUT]
            for kind, stem in (("pairs", faulty), (CLEAN, truth))
            for case in measure(repairer, kind, truth, stem, truth + residual if has_mix and with_mix else None)
        ]
        fitted.append(fit_weights(cases, own=("pairs",)))
    write_adapter_trust_curve(adapter, TrustCurve(STARTS, fitted[0], fitted[1]))


def _audio(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _FORMATS:
            if path.stem in found:
                raise TrainingError(f"{path} and {found[path.stem].name} have the same name; keep one of them")
            found[path.stem] = path
    return found


def _read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    before, after = _read(pair.before), _read(pair.after)
    mix = None if pair.mix is None else _read(pair.mix)
    longest = max(before.shape[1], after.shape[1])
    if abs(before.shape[1] - after.shape[1]) > 0.02 * longest:
        raise TrainingError(
            f"{pair.before} lasts {before.shape[1] / SAMPLE_RATE:.2f} s but {pair.after} lasts "
            f"{after.shape[1] / SAMPLE_RATE:.2f} s; make them equally long"
        )
    length = min(audio.shape[1] for audio in (before, after, mix) if audio is not None)
    if length < _SHORTEST_S * SAMPLE_RATE:
        raise TrainingError(f"{pair.after} lasts {length / SAMPLE_RATE:.2f} s; use at least {_SHORTEST_S:g} s")
    before, after = before[:, :length], after[:, :length]
    lag = find_lag(before, after)
    if lag:
        late, by = (pair.before, lag) if lag > 0 else (pair.after, -lag)
        raise TrainingError(f"{late} is {by} samples (at 44.1 kHz) behind its counterpart; cut them off its start")
    return before, after, None if mix is None else mix[:, :length]


def find_lag(before: np.ndarray, after: np.ndarray) -> int:
    """Samples by which `before` lags behind `after` (2, T), up to a quarter of a second either way, by
    cross-correlation; 0 unless another lag fits clearly better."""
    length = min(before.shape[1], int(_COMPARED_S * SAMPLE_RATE))
    reach = int(_FARTHEST_S * SAMPLE_RATE)
    spectra = [np.fft.rfft(audio[:, :length].mean(axis=0), 2 * length) for audio in (before, after)]
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj())
    lags = np.concatenate([np.arange(reach + 1), np.arange(-reach, 0)])
    near = np.abs(correlation[lags])
    best = int(lags[int(near.argmax())])
    return best if near.max() > 1.1 * near[0] else 0


def _read(path: Path) -> np.ndarray:
    try:
        audio, rate = sf.read(path, dtype="float32", always_2d=True)
    except (sf.LibsndfileError, OSError) as error:
        raise TrainingError(f"{path} cannot be read as audio: {error}") from error
    if audio.shape[1] > 2:
        raise TrainingError(f"{path} has {audio.shape[1]} channels; use mono or stereo")
    if not np.isfinite(audio).all():
        raise TrainingError(f"{path} has non-finite samples (NaN or infinite); render it again")
    if rate != SAMPLE_RATE:
        audio = soxr.resample(audio, rate, SAMPLE_RATE)
    return np.ascontiguousarray(np.repeat(audio.T, 2, axis=0) if audio.shape[1] == 1 else audio.T)
