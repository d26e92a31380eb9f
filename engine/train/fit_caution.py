"""Fits how much of a model's change is let through (`engine/gate.py`), on held-out cases; writes it into the bundle, or
into an adapter's file.

    python -m stemprover.engine.train.fit_caution cases/valid cases/valid-other --bundle presets/base
    python -m stemprover.engine.train.fit_caution cases/valid cases/valid-other \\
        --adapter presets/bleed/adapter.safetensors --recipe presets/bleed/recipe.toml

In each band and frame let c be the model's change, e what was wrong with the stem, and s(evidence) the share: the
error that is left is |e - s c|^2. With s linear in the evidence the best weights are those of a least-squares problem
for each group of bands, summed over cases, each over its own error. Real separators count RECORDED times a simulated
fault, or as often as the adapter's recipe says, an adapter's own one OWN times, and a ridge draws the weights to a
share of PRIOR whatever the evidence.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ..bundle import Adapter, Bundle, base_bundle
from ..errors import StemProverError, TrainingError
from ..features import FeatureMaker
from ..gate import EVIDENCE, Caution, Gate, evidence, most_within
from ..repair import MODEL_RATE, Repairer
from ..stft import Stft, whole_stft
from .cases import read_case, spread, written_cases
from .options import TrainOptions
from .settings import load_options

STARTS = (0, 4, 8, 12, 16, 22, 32, 40, 52, 64)
PRIOR, RIDGE, RECORDED, OWN = 0.4, 0.02, TrainOptions.recorded, 50.0
LOSS_DB, HARM, ROUNDS = 0.05, 1.5, 6
CLEAN, CLEAN_DB = "clean", -30.0
REAL = ("separated-", "four-stems-")


@dataclass(frozen=True)
class Measured:
    """One case: heard (6, K, N), <e, c> and |c|^2 (K, N) through the gate's ramp, |e|^2 in all (of a true stem, which
    has no error, CLEAN_DB of its power: what may be changed of it)."""

    kind: str
    heard: np.ndarray
    right: np.ndarray
    size: np.ndarray
    error: float

    def gain_db(self, share: np.ndarray | float) -> float:
        """By how much the error gets smaller if this share of the change is let through."""
        left = self.error - 2.0 * float(np.sum(share * self.right)) + float(np.sum(share * share * self.size))
        return float(10 * np.log10(self.error / max(left, 1e-12 * self.error)))


def measure(
    repairer: Repairer, kind: str, truth: np.ndarray, degraded: np.ndarray, mix: np.ndarray | None, gated: bool = True
) -> Measured | None:
    """Sounds (2, T) at 44.1 kHz; `repairer` without its gate; `gated` as in Caution. None for a silent true stem where
    nothing is wrong."""
    bundle = repairer.runtime.bundle
    stft, maker, layout = Stft(bundle.stft), FeatureMaker(bundle.latent, bundle.stft), bundle.latent.layout
    after = repairer.process(degraded, MODEL_RATE, mix)
    true, stem, made = (whole_stft(stft, sound) for sound in (truth, degraded, after))
    wrong, change = true - stem, made - stem
    error = float(np.sum(np.abs(wrong) ** 2))
    if error == 0.0:
        error = 10 ** (CLEAN_DB / 10) * float(np.sum(np.abs(true) ** 2))
    if error == 0.0:
        return None
    song = None if mix is None else whole_stft(stft, mix)[None]
    seen = evidence(maker(stem[None], song, maker.start(1))[0].control)[0]
    padded = np.concatenate([seen, np.repeat(seen[..., -1:], bundle.lookahead, axis=-1)], axis=-1)
    heard = most_within(padded, bundle.lookahead)
    ramp = Gate().ramp(heard[None])[0] if gated else 1.0
    starts = np.concatenate([[0], np.cumsum(layout.widths)[:-1]])
    right = np.add.reduceat((wrong * change.conj()).real.sum(axis=0), starts, axis=0)
    size = np.add.reduceat((np.abs(change) ** 2).sum(axis=0), starts, axis=0)
    return Measured(kind, heard, ramp * right, ramp * ramp * size, error)


def fit_weights(
    cases: Sequence[Measured], starts: Sequence[int] = STARTS, own: str | None = None, recorded: float = RECORDED
) -> np.ndarray:
    """Weights (groups, 7) for `Caution`. Every kind counts alike, but real separators' stems `recorded` times and an
    adapter's `own` kind OWN times; a case that loses counts HARM times as much in the next of ROUNDS rounds, each time
    that it does."""
    counts = {kind: sum(case.kind == kind for case in cases) for kind in {case.kind for case in cases}}
    worth = {kind: recorded if kind.startswith((*REAL, CLEAN)) else OWN if kind == own else 1.0 for kind in counts}
    scales = np.array([worth[case.kind] / counts[case.kind] / case.error for case in cases])
    weights = _solve(cases, scales, starts)
    for _ in range(ROUNDS):
        caution = Caution(tuple(starts), weights, weights)
        gains = np.array([case.gain_db(caution.share(case.heard[None], True)[0]) for case in cases])
        if not (gains < -LOSS_DB).any():
            break
        scales = np.where(gains < -LOSS_DB, HARM, 1.0) * scales
        weights = _solve(cases, scales, starts)
    return weights


def _solve(cases: Sequence[Measured], scales: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    bands, terms = cases[0].size.shape[0], len(EVIDENCE)
    prior = np.array([PRIOR] + [0.0] * (terms - 1))
    rows = []
    for low, high in zip(starts, [*starts[1:], bands], strict=True):
        normal, wanted = np.zeros((terms, terms)), np.zeros(terms)
        for case, scale in zip(cases, scales, strict=True):
            heard = case.heard[:, low:high].astype(float)
            known = np.concatenate([np.ones_like(heard[:1]), heard]).reshape(terms, -1)
            normal += scale * (known * case.size[low:high].reshape(-1)) @ known.T
            wanted += scale * known @ case.right[low:high].reshape(-1)
        ridge = (RIDGE * np.trace(normal) / terms + 1e-12) * np.eye(terms)
        rows.append(prior + np.linalg.solve(normal + ridge, wanted - normal @ prior))
    return np.array(rows)


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
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, part, metadata=meta | {"caution": json.dumps(caution.to_dict())})
    os.replace(part, path)


def render(cases: Sequence[Measured], weights: np.ndarray) -> list[str]:
    """Lines for people: the error's decrease in dB by kind, median and worst, without caution and with it."""
    caution = Caution(STARTS, weights, weights)
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
    parser.add_argument("--recipe", type=Path, default=None, help="that adapter's recipe.toml, in place of --own")
    given = parser.parse_args(arguments)
    own, recorded = given.own, RECORDED
    try:
        if given.recipe is not None:
            recipe = load_options(given.recipe)
            own, recorded = recipe.adapter, recipe.recorded
        Bundle.load(given.bundle)
        if given.adapter is not None:
            Adapter.load(given.adapter)
        cases = [case for folder in given.folders for case in some_of(written_cases(folder), given.most)]
        rows = []
        for with_mix in (True, False):
            found = measure_all(cases, given.bundle, with_mix, given.adapter)
            rows.append(fit_weights(found, own=own, recorded=recorded))
            print("with the mixture" if with_mix else "without it", flush=True)
            print("\n".join(render(found, rows[-1])), flush=True)
        caution = Caution(STARTS, rows[0], rows[1])
        if given.adapter is not None:
            write_adapter_caution(given.adapter, caution)
        else:
            write_caution(given.bundle, caution)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


def some_of(cases: Sequence[tuple[str, Path]], most: int | None) -> list[tuple[str, Path]]:
    """`most` of each kind, evenly spread."""
    chosen = []
    for kind in dict.fromkeys(kind for kind, _ in cases):
        mine = [case for case in cases if case[0] == kind]
        chosen += [mine[i] for i in spread(list(range(len(mine))), most)]
    return chosen


if __name__ == "__main__":
    main()
