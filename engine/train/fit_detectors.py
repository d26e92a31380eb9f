"""Fits the detectors on simulated faults, and reports how well they do on held-out material.

    python -m stemprover.engine.train.fit_detectors data/pool --clips 150 --seed 1 -o engine/detect/weights.npz
    python -m stemprover.engine.train.fit_detectors data/pool --report --split valid-other test

An example is a cell of one perceptual band and one frame. Its target is the damage there: with D the power of degraded
minus true stem and X that of the true stem, both over half a second, 1 + 10 log10(D / X) / 20, limited to 0..1. The
target is 0 in clean stems and in stems with another type of fault.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..detect.detectors import MIX_ONLY_TYPES, TYPES, WEIGHTS, Detectors, standardise, usable_measures
from ..detect.measures import Measures
from ..detect.score import file_scores
from ..dsp.stft import Stft
from ..errors import StemProverError
from .corpus import instruments
from .corpus.pool import FULL_SCALE, open_shard, shards_of
from .corpus.simulated_faults import SIMULATORS

CLIP_SAMPLES = 6 * 44100
FIRST, EVERY = 40, 20  # first frame that becomes an example, and the distance to the next
HIDDEN = 24
QUIET = 0.95  # fraction of the true stems of each class that a detector must not flag
DARK = 0.33  # fraction of the instrument clips to fit on that go through a low-pass filter
FLOORS = np.array([1 / 4, 1 / 4, 1 / 4, 1 / 3, 1 / 3])  # of a typical score: below that nothing is reported
TRAIN_BANK = "fluid-soundfont-gm"
MUSIC = "music"


@dataclass(frozen=True)
class Clip:
    """A true stem, its mix, a real separator's stem or None, and the stem with each simulated fault, all (2, T). kind:
    its class of instrument, or MUSIC."""

    stem: np.ndarray
    mix: np.ndarray
    separated: np.ndarray | None
    faults: dict[str, np.ndarray]
    kind: str


def clips(pool: Path, split: str, count: int, seed: int, *, faulty: bool = True) -> Iterator[Clip]:
    """Random clips of a split, vocals and accompaniment in turn. The faults have severities of 0.35 to 1."""
    rng = np.random.default_rng(seed)
    paths = shards_of(pool, split)
    made = 0
    while made < count:
        shard = open_shard(paths[rng.integers(len(paths))])[0]
        item = shard[rng.integers(len(shard))]
        start = rng.integers(0, item.shape[-1] - CLIP_SAMPLES + 1)
        tracks = item[:, :, start : start + CLIP_SAMPLES].astype(np.float32) / np.float32(FULL_SCALE)
        which = made % 2
        stem, residual = tracks[which], tracks[1 - which]
        if np.sqrt(np.mean(stem**2)) < 3e-3:
            continue
        made += 1
        yield Clip(stem, stem + residual, tracks[2 + which], _faults(stem, residual, rng) if faulty else {}, MUSIC)


def instrument_clips(count: int, seed: int, *, faulty: bool = True, dark: float = DARK) -> Iterator[Clip]:
    """Single instruments from a sound bank of the training split, `count` of each class, without a separator's stem.
    `dark` as in instruments.clips; if it is 1, all clips form one class."""
    rng = np.random.default_rng([seed, 1])
    for name, stem, mix in instruments.clips(count, seed, bank=TRAIN_BANK, dark=dark):
        kind = name if dark < 1.0 else "dark"
        yield Clip(stem, mix, None, _faults(stem, mix - stem, rng) if faulty else {}, kind)


def spectrum(audio: np.ndarray) -> np.ndarray:
    """Waveform (2, T) to packed spectrum (2, F, N); samples after the last whole hop are dropped."""
    stft = Stft()
    whole = audio.shape[1] // stft.config.hop * stft.config.hop
    return stft.analysis(audio[:, :whole], stft.start_analysis(2))[0]


def damage(measures: Measures, degraded: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets (K, N), and audibility (K, N): 0 to 1 from 70 to 40 dB below the frame's level."""
    error, power = (_half_second(measures.bands.sum((np.abs(s) ** 2).sum(axis=0))) for s in (degraded - true, true))
    target = np.clip(1.0 + 10 * np.log10(error / (power + 1e-9) + 1e-9) / 20.0, 0.0, 1.0)
    louder = np.maximum(error, power)
    level_db = 10 * np.log10(louder / (louder.sum(axis=0) + 1e-12) + 1e-12)
    return target, np.clip((level_db + 70.0) / 30.0, 0.0, 1.0)


def _faults(stem: np.ndarray, residual: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: SIMULATORS[name](stem, residual, float(rng.uniform(0.35, 1.0)), rng) for name in TYPES}


def _half_second(power: np.ndarray) -> np.ndarray:
    total = np.cumsum(np.pad(power, ((0, 0), (40, 0))), axis=-1)
    return (total[:, 40:] - total[:, :-40]) / 40


