"""Fits how much of a model's correction is let through (engine/trust.py) on held-out cases, and writes the trust curve
into the bundle or into an adapter's file.

    python -m stemprover.engine.train.fit_trust cases/valid cases/valid-other --bundle presets/base
    python -m stemprover.engine.train.fit_trust cases/valid cases/valid-other \\
        --adapter presets/bleed/adapter.safetensors --recipe presets/bleed/recipe.toml

In each band and frame let c be the correction, e the error of the stem, and a(evidence) the amount of the correction
that is let through; the remaining error is |e - a c|^2. For each knot of the mask likelihood a is linear in the
evidence, so its weights solve a least-squares problem for each group of bands, summed over the cases, each divided by
its own error. Real separators' cases count RECORDED times as much as simulated faults, or as much as the adapter's
recipe says, and an adapter's own fault counts OWN times as much. A ridge pulls the weights towards the constant amount
PRIOR.
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
from ..trust import (
    EVIDENCE_ROWS,
    MASK_LIKELIHOOD,
    TERMS,
    Ramp,
    TrustCurve,
    evidence,
    evidence_terms,
    highest_within,
    knot_weights,
)
from .cases import CLEAN, read_case, select_cases, written_cases
from .options import TrainOptions, load_options

STARTS = (0, 4, 8, 12, 16, 22, 32, 40, 52, 64)  # first band of each group
KNOTS, ONE_KNOT = (0.0, 0.25, 0.5, 0.75), (0.0,)  # mask likelihoods; a single knot treats all stems alike
PRIOR, RIDGE, RECORDED, OWN = 0.4, 0.02, TrainOptions.recorded, 50.0
LOSS_DB, HARM, ROUNDS = 0.05, 1.5, 6  # a case worse by LOSS_DB counts HARM times as much in the next of ROUNDS fits
CLEAN_DB = -30.0
FAINT_DB = -25.0
REAL = ("separated-", "four-stems-")


@dataclass(frozen=True)
class MeasuredCase:
    """What one case says about the correction: evidence (8, K, N), agreement <e, c> and power |c|^2 (K, N), and the
    whole error |e|^2.

    The error is at least FAINT_DB of the true stem's power, so that inaudible faults do not outweigh audible ones. For
    a true stem, which has no error, it is CLEAN_DB of its power: as much as a repair may change of it.
    """

    kind: str
    evidence: np.ndarray
    agreement: np.ndarray
    power: np.ndarray
    error: float

    def gain_db(self, amount: np.ndarray | float) -> float:
        """By how many dB the error falls if this amount of the correction is let through."""
        left = self.error - 2.0 * float(np.sum(amount * self.agreement)) + float(np.sum(amount * amount * self.power))
        return float(10 * np.log10(self.error / max(left, 1e-12 * self.error)))

    def through(self, ramp: Ramp | None) -> MeasuredCase:
        """The same for what this ramp lets through of the correction."""
        if ramp is None:
            return self
        part = ramp(self.evidence[None])[0]
        return replace(self, agreement=part * self.agreement, power=part * part * self.power)


def measure(
    repairer: Repairer, kind: str, truth: np.ndarray, degraded: np.ndarray, mix: np.ndarray | None
) -> MeasuredCase | None:
    """One case from waveforms (2, T) at 44.1 kHz; `repairer` without trust (restrained=False). None for a silent true
    stem without an error."""
    bundle = repairer.runtime.bundle
    stft, maker, layout = Stft(bundle.stft), FeatureMaker(bundle.latent, bundle.stft), bundle.latent.layout
    after = repairer.process(degraded, MODEL_RATE, mix)
    true, stem, repaired = (whole_stft(stft, audio) for audio in (truth, degraded, after))
    wrong, correction = true - stem, repaired - stem
    error, true_power = (float(np.sum(np.abs(x) ** 2)) for x in (wrong, true))
    error = max(error, 10 ** ((FAINT_DB if error else CLEAN_DB) / 10) * true_power)
    if error == 0.0:
        return None
    mix_spectrum = None if mix is None else whole_stft(stft, mix)[None]
    rows = evidence(maker(stem[None], mix_spectrum, maker.start(1))[0])[0]
    padded = np.concatenate([rows, np.repeat(rows[..., -1:], bundle.lookahead, axis=-1)], axis=-1)
    highest = highest_within(padded, bundle.lookahead)
    agreement, power = (layout.sum(x.sum(axis=0)) for x in ((wrong * correction.conj()).real, np.abs(correction) ** 2))
    return MeasuredCase(kind, highest, agreement, power, error)


def fit_weights(
    cases: Sequence[MeasuredCase], starts: Sequence[int] = STARTS, own: str | None = None, recorded: float = RECORDED,
    knots: tuple[float, ...] = KNOTS, counts: Mapping[str, float] | None = None,
) -> np.ndarray:  # fmt: skip
    """Weights (knots, groups, 8) of a `TrustCurve`, from cases `through` its ramp.

    Every kind of case counts the same, however many cases it has, except that real separators' stems count `recorded`
    times, an adapter's `own` kind OWN times, and the kinds in `counts` as many times more as given there. A case that
    gets worse counts HARM times as much in the next of ROUNDS rounds, each time that it does.
    """
    numbers = {kind: sum(case.kind == kind for case in cases) for kind in {case.kind for case in cases}}
    worth = {kind: recorded if kind.startswith((*REAL, CLEAN)) else OWN if kind == own else 1.0 for kind in numbers}
    worth = {kind: times * (counts or {}).get(kind, 1.0) for kind, times in worth.items()}
    scales = np.array([worth[case.kind] / numbers[case.kind] / case.error for case in cases])
    parts = [_normal(case, starts, knots) for case in cases]
    weights = _solve(parts, scales, len(knots))
    for _ in range(ROUNDS):
        curve = TrustCurve(tuple(starts), weights, weights[0], knots=knots)
        gains = np.array([case.gain_db(curve.amount(case.evidence[None], True)[0]) for case in cases])
        if not (gains < -LOSS_DB).any():
            break
        scales = np.where(gains < -LOSS_DB, HARM, 1.0) * scales
        weights = _solve(parts, scales, len(knots))
    return weights


def _normal(case: MeasuredCase, starts: Sequence[int], knots: tuple[float, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """A case's part of the normal equations, matrix and right-hand side, for each group of bands."""
    parts = []
    for low, high in zip(starts, [*starts[1:], len(case.power)], strict=True):
        rows = case.evidence[:, low:high].astype(float)
        near = np.stack(knot_weights(rows[MASK_LIKELIHOOD], knots))
        known = (near[:, None] * evidence_terms(rows)).reshape(len(knots) * len(TERMS), -1)
        power, agreement = case.power[low:high].reshape(-1), case.agreement[low:high].reshape(-1)
        parts.append(((known * power) @ known.T, known @ agreement))
    return parts


