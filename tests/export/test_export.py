"""Export: ONNX equals torch, merged equals unmerged, and adapters merged at load time equal those merged by torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from models import lively_net, sound, untrained_net
from stemprover.engine.adapters import Adapter, active_adapters, merge_adapters
from stemprover.engine.bundle import GRAPHS, Bundle
from stemprover.engine.detect.detectors import Detectors
from stemprover.engine.errors import ExportError, ModelError, OptionError, OutputExistsError
from stemprover.engine.model.lora import add_adapter, load_adapter, save_adapter
from stemprover.engine.repair import Repairer
from stemprover.engine.runtime import Runtime
from stemprover.export.bundle import SHAPES, export_bundle, write_bundle
from stemprover.export.merge import merge
from stemprover.export.parity import ParityReport, TensorError

SCALE = np.ones(84, np.float32)


def trained_adapter(path: Path, seed: int) -> Path:
    """An adapter whose B is no longer zero."""
    model = add_adapter(lively_net(), rank=4)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    save_adapter(model, path)
    return path


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [trained_adapter(folder / f"{name}.safetensors", seed) for seed, name in enumerate(("a", "b"))]


def test_an_adapter_file_has_the_default_permissions(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    made = trained_adapter(tmp_path / "a.safetensors", seed=3)
    assert made.stat().st_mode == (tmp_path / "any").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"any", "a.safetensors"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = lively_net()
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    saved = {"ema": net.state_dict(), "scale": torch.ones(84), "model": net.config.to_dict()}
    torch.save(saved | {"detectors": Detectors().fingerprint}, path)
    return path


def test_the_graphs_equal_torch_over_many_shapes(lively_bundle: Path) -> None:
    folder = lively_bundle
    about = json.loads((folder / "bundle.json").read_text())
    assert sorted(p.name for p in folder.iterdir()) == ["bundle.json", "control.onnx", "denoiser.onnx", "fine.onnx"]
    for name in GRAPHS:
        model = onnx.load(folder / f"{name}.onnx")
        assert model.opset_import[0].version == 18
        inputs = [value.name for value in model.graph.input]
        assert {f"{key}.cache" for key in about["caches"][name]} <= set(inputs)
        text = model.SerializeToString()
        assert b"/site-packages" not in text
        assert b".py" not in text, "no paths of the machine that exported it"


def test_a_report_names_the_worst_tensor_and_fails_over_its_limit() -> None:
    tensors = (
        TensorError("control", "tokens", (1, 2), 1e-6),
        TensorError("denoiser", "estimate", (1, 64, 84, 4), 3e-4),
    )
    report = ParityReport(tensors, shapes_tried=SHAPES)
    assert not report.ok
    assert "denoiser/estimate [1, 64, 84, 4]: 3.0e-04" in report.render()
    assert ParityReport(tensors[:1]).ok
    assert not ParityReport(tensors[:1], problems=("control/tokens: shape",)).ok
    assert not ParityReport(tensors[:1], merge_error=1e-3).ok
    broken = TensorError("control", "residual.0", (1, 2), float("nan"))
    assert not ParityReport((tensors[0], broken)).ok
    assert ParityReport((tensors[0], broken)).worst is broken
    assert not ParityReport(tensors[:1], merge_error=float("nan")).ok


def test_a_merge_is_proved_and_a_saved_adapter_is_unchanged(adapters: list[Path]) -> None:
    merged, error = merge(load_adapter(lively_net(), adapters[0]))
    assert error < 1e-5
    plain = lively_net().state_dict()
    changed = [name for name, value in merged.state_dict().items() if not torch.equal(value, plain[name])]
    assert len(changed) > 30
    parts = ("conv1", "conv2", ".to_", "conv_in", "conv_out", "fine.")
    assert all(any(part in name for part in parts) for name in changed)


def test_the_fine_branch_runs_only_if_it_was_opened(
    untrained_bundle: Path, lively_bundle: Path, tmp_path: Path
) -> None:
    assert (Bundle.load(untrained_bundle).fine_opened, Bundle.load(lively_bundle).fine_opened) == (False, True)
    torch.manual_seed(0)
    model = add_adapter(untrained_net(), rank=4, parts=("fine",))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape)
    path = tmp_path / "fine.safetensors"
    save_adapter(model, path)
    assert all(layer.startswith("fine.") for layer in Adapter.load(path).factors)
    stem, mix = sound(1.0), sound(1.0, seed=1)
    left = Repairer(bundle=untrained_bundle, restrained=False).process(stem, 44100, mix)
    np.testing.assert_allclose(left, stem, atol=1e-6)
    found = Repairer(bundle=untrained_bundle, blend={path: 1.0}, restrained=False).process(stem, 44100, mix)
    assert float(np.abs(found - stem).max()) > 1e-2


def test_a_new_adapter_is_neutral(tmp_path: Path) -> None:
    save_adapter(add_adapter(lively_net()), tmp_path / "new.safetensors")
    assert Adapter.load(tmp_path / "new.safetensors").neutral
    merged, _ = merge(load_adapter(lively_net(), tmp_path / "new.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(merged.state_dict().values(), lively_net().state_dict().values(), strict=True)
    )


def test_adapters_merged_at_load_equal_those_merged_by_torch(
    adapters: list[Path], lively_bundle: Path, tmp_path: Path
) -> None:
    merged, _ = merge(load_adapter(lively_net(), adapters[0]))
    assert write_bundle(merged, np.linspace(0.5, 2.0, 84).astype(np.float32), tmp_path).ok
    stem, mix = sound(0.8), sound(0.8, seed=1)
    by_torch = Repairer(bundle=tmp_path, steps=2, jobs=1).process(stem, 44100, mix)
    at_load = Repairer(bundle=lively_bundle, blend={adapters[0]: 1.0}, steps=2, jobs=1).process(stem, 44100, mix)
    base = Repairer(bundle=lively_bundle, steps=2, jobs=1).process(stem, 44100, mix)
    assert np.abs(by_torch - at_load).max() <= 1e-4
    assert np.abs(by_torch - base).max() > 1e-3, "the adapter must do something for this test to mean anything"


@pytest.mark.parametrize("weights", [(0.6, 0.4), (1.5, 0.0), (0.3, 1.1)])
def test_a_weighted_blend_equals_the_weighted_sum_in_torch(
    adapters: list[Path], lively_bundle: Path, weights: tuple[float, float]
) -> None:
    net = lively_net()
    state = net.state_dict()
    for path, weight in zip(adapters, weights, strict=True):
        adapter = Adapter.load(path)
        for layer in adapter.factors:
            state[f"{layer}.weight"] += weight * torch.from_numpy(adapter.delta(layer))
    net.load_state_dict(state)
    bundle = Bundle.load(lively_bundle)
    graphs = merge_adapters(bundle, active_adapters(dict(zip(adapters, weights, strict=True))))
    found = {}
    for name in GRAPHS:
        for item in onnx.load_from_string(graphs[name]).graph.initializer:
            found[f"{name}.{item.name}"] = onnx.numpy_helper.to_array(item)
    for path in adapters:
        for layer in Adapter.load(path).factors:
            assert np.abs(found[f"{layer}.weight"] - state[f"{layer}.weight"].numpy()).max() < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_cached_control_equals_recomputed_control_bit_for_bit(lively_bundle: Path, steps: int) -> None:
    from stemprover.engine.stream import CorrectionStream

    runtime = Runtime(Bundle.load(lively_bundle), device="cpu")
    stem = sound(0.6)[:, : 50 * 512][None]
    outs = []
    for recompute in (False, True):
        stream = CorrectionStream(runtime, steps, recompute)
        outs.append(stream.process(stem, 2 * stem, stream.start(1))[0])
    assert outs[0].any()
    assert outs[0].tobytes() == outs[1].tobytes()


def test_export_writes_a_proved_bundle_or_nothing(
    checkpoint: Path, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = export_bundle(checkpoint, tmp_path / "bundle", adapters[0])
    assert report.ok
    assert 0 < report.merge_error < 1e-5
    assert Repairer(bundle=tmp_path / "bundle").process(sound(0.2), 44100).shape == (2, 8820)
    with pytest.raises(OutputExistsError, match="already exists"):
        export_bundle(checkpoint, tmp_path / "bundle")
    (tmp_path / "bundle" / "README.md").write_text("a model card")
    before = (tmp_path / "bundle" / "control.onnx").read_bytes()
    assert export_bundle(checkpoint, tmp_path / "bundle", overwrite=True).ok
    assert (tmp_path / "bundle" / "README.md").read_text() == "a model card"
    assert (tmp_path / "bundle" / "control.onnx").read_bytes() != before
    (tmp_path / "music").mkdir()
    with pytest.raises(OutputExistsError, match="is not a model bundle"):
        export_bundle(checkpoint, tmp_path / "music", overwrite=True)
    (tmp_path / "music").rmdir()
    import stemprover.export.bundle as module

    wrong = ParityReport((TensorError("control", "tokens", (1,), 0.5),))
    monkeypatch.setattr(module, "compare", lambda *_: wrong)
    with pytest.raises(ExportError, match="control/tokens"):
        export_bundle(checkpoint, tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_files_that_are_not_checkpoints_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no checkpoint at"):
        export_bundle(tmp_path / "none.pt", tmp_path / "out")
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    with pytest.raises(ExportError, match="not a checkpoint"):
        export_bundle(tmp_path / "bad.pt", tmp_path / "out")


def test_damaged_models_are_reported_with_the_file(lively_bundle: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(ModelError, match=r"bundle\.json is missing"):
        Bundle.load(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(lively_bundle, broken)
    data = bytearray((broken / "control.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (broken / "control.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"control\.onnx is damaged \(SHA-256"):
        Bundle.load(broken)
    (broken / "control.onnx").unlink()
    with pytest.raises(ModelError, match=r"control\.onnx is missing"):
        Bundle.load(broken)
    (broken / "bundle.json").write_text('{"format": "stemprover-bundle-6", "sha256": {}}')
    with pytest.raises(ModelError, match="damaged"):
        Bundle.load(broken)
    (broken / "bundle.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        Bundle.load(broken)


def test_adapters_that_do_not_fit_are_rejected(lively_bundle: Path, adapters: list[Path], tmp_path: Path) -> None:
    bundle = Bundle.load(lively_bundle)
    with pytest.raises(OptionError, match=r"weight 2 of"):
        merge_adapters(bundle, active_adapters({adapters[0]: 2.0}))
    with pytest.raises(ModelError, match="is missing"):
        merge_adapters(bundle, active_adapters({tmp_path / "none.safetensors": 1.0}))
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="is damaged"):
        merge_adapters(bundle, active_adapters({tmp_path / "bad.safetensors": 1.0}))
    from safetensors.numpy import save_file

    layer = "control.levels.0.0.conv1.conv"
    factors = {
        f"{layer}.lora_A": np.ones((2, 3, 3, 3), np.float32),
        f"{layer}.lora_B": np.ones((4, 2, 1, 1), np.float32),
    }
    meta = {"format": "stemprover-lora-3", "scale": "1", "rank": "2", "base": "?"}
    save_file(factors, tmp_path / "shape.safetensors", metadata=meta)
    with pytest.raises(ModelError, match=r"control\.levels\.0\.0\.conv1\.conv is \(4, 3, 3, 3\)"):
        merge_adapters(bundle, active_adapters({tmp_path / "shape.safetensors": 1.0}))
    model = add_adapter(lively_net(seed=5), rank=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    save_adapter(model, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="trained on another base"):
        merge_adapters(bundle, active_adapters({tmp_path / "other.safetensors": 1.0}))
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(lively_net(), tmp_path / "shape.safetensors")
