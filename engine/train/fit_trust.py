"""Fits how much of a model's change is let through (`engine/trust.py`), on held-out cases; writes it into the bundle, or
into an adapter's file.

    python -m stemprover.engine.train.fit_trust cases/valid cases/valid-other --bundle presets/base
    python -m stemprover.engine.train.fit_trust cases/valid cases/valid-other \\
        --adapter presets/bleed/adapter.safetensors --recipe presets/bleed/recipe.toml

In each band and frame let c be the model's change, e what was wrong with the stem, and s(evidence) the share: the
error that is left is |e - s c|^2. With s linear in the evidence, for each knot of how far the stem is masked, the best
weights are those of a least-squares problem for each group of bands, summed over cases, each over its own error. Real
separators count RECORDED times a simulated fault, or as often as the adapter's recipe says, an adapter's own one OWN
times, and a ridge draws the weights to a share of PRIOR whatever the evidence.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import safe_open

from ..adapters import Adapter, write_adapter
from ..bundle import Bundle, base_bundle
from ..constants import MODEL_RATE
from ..dsp.stft import Stft, whole_stft
from ..errors import StemProverError, TrainingError
from ..features import FeatureMaker
from ..repair import Repairer
from ..trust import EVIDENCE, HEARD, MASKED, Caution, Ramp, evidence, most_within, nearness, terms
from .cases import CLEAN, read_case, spread, written_cases
from .options import TrainOptions
from .settings import load_options

STARTS = (0, 4, 8, 12, 16, 22, 32, 40, 52, 64)
KNOTS, ALIKE = (0.0, 0.25, 0.5, 0.75), (0.0,)
PRIOR, RIDGE, RECORDED, OWN = 0.4, 0.02, TrainOptions.recorded, 50.0
LOSS_DB, HARM, ROUNDS = 0.05, 1.5, 6
CLEAN_DB = -30.0
FAINT_DB = -25.0  # of the true stem's power: what is fainter counts as if it were as much
REAL = ("separated-", "four-stems-")


@dataclass(frozen=True)
class Measured:
    """One case: heard (8, K, N), <e, c> and |c|^2 (K, N), |e|^2 in all, or FAINT_DB of the true stem's power if that is
    more: a fault that nobody hears must not decide for those that are heard. Of a true stem, which has no error,
    CLEAN_DB of its power: what may be changed of it."""

    kind: str
    heard: np.ndarray
    right: np.ndarray
    size: np.ndarray
    error: float

    def gain_db(self, share: np.ndarray | float) -> float:
        """By how much the error gets smaller if this share of the change is let through."""
        left = self.error - 2.0 * float(np.sum(share * self.right)) + float(np.sum(share * share * self.size))
        return float(10 * np.log10(self.error / max(left, 1e-12 * self.error)))

    def through(self, ramp: Ramp | None) -> Measured:
        """The same of what this ramp lets through of the change."""
        if ramp is None:
            return self
        part = ramp(self.heard[None])[0]
        return replace(self, right=part * self.right, size=part * part * self.size)


def measure(
    repairer: Repairer, kind: str, truth: np.ndarray, degraded: np.ndarray, mix: np.ndarray | None
) -> Measured | None:
    """Sounds (2, T) at 44.1 kHz; `repairer` without its gate. None for a silent true stem where nothing is wrong."""
    bundle = repairer.runtime.bundle
    stft, maker, layout = Stft(bundle.stft), FeatureMaker(bundle.latent, bundle.stft), bundle.latent.layout
    after = repairer.process(degraded, MODEL_RATE, mix)
    true, stem, made = (whole_stft(stft, sound) for sound in (truth, degraded, after))
    wrong, change = true - stem, made - stem
    error, power = (float(np.sum(np.abs(x) ** 2)) for x in (wrong, true))
    error = max(error, 10 ** ((FAINT_DB if error else CLEAN_DB) / 10) * power)
    if error == 0.0:
        return None
    song = None if mix is None else whole_stft(stft, mix)[None]
    seen = evidence(maker(stem[None], song, maker.start(1))[0])[0]
    padded = np.concatenate([seen, np.repeat(seen[..., -1:], bundle.lookahead, axis=-1)], axis=-1)
    heard = most_within(padded, bundle.lookahead)
    right, size = (layout.sum(x.sum(axis=0)) for x in ((wrong * change.conj()).real, np.abs(change) ** 2))
    return Measured(kind, heard, right, size, error)


def fit_weights(
    cases: Sequence[Measured], starts: Sequence[int] = STARTS, own: str | None = None, recorded: float = RECORDED,
    knots: tuple[float, ...] = KNOTS, counts: Mapping[str, float] | None = None,
) -> np.ndarray:  # fmt: skip
    """Weights (knots, groups, 8) for `Caution`, of cases `through` its ramp. Every kind counts alike, but real
    separators' stems `recorded` times and an adapter's `own` kind OWN times, and a kind of `counts` so many times
    as it else would; a case that loses counts HARM times as much in the next of ROUNDS rounds, each time that it
    does."""
    numbers = {kind: sum(case.kind == kind for case in cases) for kind in {case.kind for case in cases}}
    worth = {kind: recorded if kind.startswith((*REAL, CLEAN)) else OWN if kind == own else 1.0 for kind in numbers}
    worth = {kind: times * (counts or {}).get(kind, 1.0) for kind, times in worth.items()}
    scales = np.array([worth[case.kind] / numbers[case.kind] / case.error for case in cases])
    parts = [_normal(case, starts, knots) for case in cases]
    weights = _solve(parts, scales, len(knots))
    for _ in range(ROUNDS):
        caution = Caution(tuple(starts), weights, weights[0], knots=knots)
        gains = np.array([case.gain_db(caution.share(case.heard[None], True)[0]) for case in cases])
        if not (gains < -LOSS_DB).any():
            break
        scales = np.where(gains < -LOSS_DB, HARM, 1.0) * scales
        weights = _solve(parts, scales, len(knots))
    return weights


def _normal(case: Measured, starts: Sequence[int], knots: tuple[float, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """A case's share of the normal equations, matrix and right-hand side, of each group of bands."""
    parts = []
    for low, high in zip(starts, [*starts[1:], len(case.size)], strict=True):
        heard = case.heard[:, low:high].astype(float)
        near = np.stack(nearness(heard[MASKED], knots))
        known = (near[:, None] * terms(heard)).reshape(len(knots) * len(EVIDENCE), -1)
        parts.append(((known * case.size[low:high].reshape(-1)) @ known.T, known @ case.right[low:high].reshape(-1)))
    return parts


