"""A run learns, resumes where it stopped, and trains adapters."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import SMALL, lively_net
from stemprover.engine.adapters import Adapter
from stemprover.engine.errors import ModelError, TrainingError
from stemprover.engine.features import LAYOUT, FeatureMaker
from stemprover.engine.model.config import ModelConfig
from stemprover.engine.model.lora import load_adapter
from stemprover.engine.sampler import DiffusionSchedule
from stemprover.engine.train import options as training_options
from stemprover.engine.train.corpus.faulty import VERSIONS
from stemprover.engine.train.dataset import CropConfig, PoolBatches
from stemprover.engine.train.loop import train
from stemprover.engine.train.options import TrainOptions
from stemprover.engine.train.progress_table import progress_table
from stemprover.engine.train.step import batch_tensors, diffusion_point
from stemprover.engine.train.trainer import Trainer

CROP = CropConfig(batch=2, frames=12)


def options(pool_folder: Path, run: Path, **changes: object) -> TrainOptions:
    given = {
        "run": run, "pool": pool_folder, "steps": 4, "threads": 1, "workers": 0, "device": "cpu", "bf16": False,
        "warmup": 2, "validate_every": 1000, "crop": CROP, "model": SMALL,
    } | changes  # fmt: skip
    return TrainOptions(**given)  # type: ignore[arg-type]


def test_a_single_batch_can_be_learnt(pool: Path, tmp_path: Path) -> None:
    crop = CropConfig(batch=2, frames=12, clean=0.0, no_mix=0.0, blend=0.0, simulated=0.0)
    trainer = Trainer(options(pool, tmp_path, steps=1000, learning_rate=3e-3, warmup=5, crop=crop))
    batch = trainer.batches[0]
    for _ in range(60):
        last = trainer.step(batch)
    # Below 11 kHz the truth is twice the stem, so that fifth of the error can go: 10 log10(0.8) dB. The noise above
    # 11 kHz cannot be predicted.
    assert 10 * last["log_error"] == pytest.approx(-0.97, abs=0.15)
    assert last["compressed"] < -0.05


def test_a_resumed_run_ends_where_an_unbroken_one_does(pool: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train(options(pool, tmp_path / "whole"), said.append)
    train(options(pool, tmp_path / "broken", steps=2), said.append)
    # The learning rates depend on the planned number of steps, so the half run keeps that number and is cut by hand.
    half = Trainer(options(pool, tmp_path / "cut"))
    for step in range(2):
        half.step(half.batches[step])
    half.save()
    train(options(pool, tmp_path / "cut"), said.append)
    saved = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "cut")]
    assert saved[0]["step"] == saved[1]["step"] == 4
    for name, value in saved[0]["net"].items():
        assert torch.allclose(value, saved[1]["net"][name], atol=1e-5), name
    assert any("from step 2" in line for line in said)


def test_batches_depend_on_seed_and_step_alone(pool: Path) -> None:
    a, b = (PoolBatches(pool, "train", FeatureMaker(), CROP, seed=3) for _ in range(2))
    assert np.array_equal(a[7].control, b[7].control)
    assert not np.array_equal(a[7].control, a[8].control)
    batch = a[7]
    assert batch.control.shape == (2, LAYOUT.rows, 84, 12 + 16)
    assert batch.stem.shape == batch.mix.shape == batch.truth.shape == (2, 64, 84, 12)


def test_a_batch_without_mix_is_flagged_and_a_clean_stem_equals_the_truth(pool: Path) -> None:
    batches = PoolBatches(pool, "train", FeatureMaker(), CropConfig(batch=2, frames=8, no_mix=1.0, clean=1.0), seed=0)
    batch = batches[0]
    assert np.array_equal(batch.stem, batch.mix)
    assert not batch.control[:, LAYOUT.has_mix].any()
    assert batch.clean.all()
    assert np.array_equal(batch.stem, batch.truth)


def test_the_progress_table_of_an_untrained_network_shows_no_change(pool: Path, tmp_path: Path) -> None:
    crop = replace(CROP, no_mix=1.0)  # with the mix its leakage would be subtracted
    table = progress_table(Trainer(options(pool, tmp_path, crop=crop)), count=3)
    assert table["valid.vocals.si_sdr"] == pytest.approx(0.0, abs=1e-4)
    assert table["valid.clean_dB"] == 80.0


def test_the_progress_table_shows_the_families_of_held_out_mechanisms(pool: Path, tmp_path: Path) -> None:
    own = tmp_path / "pool"
    shutil.copytree(pool, own)
    rng = np.random.default_rng(0)
    stem, rest, *noise = 3000 * rng.standard_normal((2 + VERSIONS, 2, 200_000))
    item = np.stack([stem, rest, *(stem + one for one in noise)]).astype(np.int16)
    np.save(own / "valid" / "faulty_000.npy", item[None])
    faults = [["opus"], ["griffin_lim"], ["opus", "griffin_lim"], ["mp3"]]
    (own / "valid" / "faulty_000.json").write_text(json.dumps({"items": [{"faults": faults, "role": "drums"}]}))
    table = progress_table(Trainer(options(own, tmp_path / "run")), count=3)
    assert [name for name in table if name.startswith("unknown.") and name.endswith("si_sdr")] == [
        "unknown.bands.si_sdr",
        "unknown.phases.si_sdr",
    ]
    assert table["unknown.bands.si_sdr"] == pytest.approx(0.0, abs=1e-4)


def test_an_adapter_is_trained_on_a_frozen_base_and_saved(pool: Path, tmp_path: Path) -> None:
    base = Trainer(options(pool, tmp_path / "base"))
    for step in range(3):
        base.step(base.batches[step])
    base.save()
    made = options(pool, tmp_path / "lora", adapter="hum", start_from=base.checkpoint_path, steps=3)
    trainer = Trainer(made)
    assert all("lora_" in name for name in trainer.trained)
    train(made, lambda _: None)
    adapter = Adapter.load(tmp_path / "lora" / "hum.safetensors")
    assert not adapter.neutral


def test_an_adapter_can_be_limited_to_a_part_of_the_network(pool: Path, tmp_path: Path, lively_bundle: Path) -> None:
    trainer = Trainer(options(pool, tmp_path, adapter="hum", start_from=lively_bundle, parts=("fine",), steps=2))
    assert trainer.trained
    assert all(".fine." in name for name in trainer.trained)
    terms = trainer.step(trainer.batches[0])
    assert np.isfinite(terms["loss"])


def test_an_adapter_can_start_from_one_of_lower_rank_and_fewer_parts(
    pool: Path, tmp_path: Path, lively_bundle: Path
) -> None:
    given = {"adapter": "hum", "start_from": lively_bundle, "rank": 2, "parts": ("control", "denoiser"), "steps": 3}
    train(options(pool, tmp_path / "first", **given), lambda _: None)
    file = tmp_path / "first" / "hum.safetensors"
    wider = {"rank": 3, "parts": ("control", "denoiser", "fine"), "on": file}
    trainer = Trainer(options(pool, tmp_path / "second", **(given | wider)))
    start = Trainer(options(pool, tmp_path / "third", start_from=lively_bundle))
    batch = batch_tensors(start.batches[0], start.device)
    ends = torch.ones(len(batch["stem"]))
    with torch.no_grad():
        base = start.net(batch["control"], batch["stem"], ends, batch["references"])
        before = load_adapter(start.net, file)(batch["control"], batch["stem"], ends, batch["references"])
        now = trainer.model(batch["control"], batch["stem"], ends, batch["references"])
    assert float((before - base).abs().max()) > 1e-5
    assert torch.allclose(now, before, atol=1e-6)
    trainer.step(trainer.batches[0])
    trainer.save()
    assert any(key.startswith("fine.") for key in Adapter.load(tmp_path / "second" / "hum.safetensors").factors)
    for narrow, says in (({"rank": 1}, "no room at rank 1"), ({"parts": ("fine",)}, "no room at rank 2")):
        with pytest.raises(ModelError, match=says):
            Trainer(options(pool, tmp_path / "narrow", **(given | {"on": file} | narrow)))
    with pytest.raises(TrainingError, match="name the new one with --adapter NAME"):
        options(pool, tmp_path, on=file)


def test_a_run_can_start_from_an_exported_bundle(pool: Path, tmp_path: Path, lively_bundle: Path) -> None:
    trainer = Trainer(options(pool, tmp_path, start_from=lively_bundle))
    for name, value in lively_net().state_dict().items():
        assert torch.equal(trainer.net.state_dict()[name], value), name
    assert trainer.latent.scale == pytest.approx(np.linspace(0.5, 2.0, 84), abs=1e-5)
    with pytest.raises(TrainingError, match="of other sizes"):
        Trainer(options(pool, tmp_path / "other", start_from=lively_bundle, model=ModelConfig()))


def test_bfloat16_is_used_only_on_devices_that_are_fast_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for there in (True, False):
        monkeypatch.setattr(training_options, "has_bf16", lambda device, there=there: there)
        assert options(tmp_path, tmp_path, bf16=True).mixed_precision == there
        assert not options(tmp_path, tmp_path, bf16=False).mixed_precision


def test_half_of_the_points_are_the_end_of_the_diffusion_bridge_and_the_others_lie_between() -> None:
    truth, stem = torch.zeros(400, 1, 1, 1), torch.ones(400, 1, 1, 1)
    t, x_t = diffusion_point(truth, stem, DiffusionSchedule(), torch.Generator().manual_seed(0))
    at_end = t == 1.0
    assert 150 < int(at_end.sum()) < 250
    assert torch.equal(x_t[at_end], stem[at_end])
    assert float(x_t[~at_end].std()) > 0.1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "steps=0"), ({"device": "tpu"}, "'tpu'"),
        ({"adapter": "x"}, "base holds a network of other sizes"),
        ({"pool": Path("nowhere")}, "no shards"),
        ({"parts": ("head",)}, "parts="), ({"parts": ()}, "parts="),
        ({"floor_db": 3.0}, "floor_db=3"), ({"floor_db": -50.0}, "floor_db=-50"),
        ({"crop": CropConfig(shards=("drums",))}, "no shards of drums"),
    ],
)  # fmt: skip
def test_invalid_options_are_named(pool: Path, tmp_path: Path, changes: dict, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        Trainer(options(pool, tmp_path, **changes))


def test_a_damaged_checkpoint_is_reported_and_kept(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        Trainer(options(pool, tmp_path))
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"nonsense"


def test_crops_have_simulated_faults(pool: Path, tmp_path: Path) -> None:
    def batch(**changes: object) -> object:
        crop = CropConfig(**({"batch": 6, "frames": 12, "clean": 0.0, "blend": 0.0} | changes))  # type: ignore[arg-type]
        return Trainer(options(pool, tmp_path, crop=crop)).batches[3]

    real, faulty = batch(simulated=0.0), batch(simulated=1.0, upon_separated=0.0, artefacts=("bleed",))
    again = batch(simulated=1.0, upon_separated=0.0, artefacts=("bleed",))
    assert np.array_equal(faulty.stem, again.stem), "seeded"
    # This pool's separator halves the stem; a simulated fault starts from the true one.
    level = [np.square(b.stem).sum() / np.square(b.truth).sum() for b in (real, faulty)]
    assert level[0] < 0.6
    assert level[1] >= 0.99
    assert not faulty.clean.any()


@pytest.mark.parametrize(
    "wrong",
    [{"artefacts": ("hiss",)}, {"artefacts": ()}, {"severity": (0.5, 0.2)}, {"simulated": 2}, {"shards": ("flute",)}],
)
def test_invalid_crop_settings_are_named(wrong: dict) -> None:
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        CropConfig(**wrong)
