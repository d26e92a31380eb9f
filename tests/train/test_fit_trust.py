"""How much of a correction is let through: fitted to what was right, and stored in the bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import lively_net
from stemprover.engine.adapters import Adapter, active_adapters, trust_of
from stemprover.engine.bundle import Bundle
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.dsp.stft import Stft, whole_stft
from stemprover.engine.errors import ModelError
from stemprover.engine.model.lora import add_adapter, save_adapter
from stemprover.engine.repair import Repairer
from stemprover.engine.train.cases import select_cases, write_case
from stemprover.engine.train.fit_trust import (
    STARTS,
    MeasuredCase,
    fit_weights,
    main,
    measure,
    measure_all,
    read_measured,
    unseen_amounts,
    write_measured,
)
from stemprover.engine.trust import EVIDENCE, TERMS, TrustCurve

BANDS = BandLayout().bands
TERM_COUNT = len(TERMS)


def case(kind: str, amount: np.ndarray, rows: np.ndarray, seed: int = 0, mechanism: str = "") -> MeasuredCase:
    """A case in which `amount` (K, N) of the correction is right."""
    size = np.random.default_rng(seed).random(amount.shape) + 0.1
    return MeasuredCase(kind, mechanism or kind, rows, amount * size, size, float(size.sum()))


def test_the_fit_finds_which_bands_and_evidence_make_a_correction_right() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for seed in range(6):
        rows = rng.random((len(EVIDENCE), BANDS, 40))
        amount = 0.1 + 0.8 * rows[2]  # right where phasiness is severe
        amount[: STARTS[3]] = 0.25
        cases.append(case("bleed", amount, rows, seed))
    weights = fit_weights(cases)
    expected = np.zeros((len(STARTS), TERM_COUNT))
    expected[:, 0], expected[3:, 3], expected[:3, 0] = 0.1, 0.8, 0.25
    assert np.abs(weights - expected).max() < 0.12, "except for the ridge"
    trust_curve = TrustCurve(STARTS, weights, weights)
    for one in cases:
        assert one.gain_db(trust_curve.amount(one.evidence[None], True)[0]) >= one.gain_db(1.0)


def test_without_information_the_prior_remains() -> None:
    nothing = np.zeros((BANDS, 9))
    silent = MeasuredCase("bleed", "bleed", np.zeros((len(EVIDENCE), BANDS, 9)), nothing, nothing, 1.0)
    assert fit_weights([silent])[:, 0] == pytest.approx(0.4)


def test_a_mechanism_is_shown_with_a_curve_that_was_fitted_without_it() -> None:
    rows = np.random.default_rng(0).random((len(EVIDENCE), BANDS, 40))
    right = {"a": 0.9, "b": 0.9, "c": 0.1}
    cases = [
        case("bleed", np.full((BANDS, 40), amount), rows, seed, name)
        for name, amount in right.items()
        for seed in range(2)
    ]
    amounts = [found.mean() for found in unseen_amounts(cases)]
    assert max(amounts[:4]) < 0.6, "the other two disagree"
    assert amounts[4:] == pytest.approx([0.9, 0.9], abs=0.12)


@pytest.mark.parametrize("with_mix", [True, False])
def test_a_measured_case_predicts_the_gain_of_the_correction(lively_bundle: Path, with_mix: bool) -> None:
    rng = np.random.default_rng(0)
    truth, residual = (0.1 * rng.standard_normal((2, 2, 40_000))).astype(np.float32)
    degraded, mix = truth + 0.4 * residual, truth + residual if with_mix else None
    repairer = Repairer(bundle=lively_bundle, jobs=1, restrained=False)
    one, loudness = measure(repairer, "bleed", truth, degraded, mix)
    after = repairer.process(degraded, 44100, mix)
    gain = 10 * np.log10(np.sum((degraded - truth) ** 2) / np.sum((after - truth) ** 2))
    assert one.gain_db(1.0) == pytest.approx(gain, abs=0.1)
    true, before, repaired = (np.abs(whole_stft(Stft(), x)) ** 0.3 for x in (truth, degraded, after))
    gain = 10 * np.log10(np.sum((before - true) ** 2) / np.sum((repaired - true) ** 2))
    assert loudness.gain_db(1.0) == pytest.approx(gain, abs=0.01)
    (clean,) = measure(repairer, "clean", truth, truth, mix)
    assert not clean.agreement.any(), "no correction of a true stem is right"
    # The power of the spectrum: a squared Hann window at a hop of a quarter window sums to 1.5.
    power = np.sum(np.square(truth.astype(float))) * 2048 * 1.5
    assert clean.error == pytest.approx(1e-3 * power / 2, rel=0.05)
    assert clean.gain_db(1.0) < clean.gain_db(0.1) < 0.0
    silence = np.zeros_like(truth)
    assert measure(repairer, "clean", silence, silence, None if mix is None else residual) == []


def test_the_command_writes_a_trust_curve_that_the_bundle_reads(
    lively_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(lively_bundle, bundle)
    rng = np.random.default_rng(0)
    for n in range(3):
        truth, residual, hiss = (0.1 * rng.standard_normal((3, 2, 30_000))).astype(np.float32)
        audio = {"truth": truth, "degraded": truth + 0.4 * hiss, "mix": truth + residual}
        write_case(tmp_path / "cases" / "noise" / f"{n}", audio)
    before = json.loads((bundle / "bundle.json").read_text())
    assert Bundle.load(bundle).trust_curve is None
    main([str(tmp_path / "cases"), "--bundle", str(bundle), "--most", "2"])
    assert "noise" in capsys.readouterr().out
    after = json.loads((bundle / "bundle.json").read_text())
    trust_curve = Bundle.load(bundle).trust_curve
    assert trust_curve is not None
    assert trust_curve.to_dict() == after.pop("trust")
    assert after == before
    trust = Repairer(bundle=bundle, jobs=1).trust
    assert trust.base is not None
    assert (trust.base.to_dict(), trust.trust_curves) == (trust_curve.to_dict(), ())
    # An untrained network is wrong, so next to nothing of its correction is let through.
    free, held = (
        Repairer(bundle=folder, jobs=1).process(audio["degraded"], 44100, audio["mix"]) - audio["degraded"]
        for folder in (lively_bundle, bundle)
    )
    assert np.abs(held).max() < 0.5 * np.abs(free).max()
    after["trust"] = trust_curve.to_dict() | {"starts": [0], "with_mix": [[1.0]], "without_mix": [[1.0]]}
    (bundle / "bundle.json").write_text(json.dumps(after))
    with pytest.raises(ModelError, match="damaged"):
        Bundle.load(bundle)


def test_an_adapter_has_its_own_trust_curve(lively_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, residual = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
    write_case(
        tmp_path / "cases" / "bleed" / "1", {"truth": truth, "degraded": truth + residual, "mix": truth + residual}
    )
    adapter, other = (tmp_path / f"{name}.safetensors" for name in "ab")
    model = add_adapter(lively_net(), rank=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    for path in (adapter, other):
        save_adapter(model, path)
    before = Adapter.load(adapter)
    main([str(tmp_path / "cases"), "--bundle", str(lively_bundle), "--adapter", str(adapter), "--own", "bleed"])
    after = Adapter.load(adapter)
    assert before.trust_curve is None
    assert after.trust_curve is not None
    assert (after.scale, after.base) == (before.scale, before.base)
    assert all(np.array_equal(after.delta(layer), before.delta(layer)) for layer in before.factors)
    bundle = Bundle.load(lively_bundle)
    assert bundle.trust_curve is None
    for blend, count in (({adapter: 1.0}, 1), ({adapter: 0.0}, 0), ({adapter: 0.5, other: 0.5}, 0), ({}, 0)):
        trust = trust_of(bundle, active_adapters(blend))
        curves = (len(trust.trust_curves), trust.base)
        assert curves == (count, None), "if one adapter has no trust curve, none is used"
    half = 0.5 * np.eye(1, TERM_COUNT)
    with_curve = replace(bundle, trust_curve=TrustCurve((0,), half, half))
    trust = trust_of(with_curve, active_adapters({adapter: 0.5, other: 0.4}))
    starts = [(one.starts, weight) for one, weight in trust.trust_curves]
    assert starts == [(STARTS, 0.5), ((0,), 0.4)], "the adapter's own, or else the base's"
    assert trust.base is with_curve.trust_curve


def test_measurements_are_kept_and_used_again(lively_bundle: Path, tmp_path: Path) -> None:
    bundle, kept = tmp_path / "bundle", tmp_path / "kept"
    shutil.copytree(lively_bundle, bundle)
    rng = np.random.default_rng(0)
    truth, residual = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
    cases = tmp_path / "cases" / "bleed"
    write_case(cases / "1", {"truth": truth, "degraded": truth + 0.4 * residual, "mix": truth + residual})
    command = [str(tmp_path / "cases"), "--bundle", str(bundle), "--keep", str(kept)]
    main(command)
    first = Bundle.load(bundle).trust_curve
    assert first is not None
    shutil.rmtree(cases / "1")
    write_case(cases / "2", {"truth": truth, "degraded": truth + 0.7 * residual, "mix": truth + residual})
    main(command)
    again = Bundle.load(bundle).trust_curve
    assert again is not None
    for name in ("with_mix", "without_mix"):
        assert np.abs(getattr(again, name) - getattr(first, name)).max() < 5e-3
    one = read_measured(kept / "with-mix.npz")[0]
    write_measured(kept / "with-mix.npz", [one, replace(one, kind="other", agreement=0.2 * one.agreement)])
    assert [found.kind for found in read_measured(kept / "with-mix.npz")] == [one.kind, "other"]
    (kept / "with-mix.npz").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="cannot be read as measured cases"):
        main(command)


def test_each_true_stem_is_measured_once_and_with_its_role(lively_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, residual = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
    names = [("phasiness", "1-wobble"), ("bleed", "1-pipe"), ("separated-vocals", "1"), ("bleed", "2-pipe-drums")]
    for kind, name in names:
        audio = {"truth": truth * (2 if name[0] == "2" else 1), "degraded": truth + 0.4 * residual, "mix": residual}
        write_case(tmp_path / kind / name, audio)
    measured = measure_all([(kind, tmp_path / kind / name) for kind, name in names], lively_bundle, True)
    found = [one for one in measured if one.domain == "spectrum"]
    assert len(measured) == len(found) + 4, "faults are measured in loudness too, true stems are not"
    assert [(one.kind, one.mechanism) for one in found] == [
        ("phasiness", "wobble"), ("clean", "1-wobble"), ("bleed", "pipe"), ("separated-vocals", "separated-vocals"),
        ("bleed", "pipe"), ("clean", "2-pipe-drums"),
    ]  # fmt: skip
    unknown, vocals = found[2], found[3]
    assert np.abs(unknown.power - vocals.power).max() > 1e-3 * unknown.power.max(), "the role is in the kind's name"


def test_an_adapters_own_kind_and_real_separators_count_most() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((len(EVIDENCE), BANDS, 40))
    cases = [case(kind, np.full((BANDS, 40), amount), rows) for kind, amount in (("bleed", 0.9), ("other", 0.5))]
    amounts = [fit_weights(cases, own=own) @ np.full(TERM_COUNT, 1.0) for own in ((), ("bleed",), ("other",))]
    assert amounts[2].mean() < amounts[0].mean() < amounts[1].mean()
    one = case("bleed", np.full((BANDS, 40), 0.9), rows)
    with_real, with_other = (
        fit_weights([one, case(kind, np.full((BANDS, 40), 0.5), rows)]) @ np.full(TERM_COUNT, 1.0)
        for kind in ("separated-vocals", "other")
    )
    assert with_real.mean() < with_other.mean()


def test_invalid_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no cases"):
        main([str(tmp_path)])
    write_case(tmp_path / "bleed" / "1", dict.fromkeys(("truth", "degraded", "mix"), np.ones((2, 99), np.float32)))
    with pytest.raises(SystemExit, match="--own: no case is of kind blead; choose from bleed"):
        main([str(tmp_path), "--own", "blead"])
    assert [one[0] for one in select_cases([("a", tmp_path)] * 3 + [("b", tmp_path)], 2)] == ["a", "a", "b"]
