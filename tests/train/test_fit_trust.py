"""How much of a change is let through: learnt from what was right, and kept in the bundle."""

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
from stemprover.engine.adapters import Adapter, active_adapters, gate_of
from stemprover.engine.bundle import Bundle
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.errors import ModelError, OptionError
from stemprover.engine.model.lora import add_adapter, save_adapter
from stemprover.engine.repair import Repairer
from stemprover.engine.train.cases import write_case
from stemprover.engine.train.fit_trust import (
    ALIKE,
    KNOTS,
    OWN,
    STARTS,
    Measured,
    fit_weights,
    main,
    measure,
    read_measured,
    some_of,
    write_measured,
)
from stemprover.engine.trust import EVIDENCE, HEARD, LEAK, MASKED, Caution, Ramp, terms

BANDS = BandLayout().bands
TERMS = len(EVIDENCE)


def case(kind: str, share: np.ndarray, heard: np.ndarray, seed: int = 0) -> Measured:
    """A case in which `share` (K, N) of the change is right."""
    size = np.random.default_rng(seed).random(share.shape) + 0.1
    return Measured(kind, heard, share * size, size, float(size.sum()))


def test_what_is_right_in_some_bands_and_on_some_evidence_is_found() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for seed in range(6):
        heard = rng.random((HEARD, BANDS, 40))
        share = 0.1 + 0.8 * heard[2]  # phasiness tells
        share[: STARTS[3]] = 0.25
        cases.append(case("bleed", share, heard, seed))
    weights = fit_weights(cases, knots=ALIKE)[0]
    expected = np.zeros((len(STARTS), TERMS))
    expected[:, 0], expected[3:, 3], expected[:3, 0] = 0.1, 0.8, 0.25
    assert np.abs(weights - expected).max() < 0.12, "but for the ridge"
    caution = Caution(STARTS, weights, weights)
    for one in cases:
        assert one.gain_db(caution.share(one.heard[None], True)[0]) >= one.gain_db(1.0)


def test_what_is_right_on_a_masked_stem_alone_is_found() -> None:
    rng = np.random.default_rng(1)
    cases = []
    for seed, masked in enumerate((0.0, 0.25, 0.55, 0.9)):
        heard = rng.random((HEARD, BANDS, 40))
        heard[MASKED] = masked
        on_masked, else_ = 0.8 * heard[1], np.full((BANDS, 40), 0.2)
        part = float(np.clip((masked - KNOTS[1]) / (KNOTS[2] - KNOTS[1]), 0, 1))
        cases.append(case("bleed", part * on_masked + (1 - part) * else_, heard, seed))
    weights = fit_weights(cases)
    assert np.abs(weights[0] - 0.2 * np.eye(1, TERMS)).max() < 0.1
    assert np.abs(weights[2, :, 2] - 0.8).max() < 0.2
    fitted, alike = Caution(STARTS, weights, weights[0], knots=KNOTS), fit_weights(cases, knots=ALIKE)
    for one in cases:
        share = fitted.share(one.heard[None], True)[0]
        assert one.gain_db(share) >= one.gain_db(Caution(STARTS, alike, alike[0]).share(one.heard[None], True)[0])
    again = Caution.from_dict(fitted.to_dict())
    assert again.knots == KNOTS
    assert np.abs(again.with_mix - fitted.with_mix).max() < 1e-4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), spread=st.floats(0.0, 3.0))
def test_a_share_is_within_0_and_1_whatever_the_weights(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, spread, (2, 2, TERMS))
    caution = Caution((0, 30), a, b)
    heard = rng.random((2, HEARD, BANDS, 5)).astype(np.float32)
    for with_mix, weights in ((True, a), (False, b)):
        share = caution.share(heard, with_mix)
        assert share.shape == (2, BANDS, 5)
        assert share.min() >= 0.0
        assert share.max() <= 1.0
        one = float(weights[1] @ terms(heard[1, :, 30, 4, None])[:, 0])
        assert share[1, 30, 4] == pytest.approx(np.clip(one, 0, 1), abs=1e-5)


def test_nothing_known_leaves_the_prior() -> None:
    silent = Measured("bleed", np.zeros((HEARD, BANDS, 9)), np.zeros((BANDS, 9)), np.zeros((BANDS, 9)), 1.0)
    assert fit_weights([silent])[:, :, 0] == pytest.approx(0.4)