def _solve(parts: Sequence[list[tuple[np.ndarray, np.ndarray]]], scales: np.ndarray, knots: int) -> np.ndarray:
    every = knots * len(EVIDENCE)
    prior = np.tile([PRIOR] + [0.0] * (len(EVIDENCE) - 1), knots)
    rows = []
    for group in zip(*parts, strict=True):
        normal, wanted = np.zeros((every, every)), np.zeros(every)
        for scale, (matrix, right) in zip(scales, group, strict=True):
            normal, wanted = normal + scale * matrix, wanted + scale * right
        ridge = (RIDGE * np.trace(normal) / every + 1e-12) * np.eye(every)
        rows.append(prior + np.linalg.solve(normal + ridge, wanted - normal @ prior))
    return np.array(rows).reshape(-1, knots, len(EVIDENCE)).transpose(1, 0, 2)


def measure_all(
    cases: Sequence[tuple[str, Path]], bundle: Path, with_mix: bool, adapter: Path | None = None
) -> list[Measured]:
    """`measure` of all cases, and of the true stems of real separators' cases. Raises TrainingError where there is
    nothing to measure."""
    repairer = Repairer(bundle=bundle, blend={adapter: 1.0} if adapter else {}, gated=False)
    found = []
    for kind, folder in cases:
        sounds = read_case(folder)
        one = measure(repairer, kind, sounds["truth"], sounds["degraded"], sounds["mix"] if with_mix else None)
        found += [] if one is None else [one]
        if kind.startswith(REAL):
            mix = sounds["mix"] if with_mix else None
            clean = measure(repairer, CLEAN, sounds["truth"], sounds["truth"], mix)
            found += [] if clean is None else [clean]
    if not found:
        raise TrainingError("none of the cases has a fault to measure")
    return found


