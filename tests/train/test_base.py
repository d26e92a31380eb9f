"""A pretrained base from end to end: training, resuming, export, repair, streaming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import save_unet
from models import SMALL, sound
from stemprover.engine.adapters import active_adapters, merge_adapters
from stemprover.engine.bundle import Bundle
from stemprover.engine.errors import TrainingError
from stemprover.engine.repair import Repairer
from stemprover.engine.train.dataset import CropConfig
from stemprover.engine.train.loop import train
from stemprover.engine.train.options import TrainOptions
from stemprover.engine.train.trainer import Trainer

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder with a tiny U-Net in it."""
    folder = tmp_path_factory.mktemp("stable-diffusion")
    save_unet(folder / "unet", layers_per_block=1)
    return folder


def options(pool: Path, run: Path, base: Path | None, **changes: Any) -> TrainOptions:
    given: dict[str, Any] = {
        "run": run, "pool": pool, "base": base, "steps": 4, "threads": 1, "workers": 0, "device": "cpu", "bf16": False,
        "warmup": 2, "validate_every": 1000, "learning_rate": 3e-3, "model": SMALL,
        "crop": CropConfig(batch=2, frames=8, clean=0.0),
    }  # fmt: skip
    return TrainOptions(**(given | changes))


@pytest.fixture(scope="module")
def run(base: Path, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, stopped after two and resumed."""
    folder = tmp_path_factory.mktemp("run")
    half = Trainer(options(pool, folder, base))
    for step in range(2):
        half.step(half.batches[step])
    half.save()
    said: list[str] = []
    train(options(pool, folder, base), said.append)
    assert "from step 2" in said[0]
    return folder


def test_training_from_a_base_resumes_where_it_stopped(base: Path, pool: Path, run: Path, tmp_path: Path) -> None:
    train(options(pool, tmp_path, base), lambda _: None)
    whole, broken = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (tmp_path, run))
    assert whole["step"] == broken["step"] == 4
    for name, value in whole["net"].items():
        assert torch.allclose(value, broken["net"][name], atol=1e-5), name
    assert json.loads((run / "options.json").read_text())["base"] == str(base)


def test_a_run_cannot_resume_with_another_base(base: Path, pool: Path, run: Path, tmp_path: Path) -> None:
    before = (run / "checkpoint.pt").read_bytes()
    for other in (None, save_unet(tmp_path / "other")):
        with pytest.raises(TrainingError, match=r"of another base; use the same --base"):
            Trainer(options(pool, run, other))
    assert (run / "checkpoint.pt").read_bytes() == before


def test_an_adapter_is_trained_on_a_checkpoint_of_a_base(base: Path, pool: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="set start_from"):
        options(pool, tmp_path, base, adapter="hum")
    start = bundle.parent / "checkpoint.pt"
    trainer = Trainer(options(pool, tmp_path, base, adapter="hum", start_from=start))
    kept = {name.replace(".base_layer", ""): value for name, value in trainer.net.state_dict().items()}
    assert all(torch.equal(kept[name], value) for name, value in torch.load(start, weights_only=True)["ema"].items())
    trainer.step(trainer.batches[0])
    trainer.save()
    graphs = merge_adapters(Bundle.load(bundle), active_adapters({tmp_path / "hum.safetensors": 1.0}))
    assert graphs["denoiser"] != (bundle / "denoiser.onnx").read_bytes(), "it fits the bundle and is not neutral"


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's export, with its correction enlarged so that it matters after four steps."""
    from stemprover.export.bundle import export_bundle

    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name in ("weight", "bias"):
        value = saved["ema"][f"denoiser.unet.conv_out.conv.{name}"]
        value += 0.3 * torch.randn(value.shape, generator=generator)
    for name, value in saved["ema"].items():
        if name.startswith("control.zero."):
            value += 0.1 * torch.randn(value.shape, generator=generator)
    folder = tmp_path_factory.mktemp("export")
    torch.save(saved, folder / "checkpoint.pt")
    report = export_bundle(folder / "checkpoint.pt", folder / "bundle")
    assert report.ok, report.render()
    return folder / "bundle"


def test_a_bundle_records_its_base(bundle: Path) -> None:
    about = json.loads((bundle / "bundle.json").read_text())
    assert about["model"]["base"]["block_out_channels"] == [8, 16, 16, 24]
    assert about["lookahead"] == 16
    assert Bundle.load(bundle).receptive_field["denoiser"] > 50


@pytest.mark.parametrize("block", [65, 480, 8193])
def test_a_streamed_repair_equals_the_whole_one(bundle: Path, block: int) -> None:
    repairer = Repairer(bundle=bundle, steps=2, jobs=1)
    stem, mix = sound(0.7), sound(0.7, seed=1)
    whole = repairer.process(stem, 44100, mix)
    assert np.abs(whole - stem).max() > 0.003, "the model must do something for this test to mean anything"
    stream = repairer.stream(44100, 2, has_mix=True)
    parts = [stream.process(stem[:, at : at + block], mix[:, at : at + block]) for at in range(0, stem.shape[1], block)]
    streamed = np.concatenate([*parts, stream.flush()], axis=1)[:, stream.latency_samples :]
    assert np.abs(streamed - whole).max() <= TOLERANCE


def test_a_run_can_start_from_the_bundle_of_a_base(base: Path, pool: Path, bundle: Path, tmp_path: Path) -> None:
    trainer = Trainer(options(pool, tmp_path, base, start_from=bundle))
    saved = torch.load(bundle.parent / "checkpoint.pt", weights_only=True)["ema"]
    own = trainer.net.state_dict()
    assert all(torch.equal(own[name], value) for name, value in saved.items() if value.ndim > 1)


def test_the_command_line_reports_an_unusable_base(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    told = run_cli("train", "--base", tmp_path / "nowhere", "--run", tmp_path / "run")
    assert told.code == 2
    assert told.err.strip().endswith("no such folder; pass a folder that diffusers' save_pretrained has written")
    assert not (tmp_path / "run").exists()
