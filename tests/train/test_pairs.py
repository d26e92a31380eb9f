"""A user's own before/after files: read, checked, made into a pool, and into a valid preset."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from models import SMALL, lively_net
from stemprover.engine.adapters import Adapter
from stemprover.engine.errors import TrainingError
from stemprover.engine.model.lora import add_adapter, save_adapter
from stemprover.engine.preset import check_preset
from stemprover.engine.train.corpus.pool import FULL_SCALE, SAMPLE_RATE, open_shard
from stemprover.engine.train.loop import train
from stemprover.engine.train.options import TrainOptions
from stemprover.engine.train.pairs import build_pairs, find_lag, find_pairs, finish, fit_own_trust_curve, pair_crops
from stemprover.engine.trust import EVIDENCE
from typer.testing import CliRunner

SECONDS = 12


def sound(seed: int, seconds: float = SECONDS) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((int(seconds * SAMPLE_RATE), 2))


def write(path: Path, audio: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, audio, rate, subtype="PCM_24")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pairs; the fault is half of the level."""
    for n in range(2):
        write(tmp_path / "mine" / "after" / f"take {n}.wav", sound(n))
        write(tmp_path / "mine" / "before" / f"take {n}.flac", 0.5 * sound(n))
    return tmp_path / "mine"


def test_pairs_become_a_pool_with_a_held_out_part(folder: Path, tmp_path: Path) -> None:
    pairs = find_pairs(folder)
    assert [pair.name for pair in pairs] == ["take 0", "take 1"]
    assert pairs[0].mix is None
    minutes = build_pairs(pairs, tmp_path / "pool")
    assert minutes == pytest.approx({"train": 2 * 8 / 60, "valid": 2 * 0.15 * SECONDS / 60})
    train_items, valid_items = (open_shard(tmp_path / "pool" / split / "shard_000.npy")[0] for split in minutes)
    cut = round(0.85 * SECONDS * SAMPLE_RATE)
    for n in range(2):
        truth = np.rint(sound(n).T * FULL_SCALE)
        for item, first in ((train_items[n], 0), (valid_items[n], cut)):
            length = min(item.shape[-1], truth.shape[1] - first)
            assert np.abs(item[0, :, :length] - truth[:, first : first + length]).max() <= 1
            assert np.abs(item[2].astype(float) - item[0] / 2).max() <= 1
            assert not item[1].any()
    assert pair_crops(pairs).no_mix == 1.0


def test_with_a_mix_the_residual_is_known(folder: Path, tmp_path: Path) -> None:
    for n in range(2):
        write(folder / "mix" / f"take {n}.wav", sound(n) + sound(n + 9))
    pairs = find_pairs(folder)
    build_pairs(pairs, tmp_path / "pool")
    item = open_shard(tmp_path / "pool" / "train" / "shard_000.npy")[0][0].astype(float)
    expected = (sound(9).T * FULL_SCALE)[:, : item.shape[-1]]
    assert np.abs(item[1] - expected).max() <= 2
    assert pair_crops(pairs).no_mix < 1.0


def test_other_sample_rates_and_mono_are_read(tmp_path: Path) -> None:
    time = np.arange(6 * 48000) / 48000
    tone = 0.3 * np.sin(2 * np.pi * 500 * time)
    write(tmp_path / "before" / "a.wav", 0.5 * tone[:, None], 48000)
    write(tmp_path / "after" / "a.wav", tone[:, None], 48000)
    build_pairs(find_pairs(tmp_path), tmp_path / "pool")
    item = open_shard(tmp_path / "pool" / "train" / "shard_000.npy")[0][0] / FULL_SCALE
    expected = 0.3 * np.sin(2 * np.pi * 500 * np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE)
    assert np.abs(item[0, :, 1000 : 4 * SAMPLE_RATE] - expected[1000:]).max() < 2e-3


@pytest.mark.parametrize("lag", [0, 7, 1105, -576])
def test_a_lag_is_found(lag: int) -> None:
    after = sound(1, 5).T
    before = np.roll(0.5 * after, lag, axis=1) + 0.02 * sound(2, 5).T
    assert find_lag(before, after) == lag