def write_measured(path: Path, cases: Sequence[Measured]) -> None:
    """Keep what was measured, in single precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for i, case in enumerate(cases):
        arrays |= {
            f"{i:05d}.about": np.array([case.kind, repr(case.error)]), f"{i:05d}.heard": case.heard.astype(np.float32),
            f"{i:05d}.right": case.right.astype(np.float32), f"{i:05d}.size": case.size.astype(np.float32),
        }  # fmt: skip
    part = path.with_name(f".{path.stem}.part.npz")
    np.savez(part, allow_pickle=False, **arrays)
    os.replace(part, path)


def read_measured(path: Path) -> list[Measured]:
    """What `write_measured` has kept. Raises TrainingError."""
    try:
        with np.load(path) as file:
            count = len(file.files) // 4
            if count and len(file["00000.heard"]) != HEARD:
                raise ValueError("of another version")
            return [
                Measured(
                    str(file[f"{i:05d}.about"][0]), file[f"{i:05d}.heard"], file[f"{i:05d}.right"],
                    file[f"{i:05d}.size"], float(file[f"{i:05d}.about"][1]),
                )
                for i in range(count)
            ]  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} holds nothing that was measured ({error}); delete it") from error


def write_caution(folder: Path, caution: Caution) -> None:
    """Put it into bundle.json, beside its place first."""
    path = folder / "bundle.json"
    about = json.loads(path.read_text())
    about["caution"] = caution.to_dict()
    part = path.with_suffix(".part")
    part.write_text(json.dumps(about, indent=1) + "\n")
    os.replace(part, path)


def write_adapter_caution(path: Path, caution: Caution) -> None:
    """Put it into the metadata of an adapter's file, beside its place first."""
    with safe_open(path, framework="np") as file:
        meta = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a handle is no mapping
    write_adapter(path, tensors, meta | {"caution": json.dumps(caution.to_dict())})


