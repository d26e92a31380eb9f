"""Adapters that are trained jointly, alone and in pairs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stemprover.engine.adapters import Adapter, active_adapters, merge_adapters
from stemprover.engine.bundle import Bundle
from stemprover.engine.errors import OptionError, TrainingError
from stemprover.engine.train.joint import JointTrainer, main, mean_weights, train_jointly
from stemprover.engine.train.options import JointOptions, LossWeights, load_joint_options

MODEL = "[model]\ncontrol = [16, 16, 32]\ndenoiser = [16, 16, 16]\ntokens = 16\nfine = 8\n"
RECIPES = {
    "fizz": 'adapter = "fizz"\nrank = 2\nbf16 = false\n[crop]\nartefacts = ["bleed"]\n[weights]\nlog_error = 3.0\n',
    "buzz": 'adapter = "buzz"\nrank = 3\nbf16 = false\nparts = ["fine"]\n[crop]\nartefacts = ["musical-noise"]\n',
    "hiss": 'adapter = "hiss"\nrank = 2\nbf16 = false\n[crop]\nartefacts = ["phasiness"]\n',
}


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    for name, recipe in RECIPES.items():
        (tmp_path / "presets" / name).mkdir(parents=True)
        (tmp_path / "presets" / name / "recipe.toml").write_text(recipe + MODEL)
    return tmp_path / "presets"


def options(pool: Path, presets: Path, bundle: Path, run: str, **changes: object) -> JointOptions:
    given = {
        "run": presets.parent / run, "pool": pool, "presets": presets, "adapters": tuple(RECIPES), "start_from": bundle,
        "steps": 6, "batch": 2, "frames": 12, "history": 8, "warmup": 2, "threads": 1, "workers": 0, "device": "cpu",
    } | changes  # fmt: skip
    return JointOptions(**given)  # type: ignore[arg-type]


def test_a_step_changes_only_its_own_adapters(pool: Path, presets: Path, lively_bundle: Path) -> None:
    trainer = JointTrainer(options(pool, presets, lively_bundle, "run"))
    for names in (("fizz",), ("buzz",), ("fizz", "buzz")):
        before = {name: {key: p.detach().clone() for key, p in own.items()} for name, own in trainer.lora.items()}
        trainer.step(names, trainer.batches.by_set[names][0])
        for name, own in trainer.lora.items():
            moved = any(not torch.equal(p, before[name][key]) for key, p in own.items())
            assert moved == (name in names), f"{name} in a step of {names}"
    assert all("fine." in key for key in trainer.lora["buzz"])
    assert not any("fine." in key for key in trainer.lora["fizz"])


def test_two_adapters_add_up_in_training_as_in_a_blend(pool: Path, presets: Path, lively_bundle: Path) -> None:
    trainer = JointTrainer(options(pool, presets, lively_bundle, "run"))
    with torch.no_grad():
        for own in trainer.lora.values():
            for parameter in own.values():
                parameter.normal_(std=0.1)
    trainer.average = {key: p.detach().clone() for own in trainer.lora.values() for key, p in own.items()}
    trainer.save()
    files = [trainer.options.run / f"{name}.safetensors" for name in ("fizz", "buzz")]
    bundle = Bundle.load(lively_bundle)
    graphs = merge_adapters(bundle, active_adapters(dict.fromkeys(files, 1.0)))
    assert graphs != dict(bundle.graphs)
    trainer.activate(("fizz", "buzz"))
    merged = trainer.model.get_base_model()
    import onnx
    from onnx import numpy_helper

    for name, graph in graphs.items():
        for item in onnx.load_from_string(graph).graph.initializer:
            layer = f"{name}.{item.name.removesuffix('.weight')}"
            found = dict(merged.named_modules()).get(layer)
            if not hasattr(found, "lora_A"):
                continue
            wanted = found.base_layer.weight + sum(
                found.get_delta_weight(own) for own in ("fizz", "buzz") if own in found.lora_A
            )
            assert torch.allclose(torch.from_numpy(numpy_helper.to_array(item).copy()), wanted, atol=1e-5), layer


def test_a_run_resumes_where_it_stopped_and_starts_from_the_presets(
    pool: Path, presets: Path, lively_bundle: Path
) -> None:
    train_jointly(options(pool, presets, lively_bundle, "whole"), lambda _: None)
    half = JointTrainer(options(pool, presets, lively_bundle, "cut"))
    for step in range(3):
        half.step(*half.batches[step])
    half.save()
    train_jointly(options(pool, presets, lively_bundle, "cut"), lambda _: None)
    whole, cut = (torch.load(presets.parent / run / "checkpoint.pt", weights_only=True) for run in ("whole", "cut"))
    assert whole["step"] == cut["step"] == 6
    for key, value in whole["net"].items():
        assert torch.allclose(value, cut["net"][key], atol=1e-5), key
    made = presets.parent / "whole" / "hiss.safetensors"
    shutil.copy(made, presets / "hiss" / "adapter.safetensors")
    on = JointTrainer(options(pool, presets, lively_bundle, "on"))
    a, _ = Adapter.load(made).factors[next(iter(Adapter.load(made).factors))]
    found = [p for key, p in on.lora["hiss"].items() if ".lora_A." in key and p.shape == a.shape]
    assert any(np.allclose(p.detach().numpy(), a) for p in found)


def test_pairs_have_both_faults_and_every_set_its_probability(pool: Path, presets: Path, lively_bundle: Path) -> None:
    chosen = options(pool, presets, lively_bundle, "run", pairs=0.6, weights=(2.0, 1.0, 1.0))
    sets = dict(chosen.sets)
    assert sum(sets.values()) == pytest.approx(1.0)
    assert sets[("fizz",)] == pytest.approx(0.2)
    assert sets[("fizz", "buzz")] == pytest.approx(0.24)
    crop = chosen.crop([chosen.recipe("fizz"), chosen.recipe("hiss")])
    assert crop.together
    assert set(crop.artefacts) == {"bleed", "phasiness"}
    trainer = JointTrainer(chosen)
    again = JointTrainer(chosen)
    drawn = [trainer.batches[step][0] for step in range(12)]
    assert {len(names) for names in drawn} == {1, 2}
    assert drawn == [again.batches[step][0] for step in range(12)]


def test_weights_of_two_recipes_are_averaged() -> None:
    assert mean_weights([LossWeights(log_error=1.0, phase=0.0), LossWeights(log_error=3.0, phase=0.2)]) == LossWeights(
        log_error=2.0, phase=0.1
    )


def test_invalid_joint_options_are_named(presets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError, match=r"adapters=\['fizz'\]: name two or more"):
        JointOptions(adapters=("fizz",))
    with pytest.raises(TrainingError, match="weights="):
        JointOptions(weights=(1.0,))
    with pytest.raises(TrainingError, match="pairs=2"):
        JointOptions(pairs=2.0)
    config = tmp_path / "joint.toml"
    config.write_text("pares = 0.5\n")
    with pytest.raises(OptionError, match=r"unknown key 'pares'; did you mean 'pairs'"):
        load_joint_options(config)
    with pytest.raises(SystemExit, match=r"recipe\.toml: no such file"):
        main(["--adapters", "fizz", "fuzz", "--pool", str(tmp_path), "--run", str(tmp_path / "run")])