def _solve(parts: Sequence[list[tuple[np.ndarray, np.ndarray]]], scales: np.ndarray, knots: int) -> np.ndarray:
    every = knots * len(TERMS)
    prior = np.tile([PRIOR] + [0.0] * (len(TERMS) - 1), knots)
    rows = []
    for group in zip(*parts, strict=True):
        normal, wanted = np.zeros((every, every)), np.zeros(every)
        for scale, (matrix, right) in zip(scales, group, strict=True):
            normal, wanted = normal + scale * matrix, wanted + scale * right
        ridge = (RIDGE * np.trace(normal) / every + 1e-12) * np.eye(every)
        rows.append(prior + np.linalg.solve(normal + ridge, wanted - normal @ prior))
    return np.array(rows).reshape(-1, knots, len(TERMS)).transpose(1, 0, 2)


def measure_all(
    cases: Sequence[tuple[str, Path]], bundle: Path, with_mix: bool, adapter: Path | None = None
) -> list[MeasuredCase]:
    """`measure` for all cases, and for the true stems of real separators' cases. Raises TrainingError if none of them
    has an error."""
    repairer = Repairer(bundle=bundle, blend={adapter: 1.0} if adapter else {}, restrained=False)
    found = []
    for kind, folder in cases:
        audio = read_case(folder)
        truth, mix = audio["truth"], audio["mix"] if with_mix else None
        found.append(measure(repairer, kind, truth, audio["degraded"], mix))
        if kind.startswith(REAL):
            found.append(measure(repairer, CLEAN, truth, truth, mix))
    measured = [case for case in found if case is not None]
    if not measured:
        raise TrainingError("none of the cases has a fault to measure; use cases with a degraded stem")
    return measured