def render(cases: Sequence[Measured], caution: Caution) -> list[str]:
    """Lines for people: the error's decrease in dB by kind, median and worst, without caution and with it."""
    lines = []
    for kind in sorted({case.kind for case in cases}):
        mine = [case for case in cases if case.kind == kind]
        free = [case.gain_db(1.0) for case in mine]
        held = [case.gain_db(caution.share(case.heard[None], True)[0]) for case in mine]
        lines.append(
            f"{kind:26} {np.median(free):+6.2f} (worst {min(free):+6.2f}) -> {np.median(held):+6.2f} "
            f"(worst {min(held):+6.2f}) dB"
        )
    return lines


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="cases that nothing is reported on")
    parser.add_argument("--bundle", type=Path, default=base_bundle())
    parser.add_argument("--adapter", type=Path, default=None, help="an adapter on that bundle, for its own caution")
    parser.add_argument("--own", default=None, help="the kind of case that the adapter is for")
    parser.add_argument("--most", type=int, default=None, help="cases of each kind and folder (all)")
    parser.add_argument("--most-own", type=int, default=None, help="the same of that kind (as --most)")
    parser.add_argument("--recipe", type=Path, default=None, help="that adapter's recipe.toml, in place of --own")
    parser.add_argument(
        "--ramp", type=float, nargs=2, metavar=("CLOSED", "OPENED"), default=None,
        help="severities that the gate lets nothing and all of the change through at, with the mixture (the recipe's, "
        "or those of the caution before)",
    )  # fmt: skip
    parser.add_argument(
        "--count", nargs=2, metavar=("KIND", "TIMES"), action="append", default=[],
        help="this kind of case counts so many times as it else would (the recipe's)",
    )  # fmt: skip
    parser.add_argument(
        "--real", type=Path, nargs="+", default=[], metavar="FOLDER", help="more cases, real separators' stems alone"
    )
    parser.add_argument(
        "--contested", type=float, default=None,
        help="factor of the share where stem and rest are about as loud in the lowest band (as before, else 1)",
    )  # fmt: skip
    parser.add_argument("--with-mix-only", action="store_true", help="leave what is without the mixture as it was")
    parser.add_argument("--keep", type=Path, default=None, help="folder for what was measured; read where it is there")
    given = parser.parse_args(arguments)
    own, recorded, limits, counts = given.own, RECORDED, given.ramp, {}
    try:
        if given.recipe is not None:
            recipe = load_options(given.recipe)
            own, recorded, limits = recipe.adapter, recipe.recorded, limits or recipe.ramp
            counts = dict(recipe.counts)
        before = Bundle.load(given.bundle).caution
        if given.adapter is not None:
            before = Adapter.load(given.adapter).caution
        known = None if before is None else before.ramps[0]
        ramps: tuple[Ramp, Ramp | None] = (Ramp.of(limits) if limits else known or Ramp(), Ramp())
        counts |= {kind: _times(kind, text) for kind, text in given.count}
        most = {} if own is None or given.most_own is None else {own: given.most_own}
        if given.with_mix_only and before is None:
            raise TrainingError("--with-mix-only: there is no caution yet that could be left as it was")
        cases = [case for folder in given.folders for case in some_of(written_cases(folder), given.most, most)]
        for folder in given.real:
            real = [case for case in written_cases(folder) if case[0].startswith(REAL)]
            cases += some_of(real, given.most, most)
        if given.keep is None:  # before all is measured
            _check_counts(counts, {kind for kind, _ in cases} | {CLEAN})
        rows = []
        for with_mix in (True,) if given.with_mix_only else (True, False):
            kept = None if given.keep is None else given.keep / f"open-{'with' if with_mix else 'without'}-mix.npz"
            if kept is not None and kept.exists():
                found = read_measured(kept)
            else:
                found = measure_all(cases, given.bundle, with_mix, given.adapter)
                if kept is not None:
                    write_measured(kept, found)
            _check_counts(counts, {case.kind for case in found})
            knots = KNOTS if with_mix else ALIKE
            found = [case.through(ramps[0 if with_mix else 1]) for case in found]
            rows.append(fit_weights(found, own=own, recorded=recorded, knots=knots, counts=counts))
            print("with the mixture" if with_mix else "without it", flush=True)
            print("\n".join(render(found, Caution(STARTS, rows[-1], rows[-1][0], knots=knots))), flush=True)
        if given.with_mix_only and before is not None:
            rows.append(before.without_mix[None])
            ramps = (ramps[0], before.ramps[1])
        contested = given.contested if given.contested is not None else 1.0 if before is None else before.contested
        caution = Caution(STARTS, rows[0], rows[1][0], ramps, KNOTS, contested)
        if given.adapter is not None:
            write_adapter_caution(given.adapter, caution)
        else:
            write_caution(given.bundle, caution)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


def _check_counts(counts: Mapping[str, float], kinds: set[str]) -> None:
    if strange := sorted(set(counts) - kinds):
        raise TrainingError(f"counts: no case is of {', '.join(strange)}; there are {', '.join(sorted(kinds))}")


def _times(kind: str, text: str) -> float:
    try:
        times = float(text)
    except ValueError:
        times = 0.0
    if not 0.0 < times < float("inf"):
        raise TrainingError(f"--count {kind} {text}: give a number over 0")
    return times


def some_of(
    cases: Sequence[tuple[str, Path]], most: int | None, other: Mapping[str, int] | None = None
) -> list[tuple[str, Path]]:
    """`most` of each kind, or as many as `other` says of it, evenly spread."""
    chosen = []
    for kind in dict.fromkeys(kind for kind, _ in cases):
        mine = [case for case in cases if case[0] == kind]
        chosen += [mine[i] for i in spread(list(range(len(mine))), (other or {}).get(kind, most))]
    return chosen


if __name__ == "__main__":
    main()
