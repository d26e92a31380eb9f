"""Fits how much of a model's correction is let through (engine/trust.py) on held-out cases, and writes the trust curve
into the bundle or into an adapter's file.

    python -m stemprover.engine.train.fit_trust cases/valid cases/valid-other --bundle presets/base
    python -m stemprover.engine.train.fit_trust cases/valid --adapter presets/bleed/adapter.safetensors --own bleed

In each band and frame let c be the correction, e the error of the stem, and a(evidence) the amount of the correction
that is let through; the remaining error is |e - a c|^2. A case counts twice: in its spectra, where a wrong phase costs
as much as a wrong magnitude and the loud bands decide, and in its loudness, taken as |X|^0.3 (the compression of Ephrat
et al., Looking to listen at the cocktail party, 2018), where a hole costs about what it costs the ear. As a is linear
in the evidence, its weights solve a least-squares problem for each group of bands, summed over the cases, each divided
by its own error. A ridge pulls the weights towards the constant amount PRIOR. Every kind of case counts the same,
however many cases it has, except that real separators' stems and true stems count RECORDED times, and the kinds of
fault that an adapter repairs OWN times.

What is printed was not fitted: the mechanisms are split into thirds, and each third is shown with the curve of the
other two.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from ..adapters import write_adapter
from ..bundle import base_bundle
from ..constants import MODEL_RATE
from ..dsp.stft import Stft, whole_stft
from ..errors import StemProverError, TrainingError
from ..features import FeatureMaker
from ..repair import Repairer
from ..stem_names import role_of
from ..trust import EVIDENCE, TERMS, TrustCurve, evidence, highest_within
from .cases import CLEAN, mechanism_of, read_case, select_cases, written_cases

STARTS = (0, 4, 8, 12, 16, 22, 32, 40, 52, 64)  # first band of each group
PRIOR, RIDGE, RECORDED, OWN = 0.4, 0.02, 3.0, 50.0
LOSS_DB, HARM, ROUNDS = 0.05, 1.2, 6  # a case worse by LOSS_DB counts HARM times as much in the next of ROUNDS fits
CLEAN_DB = -30.0
LOUDNESS = 0.3  # exponent of magnitudes
DOMAINS = ("spectrum", "loudness")
FAINT_DB = -35.0
REAL = ("separated-", "four-stems-")
THIRDS = 3


@dataclass(frozen=True)
class MeasuredCase:
    """What one case says about the correction c where the error is e: evidence (8, K, N), agreement <e, c> and power
    |c|^2 (K, N), and the whole error |e|^2. mechanism: what made the fault, as far as the case's name says it. domain:
    one of DOMAINS.

    The error is at least FAINT_DB of the true stem's power, so that inaudible faults do not outweigh audible ones. For
    a true stem, which has no error, it is CLEAN_DB of its power: as much as a repair may change of it.
    """

    kind: str
    mechanism: str
    evidence: np.ndarray
    agreement: np.ndarray
    power: np.ndarray
    error: float
    domain: str = DOMAINS[0]

    def gain_db(self, amount: np.ndarray | float) -> float:
        """By how many dB the error falls if this amount of the correction is let through."""
        left = self.error - 2.0 * float(np.sum(amount * self.agreement)) + float(np.sum(amount * amount * self.power))
        return float(10 * np.log10(self.error / max(left, 1e-12 * self.error)))


def measure(
    repairer: Repairer, kind: str, truth: np.ndarray, degraded: np.ndarray, mix: np.ndarray | None, *,
    mechanism: str = "", role: str | None = None,
) -> list[MeasuredCase]:  # fmt: skip
    """One case from waveforms (2, T) at 44.1 kHz in all DOMAINS, a true stem in its spectra only; `repairer` without
    trust (restrained=False). Empty for a silent true stem without an error."""
    bundle = repairer.runtime.bundle
    stft, maker, layout = Stft(bundle.stft), FeatureMaker(bundle.latent, bundle.stft), bundle.latent.layout
    after = repairer.process(degraded, MODEL_RATE, mix, role=role)
    sounds = [whole_stft(stft, audio) for audio in (truth, degraded, after)]
    mix_spectrum = None if mix is None else whole_stft(stft, mix)[None]
    rows = evidence(maker(sounds[1][None], mix_spectrum, maker.start(1))[0])[0]
    padded = np.concatenate([rows, np.repeat(rows[..., -1:], bundle.lookahead, axis=-1)], axis=-1)
    highest = highest_within(padded, bundle.lookahead)
    found = []
    for domain in DOMAINS[:1] if kind == CLEAN else DOMAINS:
        true, stem, repaired = sounds if domain == "spectrum" else [np.abs(x) ** LOUDNESS for x in sounds]
        wrong, correction = true - stem, repaired - stem
        error, true_power = (float(np.sum(np.abs(x) ** 2)) for x in (wrong, true))
        error = max(error, 10 ** ((FAINT_DB if error else CLEAN_DB) / 10) * true_power)
        if error:
            by_bin = ((wrong * correction.conj()).real, np.abs(correction) ** 2)
            agreement, power = (layout.sum(x.sum(axis=0)) for x in by_bin)
            found.append(MeasuredCase(kind, mechanism or kind, highest, agreement, power, error, domain))
    return found


def fit_weights(cases: Sequence[MeasuredCase], starts: Sequence[int] = STARTS, own: Collection[str] = ()) -> np.ndarray:
    """Weights (groups, 9) of a `TrustCurve`. A case that gets worse counts HARM times as much in the next of ROUNDS
    rounds, each time that it does. own: kinds of case that an adapter repairs."""
    numbers = {kind: sum(case.kind == kind for case in cases) for kind in {case.kind for case in cases}}
    worth = {kind: RECORDED if kind.startswith((*REAL, CLEAN)) else OWN if kind in own else 1.0 for kind in numbers}
    scales = np.array([worth[case.kind] / numbers[case.kind] / case.error for case in cases])
    parts = [_normal(case, starts) for case in cases]
    weights = _solve(parts, scales)
    for _ in range(ROUNDS):
        curve = TrustCurve(tuple(starts), weights, weights)
        gains = np.array([case.gain_db(curve.amount(case.evidence[None], True)[0]) for case in cases])
        if not (gains < -LOSS_DB).any():
            break
        scales = np.where(gains < -LOSS_DB, HARM, 1.0) * scales
        weights = _solve(parts, scales)
    return weights


def _normal(case: MeasuredCase, starts: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """A case's part of the normal equations, matrix and right-hand side, for each group of bands."""
    parts = []
    for low, high in zip(starts, [*starts[1:], len(case.power)], strict=True):
        rows = case.evidence[:, low:high].astype(float).reshape(len(EVIDENCE), -1)
        known = np.concatenate([np.ones_like(rows[:1]), rows])
        power, agreement = case.power[low:high].reshape(-1), case.agreement[low:high].reshape(-1)
        parts.append(((known * power) @ known.T, known @ agreement))
    return parts