def test_a_measured_case_predicts_what_a_share_of_the_change_does(lively_bundle: Path) -> None:
    rng = np.random.default_rng(0)
    truth, rest = (0.1 * rng.standard_normal((2, 2, 40_000))).astype(np.float32)
    degraded = truth + 0.4 * rest
    repairer = Repairer(bundle=lively_bundle, jobs=1, gated=False)
    one = measure(repairer, "bleed", truth, degraded, truth + rest)
    assert one is not None
    after = repairer.process(degraded, 44100, truth + rest)
    gain = 10 * np.log10(np.sum((degraded - truth) ** 2) / np.sum((after - truth) ** 2))
    assert one.gain_db(1.0) == pytest.approx(gain, abs=0.1)
    assert one.through(None) is one
    shut = one.through(Ramp(0.1, float(one.heard[:LEAK].max())))
    assert 0.0 < shut.size.sum() < one.size.sum()
    assert not shut.right[one.heard[:LEAK].max(axis=0) < 0.1].any()
    clean = measure(repairer, "clean", truth, truth, truth + rest)
    assert clean is not None
    assert not clean.right.any(), "nothing of what is done to a true stem is right"
    power = np.sum(np.square(truth.astype(float))) * 2048 * 1.5  # of its spectrum: Hann^2 at a hop of a quarter
    assert clean.error == pytest.approx(1e-3 * power / 2, rel=0.05)
    assert clean.gain_db(1.0) < clean.gain_db(0.1) < 0.0
    silence = np.zeros_like(truth)
    assert measure(repairer, "clean", silence, silence, rest) is None


def test_the_command_writes_what_the_bundle_reads(
    lively_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(lively_bundle, bundle)
    rng = np.random.default_rng(0)
    for n in range(3):
        truth, rest = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
        sounds = {"truth": truth, "degraded": truth + 0.4 * rest, "mix": truth + rest}
        write_case(tmp_path / "cases" / "bleed" / f"{n}", sounds)
    before = json.loads((bundle / "bundle.json").read_text())
    assert Bundle.load(bundle).caution is None
    main([str(tmp_path / "cases"), "--bundle", str(bundle), "--most", "2"])
    assert "bleed" in capsys.readouterr().out
    after = json.loads((bundle / "bundle.json").read_text())
    caution = Bundle.load(bundle).caution
    assert caution is not None
    assert caution.to_dict() == after.pop("caution")
    assert after == before
    gate = Repairer(bundle=bundle, jobs=1).gate
    assert gate is not None
    assert gate.base is not None
    assert (gate.base.to_dict(), gate.cautions) == (caution.to_dict(), ())
    # A net that was never trained is wrong: next to nothing of its change is let through.
    free, held = (
        Repairer(bundle=folder, jobs=1).process(sounds["degraded"], 44100, sounds["mix"]) - sounds["degraded"]
        for folder in (lively_bundle, bundle)
    )
    assert np.abs(held).max() < 0.5 * np.abs(free).max()
    after["caution"] = {"starts": [0], "with_mix": [[1.0]], "without_mix": [[1.0]]}
    (bundle / "bundle.json").write_text(json.dumps(after))
    with pytest.raises(ModelError, match="damaged"):
        Bundle.load(bundle)


def test_an_adapter_carries_its_own_caution(lively_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, rest = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
    write_case(tmp_path / "cases" / "bleed" / "1", {"truth": truth, "degraded": truth + rest, "mix": truth + rest})
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
    assert before.caution is None
    assert after.caution is not None
    assert (after.scale, after.base) == (before.scale, before.base)
    assert all(np.array_equal(after.delta(layer), before.delta(layer)) for layer in before.factors)
    bundle = Bundle.load(lively_bundle)
    assert bundle.caution is None
    for blend, count in (({adapter: 1.0}, 1), ({adapter: 0.0}, 0), ({adapter: 0.5, other: 0.5}, 0), ({}, 0)):
        gate = gate_of(bundle, active_adapters(blend))
        assert (len(gate.cautions), gate.base) == (count, None), "where one has no caution, it is as if there were none"
    half = [[0.5] + [0.0] * (TERMS - 1)]
    cautious = replace(bundle, caution=Caution.from_dict({"starts": [0], "with_mix": half, "without_mix": half}))
    gate = gate_of(cautious, active_adapters({adapter: 0.5, other: 0.4}))
    assert [(one.starts, weight) for one, weight in gate.cautions] == [(STARTS, 0.5), ((0,), 0.4)], "own, the base's"
    assert gate.base is cautious.caution


def test_what_was_measured_is_kept_and_a_caution_can_be_fitted_anew_for_songs_alone(
    lively_bundle: Path, tmp_path: Path
) -> None:
    bundle, kept = tmp_path / "bundle", tmp_path / "kept"
    shutil.copytree(lively_bundle, bundle)
    rng = np.random.default_rng(0)
    truth, rest = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
    cases = tmp_path / "cases" / "bleed"
    write_case(cases / "1", {"truth": truth, "degraded": truth + 0.4 * rest, "mix": truth + rest})
    command = [str(tmp_path / "cases"), "--bundle", str(bundle)]
    with pytest.raises(SystemExit, match="no caution yet"):
        main([*command, "--with-mix-only"])
    main([*command, "--keep", str(kept)])
    first = Bundle.load(bundle).caution
    assert first is not None
    shutil.rmtree(cases / "1")
    write_case(cases / "2", {"truth": truth, "degraded": truth + 0.7 * rest, "mix": truth + rest})
    main([*command, "--keep", str(kept)])
    again = Bundle.load(bundle).caution
    assert again is not None
    for name in ("with_mix", "without_mix"):
        assert np.abs(getattr(again, name) - getattr(first, name)).max() < 5e-3, "kept"
    main([*command, "--with-mix-only"])
    other = Bundle.load(bundle).caution
    assert other is not None
    assert np.array_equal(other.without_mix, first.without_mix)
    assert not np.array_equal(other.with_mix, first.with_mix)
    main([*command, "--keep", str(kept), "--ramp", "0.02", "0.2"])
    wider = Bundle.load(bundle).caution
    assert wider is not None
    assert wider.ramps == (Ramp(0.02, 0.2), Ramp())
    main([*command, "--keep", str(kept)])
    refitted = Bundle.load(bundle).caution
    assert refitted is not None
    assert refitted.ramps == wider.ramps, "as they were, unless told otherwise"
    for wrong in ("0", "many", "inf"):
        with pytest.raises(SystemExit, match=f"--count bleed {wrong}: give a number over 0"):
            main([*command, "--keep", str(kept), "--count", "bleed", wrong])
    with pytest.raises(SystemExit, match="counts: no case is of blead; there are bleed"):
        main([*command, "--keep", str(kept), "--count", "blead", "3"])
    with pytest.raises(SystemExit, match=r"ramp from 0\.4 to 0\.2: give two rising numbers"):
        main([*command, "--keep", str(kept), "--ramp", "0.4", "0.2"])
    one = read_measured(kept / "open-with-mix.npz")[0]
    write_measured(kept / "open-with-mix.npz", [one, replace(one, kind="other", right=0.2 * one.right)])
    (tmp_path / "recipe.toml").write_text('adapter = "none"\n[counts]\nother = 5\n')
    by_recipe = ["--recipe", str(tmp_path / "recipe.toml")]
    weights = []
    for options in (["--count", "other", "5"], by_recipe, [*by_recipe, "--count", "other", "1"], []):
        main([*command, "--keep", str(kept), "--with-mix-only", "--ramp", "0.02", "0.2", *options])
        caution = Bundle.load(bundle).caution
        assert caution is not None
        weights.append(caution.with_mix)
    assert np.array_equal(weights[0], weights[1]), "a recipe says it as the command does"
    assert np.array_equal(weights[2], weights[3]), "and the command has the last word"
    assert not np.array_equal(weights[2], weights[1])
    (kept / "open-with-mix.npz").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="holds nothing that was measured"):
        main([*command, "--keep", str(kept)])


def test_real_separators_stems_alone_can_be_added(lively_bundle: Path, tmp_path: Path, capsys) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(lively_bundle, bundle)
    rng = np.random.default_rng(0)
    truth, rest = (0.1 * rng.standard_normal((2, 2, 30_000))).astype(np.float32)
    sounds = {"truth": truth, "degraded": truth + 0.4 * rest, "mix": truth + rest}
    write_case(tmp_path / "mine" / "bleed" / "1", sounds)
    for kind in ("phasiness", "separated-vocals"):
        write_case(tmp_path / "others" / kind / "1", sounds)
    main([str(tmp_path / "mine"), "--real", str(tmp_path / "others"), "--bundle", str(bundle)])
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.partition("without it")[0].splitlines()[1:]] == [
        "bleed", "clean", "separated-vocals",
    ]  # fmt: skip