def write_measured(path: Path, cases: Sequence[MeasuredCase]) -> None:
    """Save measured cases, in single precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for i, case in enumerate(cases):
        arrays |= {
            f"{i:05d}.about": np.array([case.kind, repr(case.error)]),
            f"{i:05d}.evidence": case.evidence.astype(np.float32),
            f"{i:05d}.agreement": case.agreement.astype(np.float32),
            f"{i:05d}.power": case.power.astype(np.float32),
        }
    part = path.with_name(f".{path.stem}.part.npz")
    np.savez(part, allow_pickle=False, **arrays)
    os.replace(part, path)


def read_measured(path: Path) -> list[MeasuredCase]:
    """The cases that `write_measured` saved. Raises TrainingError."""
    try:
        with np.load(path) as file:
            count = len(file.files) // 4
            if count and len(file["00000.evidence"]) != EVIDENCE_ROWS:
                raise ValueError("written by another version")
            return [
                MeasuredCase(
                    str(file[f"{i:05d}.about"][0]), file[f"{i:05d}.evidence"], file[f"{i:05d}.agreement"],
                    file[f"{i:05d}.power"], float(file[f"{i:05d}.about"][1]),
                )
                for i in range(count)
            ]  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} cannot be read as measured cases ({error}); delete it") from error


def write_bundle_trust_curve(folder: Path, trust_curve: TrustCurve) -> None:
    """Put the trust curve into bundle.json, atomically."""
    path = folder / "bundle.json"
    about = json.loads(path.read_text())
    about["trust"] = trust_curve.to_dict()
    part = path.with_suffix(".part")
    part.write_text(json.dumps(about, indent=1) + "\n")
    os.replace(part, path)


def write_adapter_trust_curve(path: Path, trust_curve: TrustCurve) -> None:
    """Put the trust curve into the metadata of an adapter's file, atomically."""
    with safe_open(path, framework="np") as file:
        meta = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - the handle is not a mapping
    write_adapter(path, tensors, meta | {"trust": json.dumps(trust_curve.to_dict())})