def _solve(parts: Sequence[list[tuple[np.ndarray, np.ndarray]]], scales: np.ndarray) -> np.ndarray:
    count = len(TERMS)
    prior = PRIOR * np.eye(1, count)[0]
    rows = []
    for group in zip(*parts, strict=True):
        normal, wanted = np.zeros((count, count)), np.zeros(count)
        for scale, (matrix, right) in zip(scales, group, strict=True):
            normal, wanted = normal + scale * matrix, wanted + scale * right
        ridge = (RIDGE * np.trace(normal) / count + 1e-12) * np.eye(count)
        rows.append(prior + np.linalg.solve(normal + ridge, wanted - normal @ prior))
    return np.array(rows)


def measure_all(
    cases: Sequence[tuple[str, Path]], bundle: Path, with_mix: bool, adapter: Path | None = None
) -> list[MeasuredCase]:
    """`measure` for all cases, and once for each of their true stems. Raises TrainingError if none of them has an
    error."""
    repairer = Repairer(bundle=bundle, blend={adapter: 1.0} if adapter else {}, restrained=False)
    found: list[MeasuredCase] = []
    true_stems = set()
    for kind, folder in cases:
        audio = read_case(folder)
        truth, mix = audio["truth"], audio["mix"] if with_mix else None
        role = role_of(folder.name, kind)
        made_by = mechanism_of(folder.name)
        found += measure(repairer, kind, truth, audio["degraded"], mix, mechanism=made_by, role=role)
        if (same := hash(truth.tobytes())) not in true_stems:
            true_stems.add(same)
            found += measure(repairer, CLEAN, truth, truth, mix, mechanism=folder.name, role=role)
    if not found:
        raise TrainingError("none of the cases has a fault to measure; use cases with a degraded stem")
    return found


