"""Scripts that make what ships: adapters between two others, and an adapter that is a caution alone."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file
from stemprover import load_preset
from stemprover.engine.bundle import Adapter, base_bundle

TOOLS = Path(__file__).resolve().parent.parent / "tools"
SHIPPED = base_bundle().parent


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    tool(name).main()


def capture_error(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> str:
    """The line that a script of bad arguments ends with."""
    text = io.StringIO()
    with redirect_stderr(text), pytest.raises(SystemExit):
        run(name, monkeypatch, *arguments)
    return text.getvalue().strip().splitlines()[-1]


def write_adapter(path: Path, seed: int, rank: int, layers: tuple[str, ...] = ("denoiser.a", "denoiser.b")) -> Path:
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in layers:
        tensors[f"{layer}.lora_A"] = rng.standard_normal((rank, 5)).astype(np.float32)
        tensors[f"{layer}.lora_B"] = rng.standard_normal((3, rank)).astype(np.float32)
    save_file(tensors, path, metadata={"format": "stemprover-lora-1", "rank": str(rank), "scale": "1.0", "base": "x"})
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
    with pytest.raises(Exception, match=r"has no denoiser\.b"):
        run("blend_adapters", monkeypatch, end, start, "-o", tmp_path / "out")
    for arguments, problem in (
        (("--share", 1.2), "--share 1.2"),
        (("--caution-share", -1), "--caution-share -1"),
        (("--gain", 0), "--gain 0"),
        ((), "is there already"),
    ):
        assert problem in capture_error(monkeypatch, "blend_adapters", end, end, *arguments, "-o", end)


def test_the_shipped_caution_alone_is_what_its_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SHIPPED / "separated"
    command = (folder / "preset.toml").read_text().splitlines()[0].split()
    arguments = command[command.index("tools/caution_alone.py") + 1 : command.index("-o")]
    out = tmp_path / "new" / "adapter.safetensors"
    run("caution_alone", monkeypatch, *arguments, "-o", out)
    (shipped,) = load_preset("separated").adapters
    made, kept = Adapter.load(out), Adapter.load(shipped)
    assert made.caution is not None
    assert kept.caution is not None
    assert json.dumps(made.caution.to_dict()) == json.dumps(kept.caution.to_dict())
    assert (made.factors, made.base) == (kept.factors, kept.base)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--ramp", 0.2, 0.1), "--ramp: ramp from 0.2 to 0.1"),
        (("--ramp", 0.1, 0.2, "--steep", 0), "--steep 0"),
        (("--ramp", 0.1, 0.2, "--doubt", "nan"), "--doubt nan"),
    ],
)
def test_a_caution_alone_of_bad_numbers(
    arguments: tuple[object, ...], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem in capture_error(monkeypatch, "caution_alone", *arguments, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