def render(cases: Sequence[MeasuredCase], trust_curve: TrustCurve) -> list[str]:
    """Lines for people: for each kind of case the improvement in dB, median and worst, with the whole correction and
    with the amount that the trust curve lets through."""
    lines = []
    for kind in sorted({case.kind for case in cases}):
        mine = [case for case in cases if case.kind == kind]
        whole = [case.gain_db(1.0) for case in mine]
        trusted = [case.gain_db(trust_curve.amount(case.evidence[None], True)[0]) for case in mine]
        lines.append(
            f"{kind:26} {np.median(whole):+6.2f} (worst {min(whole):+6.2f}) -> {np.median(trusted):+6.2f} "
            f"(worst {min(trusted):+6.2f}) dB"
        )
    return lines


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="held-out cases; do not report results on them")
    parser.add_argument("--bundle", type=Path, default=base_bundle(), help="the model (the shipped base)")
    parser.add_argument("--adapter", type=Path, default=None, help="fit the trust curve of this adapter on that bundle")
    parser.add_argument("--own", default=None, help="the kind of case that the adapter repairs")
    parser.add_argument("--most", type=int, default=None, help="cases of each kind and folder (all)")
    parser.add_argument("--most-own", type=int, default=None, help="the same for the kind that the adapter repairs")
    parser.add_argument("--recipe", type=Path, default=None, help="the adapter's recipe.toml, instead of --own")
    parser.add_argument(
        "--ramp", type=float, nargs=2, metavar=("CLOSED", "OPENED"), default=None,
        help="severities at which the detectors let through nothing and all of the correction, with the mix (the "
        "recipe's, or those of the present trust curve)",
    )  # fmt: skip
    parser.add_argument(
        "--count", nargs=2, metavar=("KIND", "TIMES"), action="append", default=[],
        help="count this kind of case this many times as much (the recipe's)",
    )  # fmt: skip
    parser.add_argument(
        "--real", type=Path, nargs="+", default=[], metavar="FOLDER", help="more cases; only real separators' are used"
    )
    parser.add_argument(
        "--contested", type=float, default=None,
        help="factor on the amount where stem and residual are about equally loud in the lowest band (the present "
        "curve's, or 1)",
    )  # fmt: skip
    parser.add_argument("--with-mix-only", action="store_true", help="keep the weights used without the mix")
    parser.add_argument("--keep", type=Path, default=None, help="folder to save the measurements in, or to reuse them")
    given = parser.parse_args(arguments)
    try:
        _run(given)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


def _run(given: argparse.Namespace) -> None:
    own, recorded, limits, counts = given.own, RECORDED, given.ramp, {}
    if given.recipe is not None:
        recipe = load_options(given.recipe)
        own, recorded, limits = recipe.adapter, recipe.recorded, limits or recipe.ramp
        counts = dict(recipe.counts)
    before = Bundle.load(given.bundle).trust_curve
    if given.adapter is not None:
        before = Adapter.load(given.adapter).trust_curve
    known = None if before is None else before.ramps[0]
    ramps: tuple[Ramp, Ramp | None] = (Ramp.of(limits) if limits else known or Ramp(), Ramp())
    counts |= {kind: _times(kind, text) for kind, text in given.count}
    most = {} if own is None or given.most_own is None else {own: given.most_own}
    if given.with_mix_only and before is None:
        raise TrainingError("--with-mix-only: there is no trust curve yet to keep a part of; fit both parts first")
    cases = [case for folder in given.folders for case in select_cases(written_cases(folder), given.most, most)]
    for folder in given.real:
        real = [case for case in written_cases(folder) if case[0].startswith(REAL)]
        cases += select_cases(real, given.most, most)
    if given.keep is None:  # before measuring, which takes long
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
        knots = KNOTS if with_mix else ONE_KNOT
        found = [case.through(ramps[0 if with_mix else 1]) for case in found]
        rows.append(fit_weights(found, own=own, recorded=recorded, knots=knots, counts=counts))
        print("with the mix:" if with_mix else "without the mix:", flush=True)
        print("\n".join(render(found, TrustCurve(STARTS, rows[-1], rows[-1][0], knots=knots))), flush=True)
    if given.with_mix_only and before is not None:
        rows.append(before.without_mix[None])
        ramps = (ramps[0], before.ramps[1])
    contested = given.contested if given.contested is not None else 1.0 if before is None else before.contested
    trust_curve = TrustCurve(STARTS, rows[0], rows[1][0], ramps, KNOTS, contested)
    if given.adapter is not None:
        write_adapter_trust_curve(given.adapter, trust_curve)
    else:
        write_bundle_trust_curve(given.bundle, trust_curve)


def _check_counts(counts: Mapping[str, float], kinds: set[str]) -> None:
    if strange := sorted(set(counts) - kinds):
        raise TrainingError(f"counts: no case is of kind {', '.join(strange)}; choose from {', '.join(sorted(kinds))}")


def _times(kind: str, text: str) -> float:
    try:
        times = float(text)
    except ValueError:
        times = 0.0
    if not 0.0 < times < float("inf"):
        raise TrainingError(f"--count {kind} {text}: use a number above 0")
    return times


if __name__ == "__main__":
    main()