def unseen_amounts(cases: Sequence[MeasuredCase], own: Collection[str] = ()) -> list[np.ndarray]:
    """The amounts (K, N) for each case by a curve that was fitted without its mechanism: the mechanisms of each kind
    are split into THIRDS."""
    mechanisms = sorted({(case.kind, case.mechanism) for case in cases})
    part = {each: number % THIRDS for number, each in enumerate(mechanisms)}
    parts = [part[case.kind, case.mechanism] for case in cases]
    amounts: list[np.ndarray] = [np.empty(0)] * len(cases)
    for third in set(parts):
        others = [case for case, mine in zip(cases, parts, strict=True) if mine != third] or cases
        weights = fit_weights(others, own=own)
        curve = TrustCurve(STARTS, weights, weights)
        for number, (case, mine) in enumerate(zip(cases, parts, strict=True)):
            if mine == third:
                amounts[number] = curve.amount(case.evidence[None], True)[0]
    return amounts


def write_measured(path: Path, cases: Sequence[MeasuredCase]) -> None:
    """Save measured cases, in single precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for i, case in enumerate(cases):
        arrays |= {
            f"{i:05d}.about": np.array([case.kind, case.mechanism, repr(case.error), case.domain]),
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
            if count and len(file["00000.evidence"]) != len(EVIDENCE):
                raise ValueError("written by another version")
            found = []
            for i in range(count):
                kind, mechanism, error, domain = map(str, file[f"{i:05d}.about"])
                rows, agreement, power = (file[f"{i:05d}.{name}"] for name in ("evidence", "agreement", "power"))
                found.append(MeasuredCase(kind, mechanism, rows, agreement, power, float(error), domain))
            return found
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


def render(cases: Sequence[MeasuredCase], amounts: Sequence[np.ndarray]) -> list[str]:
    """Lines for people: for each kind of case and domain the improvement in dB, median and worst, with the whole
    correction and with these amounts of it."""
    lines = []
    for domain, kind in sorted({(case.domain, case.kind) for case in cases}):
        pairs = zip(cases, amounts, strict=True)
        mine = [(case, amount) for case, amount in pairs if (case.domain, case.kind) == (domain, kind)]
        whole = [case.gain_db(1.0) for case, _ in mine]
        trusted = [case.gain_db(amount) for case, amount in mine]
        lines.append(
            f"{domain} {kind:26} {np.median(whole):+6.2f} (worst {min(whole):+6.2f}) -> {np.median(trusted):+6.2f} "
            f"(worst {min(trusted):+6.2f}) dB"
        )
    return lines


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="held-out cases; do not report results on them")
    parser.add_argument("--bundle", type=Path, default=base_bundle(), help="the model (the shipped base)")
    parser.add_argument("--adapter", type=Path, default=None, help="fit the trust curve of this adapter on that bundle")
    parser.add_argument("--own", nargs="+", default=[], metavar="KIND", help="kinds of case that the adapter repairs")
    parser.add_argument("--most", type=int, default=None, help="cases of each kind and folder (all)")
    parser.add_argument("--keep", type=Path, default=None, help="folder to save the measurements in, or to reuse them")
    given = parser.parse_args(arguments)
    try:
        _run(given)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


def _run(given: argparse.Namespace) -> None:
    cases = [case for folder in given.folders for case in select_cases(written_cases(folder), given.most)]
    kinds = {kind for kind, _ in cases}
    if strange := sorted(set(given.own) - kinds):
        raise TrainingError(f"--own: no case is of kind {', '.join(strange)}; choose from {', '.join(sorted(kinds))}")
    rows = []
    for with_mix in (True, False):
        kept = None if given.keep is None else given.keep / f"{'with' if with_mix else 'without'}-mix.npz"
        if kept is not None and kept.exists():
            found = read_measured(kept)
        else:
            found = measure_all(cases, given.bundle, with_mix, given.adapter)
            if kept is not None:
                write_measured(kept, found)
        print("with the mix:" if with_mix else "without the mix:", flush=True)
        print("\n".join(render(found, unseen_amounts(found, given.own))), flush=True)
        rows.append(fit_weights(found, own=given.own))
    trust_curve = TrustCurve(STARTS, *rows)
    if given.adapter is not None:
        write_adapter_trust_curve(given.adapter, trust_curve)
    else:
        write_bundle_trust_curve(given.bundle, trust_curve)


if __name__ == "__main__":
    main()
