"""How much of a correction is let through: fitted to what was right, and stored in the bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import lively_net
from stemprover.engine.adapters import Adapter, active_adapters, trust_of
from stemprover.engine.bundle import Bundle
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.errors import ModelError, OptionError
from stemprover.engine.model.lora import add_adapter, save_adapter
from stemprover.engine.repair import Repairer
from stemprover.engine.train.cases import select_cases, write_case
from stemprover.engine.train.fit_trust import (
    KNOTS,
    ONE_KNOT,
    OWN,
    STARTS,
    MeasuredCase,
    fit_weights,
    main,
    measure,
    read_measured,
    write_measured,
)
from stemprover.engine.trust import EVIDENCE_ROWS, LEAKAGE, MASK_LIKELIHOOD, TERMS, Ramp, TrustCurve, evidence_terms

BANDS = BandLayout().bands
TERM_COUNT = len(TERMS)


def case(kind: str, amount: np.ndarray, rows: np.ndarray, seed: int = 0) -> MeasuredCase:
    """A case in which `amount` (K, N) of the correction is right."""
    size = np.random.default_rng(seed).random(amount.shape) + 0.1
    return MeasuredCase(kind, rows, amount * size, size, float(size.sum()))


def test_the_fit_finds_which_bands_and_evidence_make_a_correction_right() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for seed in range(6):
        rows = rng.random((EVIDENCE_ROWS, BANDS, 40))
        amount = 0.1 + 0.8 * rows[2]  # right where phasiness is severe
        amount[: STARTS[3]] = 0.25
        cases.append(case("bleed", amount, rows, seed))
    weights = fit_weights(cases, knots=ONE_KNOT)[0]
    expected = np.zeros((len(STARTS), TERM_COUNT))
    expected[:, 0], expected[3:, 3], expected[:3, 0] = 0.1, 0.8, 0.25
    assert np.abs(weights - expected).max() < 0.12, "except for the ridge"
    trust_curve = TrustCurve(STARTS, weights, weights)
    for one in cases:
        assert one.gain_db(trust_curve.amount(one.evidence[None], True)[0]) >= one.gain_db(1.0)


def test_the_fit_finds_what_is_right_only_on_a_masked_stem() -> None:
    rng = np.random.default_rng(1)
    cases = []
    for seed, masked in enumerate((0.0, 0.25, 0.55, 0.9)):
        rows = rng.random((EVIDENCE_ROWS, BANDS, 40))
        rows[MASK_LIKELIHOOD] = masked
        on_masked, else_ = 0.8 * rows[1], np.full((BANDS, 40), 0.2)
        part = float(np.clip((masked - KNOTS[1]) / (KNOTS[2] - KNOTS[1]), 0, 1))
        cases.append(case("bleed", part * on_masked + (1 - part) * else_, rows, seed))
    weights = fit_weights(cases)
    assert np.abs(weights[0] - 0.2 * np.eye(1, TERM_COUNT)).max() < 0.1
    assert np.abs(weights[2, :, 2] - 0.8).max() < 0.2
    fitted, alike = TrustCurve(STARTS, weights, weights[0], knots=KNOTS), fit_weights(cases, knots=ONE_KNOT)
    for one in cases:
        amount = fitted.amount(one.evidence[None], True)[0]
        assert one.gain_db(amount) >= one.gain_db(
            TrustCurve(STARTS, alike, alike[0]).amount(one.evidence[None], True)[0]
        )
    again = TrustCurve.from_dict(fitted.to_dict())
    assert again.knots == KNOTS
    assert np.abs(again.with_mix - fitted.with_mix).max() < 1e-4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), spread=st.floats(0.0, 3.0))
def test_an_amount_is_within_0_and_1_whatever_the_weights(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, spread, (2, 2, TERM_COUNT))
    trust_curve = TrustCurve((0, 30), a, b)
    rows = rng.random((2, EVIDENCE_ROWS, BANDS, 5)).astype(np.float32)
    for with_mix, weights in ((True, a), (False, b)):
        amount = trust_curve.amount(rows, with_mix)
        assert amount.shape == (2, BANDS, 5)
        assert amount.min() >= 0.0
        assert amount.max() <= 1.0
        one = float(weights[1] @ evidence_terms(rows[1, :, 30, 4, None])[:, 0])
        assert amount[1, 30, 4] == pytest.approx(np.clip(one, 0, 1), abs=1e-5)


def test_without_information_the_prior_remains() -> None:
    silent = MeasuredCase("bleed", np.zeros((EVIDENCE_ROWS, BANDS, 9)), np.zeros((BANDS, 9)), np.zeros((BANDS, 9)), 1.0)
    assert fit_weights([silent])[:, :, 0] == pytest.approx(0.4)


def test_a_measured_case_predicts_the_gain_of_a_part_of_the_correction(lively_bundle: Path) -> None:
    rng = np.random.default_rng(0)
    truth, residual = (0.1 * rng.standard_normal((2, 2, 40_000))).astype(np.float32)
    degraded = truth + 0.4 * residual
    repairer = Repairer(bundle=lively_bundle, jobs=1, restrained=False)
    one = measure(repairer, "bleed", truth, degraded, truth + residual)
    assert one is not None
    after = repairer.process(degraded, 44100, truth + residual)
    gain = 10 * np.log10(np.sum((degraded - truth) ** 2) / np.sum((after - truth) ** 2))
    assert one.gain_db(1.0) == pytest.approx(gain, abs=0.1)
    assert one.through(None) is one
    shut = one.through(Ramp(0.1, float(one.evidence[:LEAKAGE].max())))
    assert 0.0 < shut.power.sum() < one.power.sum()
    assert not shut.agreement[one.evidence[:LEAKAGE].max(axis=0) < 0.1].any()
    clean = measure(repairer, "clean", truth, truth, truth + residual)
    assert clean is not None
    assert not clean.agreement.any(), "no correction of a true stem is right"
    # The power of the spectrum: a squared Hann window at a hop of a quarter window sums to 1.5.
    power = np.sum(np.square(truth.astype(float))) * 2048 * 1.5
    assert clean.error == pytest.approx(1e-3 * power / 2, rel=0.05)
    assert clean.gain_db(1.0) < clean.gain_db(0.1) < 0.0
    silence = np.zeros_like(truth)
    assert measure(repairer, "clean", silence, silence, residual) is None


def test_the_command_writes_a_trust_curve_that_the_bundle_reads(
    lively_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(lively_bundle, bundle)
    rng = np.random.default_rng(0)
    for n in range(3):
        truth, residual = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
        audio = {"truth": truth, "degraded": truth + 0.4 * residual, "mix": truth + residual}
        write_case(tmp_path / "cases" / "bleed" / f"{n}", audio)
    before = json.loads((bundle / "bundle.json").read_text())
    assert Bundle.load(bundle).trust_curve is None
    main([str(tmp_path / "cases"), "--bundle", str(bundle), "--most", "2"])
    assert "bleed" in capsys.readouterr().out
    after = json.loads((bundle / "bundle.json").read_text())
    trust_curve = Bundle.load(bundle).trust_curve
    assert trust_curve is not None
    assert trust_curve.to_dict() == after.pop("trust")
    assert after == before
    trust = Repairer(bundle=bundle, jobs=1).trust
    assert trust is not None
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


def test_measurements_are_kept_and_a_trust_curve_can_be_refitted_with_the_mix_alone(
    lively_bundle: Path, tmp_path: Path
) -> None:
    bundle, kept = tmp_path / "bundle", tmp_path / "kept"
    shutil.copytree(lively_bundle, bundle)
    rng = np.random.default_rng(0)
    truth, residual = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
    cases = tmp_path / "cases" / "bleed"
    write_case(cases / "1", {"truth": truth, "degraded": truth + 0.4 * residual, "mix": truth + residual})
    command = [str(tmp_path / "cases"), "--bundle", str(bundle)]
    with pytest.raises(SystemExit, match="no trust curve yet"):
        main([*command, "--with-mix-only"])
    main([*command, "--keep", str(kept)])
    first = Bundle.load(bundle).trust_curve
    assert first is not None
    shutil.rmtree(cases / "1")
    write_case(cases / "2", {"truth": truth, "degraded": truth + 0.7 * residual, "mix": truth + residual})
    main([*command, "--keep", str(kept)])
    again = Bundle.load(bundle).trust_curve
    assert again is not None
    for name in ("with_mix", "without_mix"):
        assert np.abs(getattr(again, name) - getattr(first, name)).max() < 5e-3, "the kept measurements are used"
    main([*command, "--with-mix-only"])
    other = Bundle.load(bundle).trust_curve
    assert other is not None
    assert np.array_equal(other.without_mix, first.without_mix)
    assert not np.array_equal(other.with_mix, first.with_mix)
    main([*command, "--keep", str(kept), "--ramp", "0.02", "0.2"])
    wider = Bundle.load(bundle).trust_curve
    assert wider is not None
    assert wider.ramps == (Ramp(0.02, 0.2), Ramp())
    main([*command, "--keep", str(kept)])
    refitted = Bundle.load(bundle).trust_curve
    assert refitted is not None
    assert refitted.ramps == wider.ramps, "they stay as they were unless an option changes them"
    for wrong in ("0", "many", "inf"):
        with pytest.raises(SystemExit, match=f"--count bleed {wrong}: use a number above 0"):
            main([*command, "--keep", str(kept), "--count", "bleed", wrong])
    with pytest.raises(SystemExit, match="counts: no case is of kind blead; choose from bleed"):
        main([*command, "--keep", str(kept), "--count", "blead", "3"])
    with pytest.raises(SystemExit, match=r"ramp from 0\.4 to 0\.2: use two rising numbers"):
        main([*command, "--keep", str(kept), "--ramp", "0.4", "0.2"])
    one = read_measured(kept / "open-with-mix.npz")[0]
    write_measured(kept / "open-with-mix.npz", [one, replace(one, kind="other", agreement=0.2 * one.agreement)])
    (tmp_path / "recipe.toml").write_text('adapter = "none"\n[counts]\nother = 5\n')
    by_recipe = ["--recipe", str(tmp_path / "recipe.toml")]
    weights = []
    for options in (["--count", "other", "5"], by_recipe, [*by_recipe, "--count", "other", "1"], []):
        main([*command, "--keep", str(kept), "--with-mix-only", "--ramp", "0.02", "0.2", *options])
        trust_curve = Bundle.load(bundle).trust_curve
        assert trust_curve is not None
        weights.append(trust_curve.with_mix)
    assert np.array_equal(weights[0], weights[1]), "a recipe counts kinds as --count does"
    assert np.array_equal(weights[2], weights[3]), "--count overrides the recipe"
    assert not np.array_equal(weights[2], weights[1])
    (kept / "open-with-mix.npz").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="cannot be read as measured cases"):
        main([*command, "--keep", str(kept)])


def test_only_real_separators_stems_of_more_cases_are_added(lively_bundle: Path, tmp_path: Path, capsys) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(lively_bundle, bundle)
    rng = np.random.default_rng(0)
    truth, residual = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
    audio = {"truth": truth, "degraded": truth + 0.4 * residual, "mix": truth + residual}
    write_case(tmp_path / "mine" / "bleed" / "1", audio)
    for kind in ("phasiness", "separated-vocals"):
        write_case(tmp_path / "others" / kind / "1", audio)
    main([str(tmp_path / "mine"), "--real", str(tmp_path / "others"), "--bundle", str(bundle)])
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.partition("without the mix:")[0].splitlines()[1:]] == [
        "bleed", "clean", "separated-vocals",
    ]  # fmt: skip


def test_an_adapters_own_kind_counts_most() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((EVIDENCE_ROWS, BANDS, 40))
    cases = [case(kind, np.full((BANDS, 40), amount), rows) for kind, amount in (("bleed", 0.9), ("other", 0.5))]
    amounts = [
        fit_weights(cases, own=own, knots=ONE_KNOT) @ np.full(TERM_COUNT, 1.0) for own in (None, "bleed", "other")
    ]
    assert amounts[2].mean() < amounts[0].mean() < amounts[1].mean()
    counted = fit_weights(cases, counts={"bleed": OWN}, knots=ONE_KNOT) @ np.full(TERM_COUNT, 1.0)
    assert counted == pytest.approx(amounts[1], rel=1e-6)
    real = [case("separated-vocals", np.full((BANDS, 40), 0.1), rows), cases[0]]
    amounts = [fit_weights(real, recorded=times, knots=ONE_KNOT) @ np.full(TERM_COUNT, 1.0) for times in (1.0, 30.0)]
    assert amounts[1].mean() < amounts[0].mean(), "real separators count `recorded` times"


def test_invalid_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no cases"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit, match="no such file"):
        main([str(tmp_path), "--recipe", str(tmp_path / "none.toml")])
    with pytest.raises(OptionError, match="not rising band"):
        TrustCurve((1, 2), np.zeros((2, TERM_COUNT)), np.zeros((2, TERM_COUNT)))
    with pytest.raises(OptionError, match="with_mix of shape"):
        TrustCurve((0,), np.zeros((2, TERM_COUNT)), np.zeros((1, TERM_COUNT)))
    with pytest.raises(OptionError, match="not rising numbers"):
        TrustCurve((0,), np.zeros((2, 1, TERM_COUNT)), np.zeros((1, TERM_COUNT)), knots=(0.4, 0.1))
    assert [one[0] for one in select_cases([("a", tmp_path)] * 3 + [("b", tmp_path)], 2)] == ["a", "a", "b"]
    assert len(select_cases([("a", tmp_path)] * 3 + [("b", tmp_path)] * 3, 1, {"b": 2})) == 3
