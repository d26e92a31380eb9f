"""tools/blend_adapters.py: adapters between two others."""

from __future__ import annotations

import io
import json
import runpy
import sys
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from stemprover.engine.adapters import Adapter
from stemprover.engine.trust import Ramp, TrustCurve

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")


def capture_error(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> str:
    """The last line that a script prints when its arguments are invalid."""
    text = io.StringIO()
    with redirect_stderr(text), pytest.raises(SystemExit):
        run(name, monkeypatch, *arguments)
    return text.getvalue().strip().splitlines()[-1]


def write_adapter(
    path: Path,
    seed: int,
    rank: int,
    layers: tuple[str, ...] = ("denoiser.a", "denoiser.b"),
    trust_curve: TrustCurve | None = None,
) -> Path:
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in layers:
        tensors[f"{layer}.lora_A"] = rng.standard_normal((rank, 5)).astype(np.float32)
        tensors[f"{layer}.lora_B"] = rng.standard_normal((3, rank)).astype(np.float32)
    meta = {"format": "stemprover-lora-2", "rank": str(rank), "scale": "1.0", "base": "x"}
    trust = {} if trust_curve is None else {"trust": json.dumps(trust_curve.to_dict())}
    save_file(tensors, path, metadata=meta | trust)
    return path


@pytest.mark.parametrize(("share", "expected"), [(1.0, "new"), (0.0, "old")])
def test_a_share_of_one_or_zero_gives_one_of_the_two_adapters(
    share: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {"new": write_adapter(tmp_path / "new", 1, 4), "old": write_adapter(tmp_path / "old", 2, 2)}
    out = tmp_path / "out.safetensors"
    run("blend_adapters", monkeypatch, paths["new"], paths["old"], "--share", share, "-o", out)
    found, wanted = Adapter.load(out), Adapter.load(paths[expected])
    for layer in wanted.factors:
        np.testing.assert_allclose(found.delta(layer), wanted.delta(layer), atol=1e-5)


def test_a_share_of_one_half_averages_the_factors_and_a_gain_scales_the_correction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = (write_adapter(tmp_path / name, seed, 3) for seed, name in enumerate(("new", "old")))
    out, louder = tmp_path / "out.safetensors", tmp_path / "louder.safetensors"
    run("blend_adapters", monkeypatch, new, old, "-o", out)
    run("blend_adapters", monkeypatch, new, "--gain", 1.1, "-o", louder)
    first, second, middle, gained = map(Adapter.load, (new, old, out, louder))
    for layer, factors in middle.factors.items():
        for mean, a, b in zip(factors, first.factors[layer], second.factors[layer], strict=True):
            np.testing.assert_allclose(mean, 0.5 * (a + b), atol=1e-6)
        np.testing.assert_allclose(gained.delta(layer), 1.1 * first.delta(layer), rtol=1e-5)


def test_unrelated_adapters_and_invalid_options_give_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = write_adapter(tmp_path / "new", 1, 2, ("denoiser.a",))
    old = write_adapter(tmp_path / "old", 2, 2)
    assert "has no denoiser.b" in capture_error(monkeypatch, "blend_adapters", new, old, "-o", tmp_path / "out")
    for arguments, problem in (
        (("--share", 1.2), "--share 1.2"),
        (("--trust-share", -1), "--trust-share -1"),
        (("--gain", 0), "--gain 0"),
        ((), "exists already"),
    ):
        assert problem in capture_error(monkeypatch, "blend_adapters", new, new, *arguments, "-o", new)


def test_trust_curves_are_blended_at_their_own_share_and_keep_the_newer_ramps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    ramps = ((Ramp(0.03, 0.1), Ramp()), (Ramp(), Ramp()))
    trust_curves = [TrustCurve((0, 8), rng.random((2, 8)), rng.random((2, 8)), ramp) for ramp in ramps]
    new, old = (write_adapter(tmp_path / str(n), n, 2, trust_curve=curve) for n, curve in enumerate(trust_curves))
    plain, out = write_adapter(tmp_path / "plain", 5, 2), tmp_path / "out"
    run("blend_adapters", monkeypatch, new, old, "--share", 1, "--trust-share", 0.67, "-o", out)
    found = Adapter.load(out).trust_curve
    assert found is not None
    for name in ("with_mix", "without_mix"):
        wanted = 0.67 * getattr(trust_curves[0], name) + 0.33 * getattr(trust_curves[1], name)
        np.testing.assert_allclose(getattr(found, name), wanted, atol=1e-3)
    assert found.ramps == ramps[0]
    arguments = (new, plain, "--trust-share", 0.5, "-o", tmp_path / "none")
    assert "has no trust curve to blend" in capture_error(monkeypatch, "blend_adapters", *arguments)
    assert not (tmp_path / "none").exists()