def test_pairs_that_do_not_match_are_named(folder: Path, tmp_path: Path) -> None:
    def raises(message: str, place: Path = folder) -> None:
        with pytest.raises(TrainingError, match=message):
            build_pairs(find_pairs(place), tmp_path / "pool")
        assert not (tmp_path / "pool").exists()

    raises(r"has no folder 'before'", tmp_path)
    (tmp_path / "empty" / "before").mkdir(parents=True)
    (tmp_path / "empty" / "after").mkdir()
    raises(r"has no audio files", tmp_path / "empty")
    write(folder / "before" / "alone.wav", sound(3))
    raises(r"alone.wav has no counterpart in .*after")
    write(folder / "after" / "alone.wav", sound(3, 9))
    raises(r"alone.wav lasts 12.00 s but .* lasts 9.00 s; make them equally long")
    write(folder / "after" / "alone.wav", np.roll(sound(3), -300, axis=0))
    raises(r"before/alone.wav is 300 samples .* behind its counterpart")
    for side in ("before", "after"):
        write(folder / side / "alone.wav", sound(3, 2))
    raises(r"lasts 2.00 s; use at least 4 s")
    for side in ("before", "after"):
        (folder / side / "alone.wav").write_bytes(b"nothing")
    raises(r"alone.wav cannot be read as audio")
    for side in ("before", "after"):
        sf.write(folder / side / "alone.wav", np.full((5 * SAMPLE_RATE, 2), np.nan), SAMPLE_RATE, subtype="FLOAT")
    raises(r"alone.wav has non-finite samples")
    for side in ("before", "after"):
        write(folder / side / "alone.wav", np.zeros((5 * SAMPLE_RATE, 3)))
    raises(r"alone.wav has 3 channels; use mono or stereo")
    for side in ("before", "after"):
        (folder / side / "alone.wav").unlink()
    write(folder / "mix" / "take 0.wav", sound(0))
    raises(r"take 1 is not in all three folders")


def test_a_run_ends_in_a_valid_preset(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = lively_net()
    start = {
        "ema": net.state_dict(), "scale": torch.ones(SMALL.bands), "model": SMALL.to_dict(),
    }  # fmt: skip
    torch.save(start, tmp_path / "start.pt")
    pairs = find_pairs(folder)
    run = tmp_path / "run"
    lengths = build_pairs(pairs, run / "pairs")
    options = TrainOptions(
        run=run, pool=run / "pairs", steps=2, threads=1, workers=0, device="cpu", bf16=False, model=SMALL,
        adapter="my-fault", start_from=tmp_path / "start.pt", crop=pair_crops(pairs), validate_every=2,
    )  # fmt: skip
    said: list[str] = []
    train(options, said.append)
    assert any("valid 2:" in line and "vocals.si_sdr" in line for line in said)
    preset = check_preset(finish(options, pairs, lengths))
    assert preset.name == "my-fault"
    assert preset.trained
    assert [path.name for path in preset.adapters] == ["adapter.safetensors"]
    assert (preset.path.parent / "recipe.json").exists()  # type: ignore[union-attr]


def test_the_held_out_parts_decide_how_much_an_adapter_is_trusted(
    folder: Path, tmp_path: Path, lively_bundle: Path
) -> None:
    build_pairs(find_pairs(folder), tmp_path / "pool")
    adapter = tmp_path / "adapter.safetensors"
    model = add_adapter(lively_net(), rank=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    save_adapter(model, adapter)
    options = TrainOptions(
        run=tmp_path, pool=tmp_path / "pool", adapter="mine", start_from=lively_bundle, model=SMALL,
        crop=pair_crops(find_pairs(folder)),
    )  # fmt: skip
    fit_own_trust_curve(options, adapter)
    trust_curve = Adapter.load(adapter).trust_curve
    assert trust_curve is not None
    rows = np.full((1, len(EVIDENCE), SMALL.bands, 1), 0.2, np.float32)
    assert trust_curve.amount(rows, True).mean() < 0.2, "an untrained network is wrong"
    shutil.rmtree(tmp_path / "pool" / "valid")
    fit_own_trust_curve(options, adapter)
    trust_curve = Adapter.load(adapter).trust_curve
    assert trust_curve is not None
    assert (trust_curve.amount(rows, False) == 1.0).all(), (
        "without held-out material the whole correction is let through"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "x"], "name it with --adapter NAME"),
        (["--pairs", "x", "--adapter", "bleed"], "a preset with this name already exists"),
        (["--pairs", "x", "--adapter", "mine"], "has no folder 'before'"),
    ],
)
def test_the_command_reports_invalid_arguments(arguments: list[str], message: str) -> None:
    from stemprover.cli import app

    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code != 0
    assert message in f"{result.output} {result.exception}".replace("\n", " ")