def examples(source: Iterable[Clip]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measures (M, J), made with the mix, targets (M, 5) and weights (M, 5) of all examples."""
    measures = Measures()
    chosen = slice(FIRST, None, EVERY)
    rows, targets, weights = [], [], []
    for clip in source:
        true, mix = spectrum(clip.stem), spectrum(clip.mix)
        for name, audio in {"clean": clip.stem, **clip.faults}.items():
            stem = spectrum(audio)
            found, active, _ = measures(stem, mix, measures.start())
            rows.append(found[..., chosen].reshape(len(found), -1).T)
            target, audible = damage(measures, stem, true)
            weight = (audible * active)[:, chosen].reshape(-1)
            target = target[:, chosen].reshape(-1)
            targets.append(np.stack([target if name == t else np.zeros_like(target) for t in TYPES], axis=1))
            weights.append(np.stack([weight if name in (t, "clean") else 0.5 * weight for t in TYPES], axis=1))
    return tuple(np.concatenate(part).astype(np.float32) for part in (rows, targets, weights))  # type: ignore[return-value]


def fit(rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, kind: str, seed: int) -> dict[str, np.ndarray]:
    """The arrays that `Detectors` reads, for one set of detectors: `kind` is song (with the mix) or alone."""
    torch.manual_seed(seed)
    columns = rows.shape[1]
    found: dict[str, np.ndarray] = {
        f"{kind}_mean": rows.mean(axis=0)[:, None, None],
        f"{kind}_deviation": rows.std(axis=0)[:, None, None] + 1e-3,
    }
    inputs = torch.from_numpy(standardise(rows.T[:, :, None], found, kind)[..., 0].T.astype(np.float32).copy())
    goal, weight = torch.from_numpy(targets), torch.from_numpy(weights)
    inner = nn.Linear(columns, len(TYPES) * HIDDEN)
    outer = nn.Parameter(torch.zeros(len(TYPES), HIDDEN))
    bias = nn.Parameter(torch.full((len(TYPES),), -2.0))
    optimiser = torch.optim.AdamW([*inner.parameters(), outer, bias], 1e-2, weight_decay=1e-2)
    steps = 2500
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (8192,))
        hidden = torch.tanh(inner(inputs[chosen])).unflatten(1, (len(TYPES), HIDDEN))
        logit = (hidden * outer).sum(dim=2) + bias
        loss = nn.functional.binary_cross_entropy_with_logits(logit, goal[chosen], weight[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    found |= {
        f"{kind}_inner": inner.weight.detach().numpy(),
        f"{kind}_inner_bias": inner.bias.detach().numpy()[:, None, None],
        f"{kind}_outer": outer.detach().numpy(),
        f"{kind}_outer_bias": bias.detach().numpy(),
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


def levels(source: Iterable[Clip], weights_file: Path) -> dict[str, np.ndarray]:
    """Levels of each type (5,), with the mix (song_...) and without (alone_...).

    typical: median score of the type's own simulated faults in music. beside: FLOORS times that. threshold: the score
    that QUIET of the true stems of every class stay below, and at least `beside`.
    """
    detectors = Detectors(weights_file)
    clean: dict[tuple[str, str], list[np.ndarray]] = {}
    own: dict[str, list[list[float]]] = {"song": [], "alone": []}
    for clip in source:
        true, clip_mix = spectrum(clip.stem), spectrum(clip.mix)
        faults = {name: spectrum(audio) for name, audio in clip.faults.items()}
        for given, mix in (("song", clip_mix), ("alone", None)):
            clean.setdefault((given, clip.kind), []).append(file_scores(detectors(true, mix, detectors.start())[0]))
            if faults:
                scores = {name: file_scores(detectors(x, mix, detectors.start())[0]) for name, x in faults.items()}
                own[given].append([scores[name][i] for i, name in enumerate(TYPES)])
    found: dict[str, np.ndarray] = {}
    for given, rows in own.items():
        typical = np.median(np.array(rows), axis=0)
        quiet = [np.quantile(np.array(scores), QUIET, axis=0) for (how, _), scores in clean.items() if how == given]
        for name, value in (
            ("typical", typical),
            ("beside", typical * FLOORS),
            ("threshold", np.max([typical * FLOORS, *quiet], axis=0)),
        ):
            found[f"{given}_{name}"] = value.astype(np.float32)
    return found


def area_under_curve(clean: np.ndarray, degraded: np.ndarray) -> float:
    """Probability that a degraded stem scores higher than a clean one: the area under the ROC curve (Hanley and McNeil
    1982)."""
    above = degraded[:, None] > clean[None]
    return float((above + 0.5 * (degraded[:, None] == clean[None])).mean())


def report(
    pool: Path, split: str, count: int, seed: int, has_mix: bool, weights_file: Path = WEIGHTS
) -> dict[str, dict[str, float]]:
    """For each detector the area under the ROC curve by fault, and the fraction flagged of true stems, of its own
    faults and of the real separator's stems. For each fault how often each type scores highest relative to its typical
    score."""
    detectors = Detectors(weights_file)
    scores: dict[str, list[np.ndarray]] = {}
    for clip in clips(pool, split, count, seed):
        mix = spectrum(clip.mix) if has_mix else None
        assert clip.separated is not None
        for name, audio in {"clean": clip.stem, **clip.faults, "separated": clip.separated}.items():
            severities, _ = detectors(spectrum(audio), mix, detectors.start())
            scores.setdefault(name, []).append(file_scores(severities))
    found = {name: np.array(rows) for name, rows in scores.items()}
    clean = found.pop("clean")
    table: dict[str, dict[str, float]] = {}
    flagged = {
        name: np.array([row > detectors.limits(row, has_mix) for row in rows])
        for name, rows in {**found, "clean": clean}.items()
    }
    for i, detector in enumerate(TYPES):
        table[detector] = {name: round(area_under_curve(clean[:, i], rows[:, i]), 3) for name, rows in found.items()}
        for what, name in (("clean", "clean"), ("own", detector), ("separated", "separated")):
            table[detector][f"{what} flagged"] = round(float(flagged[name][:, i].mean()), 3)
        table[detector]["own, median"] = round(float(np.median(found[detector][:, i])), 3)
    for name, rows in found.items():
        table[f"{name}: classified as"] = dict(
            zip(
                TYPES,
                np.bincount((rows / detectors.typical(has_mix)).argmax(axis=1), minlength=len(TYPES)).tolist(),
                strict=True,
            )
        )
    return table


def flagged_by_class(count: int, seed: int, weights_file: Path = WEIGHTS) -> dict[bool, dict[str, np.ndarray]]:
    """With the mix (True) and without: for each class of instrument of the held-out bank, which clips are flagged by
    which detector (clips, 5)."""
    detectors = Detectors(weights_file)
    found: dict[bool, dict[str, list[np.ndarray]]] = {True: {}, False: {}}
    for name, stem, mix in instruments.clips(count, seed):
        stem_spectrum, mix_spectrum = spectrum(stem), spectrum(mix)
        for has_mix, rows in found.items():
            severities, _ = detectors(stem_spectrum, mix_spectrum if has_mix else None, detectors.start())
            known = np.array([has_mix or kind not in MIX_ONLY_TYPES for kind in TYPES])
            rows.setdefault(name, []).append(known & (file_scores(severities) > detectors.thresholds(has_mix)))
    return {has_mix: {name: np.array(rows) for name, rows in by.items()} for has_mix, by in found.items()}


def print_classes(found: dict[bool, dict[str, np.ndarray]]) -> None:
    """Print the false alarms, in percent of the clips, by class and detector."""
    for has_mix, by_class in found.items():
        print(f"true stems flagged, {'with' if has_mix else 'without'} the mix, %: {', '.join(TYPES)}, any")
        for name, hits in {**by_class, "all": np.concatenate(list(by_class.values()))}.items():
            fractions = [*hits.mean(axis=0), hits.any(axis=1).mean()]
            print(f"  {name:24s} " + "  ".join(f"{100 * fraction:5.1f}" for fraction in fractions), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool", type=Path, help="the training pool")
    parser.add_argument("--clips", type=int, default=120, help="clips of the pool to fit on (120)")
    parser.add_argument("--seed", type=int, default=1, help="seed of clips and fit (1)")
    parser.add_argument("-o", "--output", type=Path, default=WEIGHTS, help="file of the detectors (the installed one)")
    parser.add_argument("--report", action="store_true", help="fit nothing; report on the detectors in --output")
    parser.add_argument("--levels", action="store_true", help="keep the detectors; fit their thresholds again")
    parser.add_argument(
        "--split", nargs="+", default=["valid-other", "test"], help="splits to report on (valid-other test)"
    )
    parser.add_argument("--instruments", type=int, default=25, help="clips of each instrument class to fit on (25)")
    parser.add_argument("--classes", type=int, default=20, help="clips of each class to count false alarms on (20)")
    given = parser.parse_args()
    try:
        _run(given)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


def _run(given: argparse.Namespace) -> None:
    if not given.report:
        if given.levels:
            with np.load(given.output) as present:
                found = dict(present)
        else:
            material = chain(
                clips(given.pool, "train", given.clips, given.seed), instrument_clips(given.instruments, given.seed)
            )
            rows, targets, weights = examples(material)
            found = {}
            for kind, has_mix in (("song", True), ("alone", False)):
                found |= fit(rows[:, usable_measures(has_mix)], targets, weights, kind, given.seed)
        part = given.output.with_suffix(".part.npz")
        np.savez(part, **found)
        others = chain(
            clips(given.pool, "train", given.clips // 3, given.seed + 1),
            clips(given.pool, "train", given.clips, given.seed + 2, faulty=False),
            instrument_clips(given.instruments, given.seed + 1, faulty=False, dark=0.0),
            instrument_clips(max(instruments.FEWEST, given.instruments // 4), given.seed + 3, faulty=False, dark=1.0),
        )
        found |= levels(others, part)
        np.savez(part, **found)
        part.replace(given.output)
    print_classes(flagged_by_class(given.classes, given.seed + 4, given.output))
    for split in given.split:
        for has_mix in (True, False):
            print(split, "with the mix" if has_mix else "without the mix")
            for name, row in report(given.pool, split, 40, given.seed, has_mix, given.output).items():
                print(f"  {name:32s} {json.dumps(row)}", flush=True)


if __name__ == "__main__":
    main()