def test_a_kind_of_its_own_counts_most() -> None:
    rng = np.random.default_rng(0)
    heard = rng.random((HEARD, BANDS, 40))
    cases = [case(kind, np.full((BANDS, 40), share), heard) for kind, share in (("bleed", 0.9), ("other", 0.5))]
    shares = [fit_weights(cases, own=own, knots=ALIKE) @ np.full(TERMS, 1.0) for own in (None, "bleed", "other")]
    assert shares[2].mean() < shares[0].mean() < shares[1].mean()
    counted = fit_weights(cases, counts={"bleed": OWN}, knots=ALIKE) @ np.full(TERMS, 1.0)
    assert counted == pytest.approx(shares[1], rel=1e-6)
    real = [case("separated-vocals", np.full((BANDS, 40), 0.1), heard), cases[0]]
    shares = [fit_weights(real, recorded=times, knots=ALIKE) @ np.full(TERMS, 1.0) for times in (1.0, 30.0)]
    assert shares[1].mean() < shares[0].mean(), "real separators count as often as is said"


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no cases"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit, match="there is no such file"):
        main([str(tmp_path), "--recipe", str(tmp_path / "none.toml")])
    with pytest.raises(OptionError, match="not rising bands"):
        Caution((1, 2), np.zeros((2, TERMS)), np.zeros((2, TERMS)))
    with pytest.raises(OptionError, match="with_mix of shape"):
        Caution((0,), np.zeros((2, TERMS)), np.zeros((1, TERMS)))
    with pytest.raises(OptionError, match="not rising numbers"):
        Caution((0,), np.zeros((2, 1, TERMS)), np.zeros((1, TERMS)), knots=(0.4, 0.1))
    assert [one[0] for one in some_of([("a", tmp_path)] * 3 + [("b", tmp_path)], 2)] == ["a", "a", "b"]
    assert len(some_of([("a", tmp_path)] * 3 + [("b", tmp_path)] * 3, 1, {"b": 2})) == 3
