"""Scripts that make and measure what ships: adapters between two others, and the trial of an instrument."""

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
from stemprover.engine.trust import Caution, Ramp

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")


def capture_error(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> str:
    """The line that a script of bad arguments ends with."""
    text = io.StringIO()
    with redirect_stderr(text), pytest.raises(SystemExit):
        run(name, monkeypatch, *arguments)
    return text.getvalue().strip().splitlines()[-1]


def write_adapter(
    path: Path,
    seed: int,
    rank: int,
    layers: tuple[str, ...] = ("denoiser.a", "denoiser.b"),
    caution: Caution | None = None,
) -> Path:
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in layers:
        tensors[f"{layer}.lora_A"] = rng.standard_normal((rank, 5)).astype(np.float32)
        tensors[f"{layer}.lora_B"] = rng.standard_normal((3, rank)).astype(np.float32)
    meta = {"format": "stemprover-lora-1", "rank": str(rank), "scale": "1.0", "base": "x"}
    save_file(tensors, path, metadata=meta | ({} if caution is None else {"caution": json.dumps(caution.to_dict())}))
    return path


@pytest.mark.parametrize(("share", "expected"), [(1.0, "end"), (0.0, "start")])
def test_the_ends_of_a_way_between_adapters(
    share: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {"end": write_adapter(tmp_path / "end", 1, 4), "start": write_adapter(tmp_path / "start", 2, 2)}
    out = tmp_path / "out.safetensors"
    run("blend_adapters", monkeypatch, paths["end"], paths["start"], "--share", share, "-o", out)
    found, wanted = Adapter.load(out), Adapter.load(paths[expected])
    for layer in wanted.factors:
        np.testing.assert_allclose(found.delta(layer), wanted.delta(layer), atol=1e-5)


def test_the_middle_is_the_mean_of_the_factors_and_a_gain_scales_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, start = (write_adapter(tmp_path / name, seed, 3) for seed, name in enumerate(("end", "start")))
    out, louder = tmp_path / "out.safetensors", tmp_path / "louder.safetensors"
    run("blend_adapters", monkeypatch, end, start, "-o", out)
    run("blend_adapters", monkeypatch, end, "--gain", 1.1, "-o", louder)
    first, second, middle, gained = map(Adapter.load, (end, start, out, louder))
    for layer, factors in middle.factors.items():
        for mean, a, b in zip(factors, first.factors[layer], second.factors[layer], strict=True):
            np.testing.assert_allclose(mean, 0.5 * (a + b), atol=1e-6)
        np.testing.assert_allclose(gained.delta(layer), 1.1 * first.delta(layer), rtol=1e-5)


def test_adapters_that_did_not_begin_with_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = write_adapter(tmp_path / "end", 1, 2, ("denoiser.a",))
    start = write_adapter(tmp_path / "start", 2, 2)
    assert "has no denoiser.b" in capture_error(monkeypatch, "blend_adapters", end, start, "-o", tmp_path / "out")
    for arguments, problem in (
        (("--share", 1.2), "--share 1.2"),
        (("--caution-share", -1), "--caution-share -1"),
        (("--gain", 0), "--gain 0"),
        ((), "is there already"),
    ):
        assert problem in capture_error(monkeypatch, "blend_adapters", end, end, *arguments, "-o", end)


def test_cautions_are_mixed_at_their_own_share_and_the_limits_are_the_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    ramps = ((Ramp(0.03, 0.1), Ramp()), (Ramp(), Ramp()))
    cautions = [Caution((0, 8), rng.random((2, 8)), rng.random((2, 8)), ramp) for ramp in ramps]
    end, start = (write_adapter(tmp_path / str(n), n, 2, caution=caution) for n, caution in enumerate(cautions))
    plain, out = write_adapter(tmp_path / "plain", 5, 2), tmp_path / "out"
    run("blend_adapters", monkeypatch, end, start, "--share", 1, "--caution-share", 0.67, "-o", out)
    found = Adapter.load(out).caution
    assert found is not None
    for name in ("with_mix", "without_mix"):
        wanted = 0.67 * getattr(cautions[0], name) + 0.33 * getattr(cautions[1], name)
        np.testing.assert_allclose(getattr(found, name), wanted, atol=1e-3)
    assert found.ramps == ramps[0]
    arguments = (end, plain, "--caution-share", 0.5, "-o", tmp_path / "none")
    assert "has no caution to take a share of" in capture_error(monkeypatch, "blend_adapters", *arguments)
    assert not (tmp_path / "none").exists()
