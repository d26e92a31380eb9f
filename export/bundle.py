"""Writes a model bundle: the ONNX graphs, and bundle.json with checksums and everything else that a repair needs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from .. import __version__
from ..engine.detect.detectors import Detectors
from ..engine.dsp.latent import Latent
from ..engine.dsp.stft import StftConfig
from ..engine.errors import ExportError, OutputExistsError
from ..engine.model.causal import forget, memories
from ..engine.model.config import ModelConfig
from ..engine.model.lora import load_adapter
from ..engine.model.network import RepairNet
from ..engine.sampler import DiffusionSchedule
from .graphs import GRAPHS, example_inputs, graph_inputs, graph_outputs, write_graph
from .merge import merge
from .parity import ParityReport, TensorError

FILES = (*[f"{name}.onnx" for name in GRAPHS], "bundle.json")
SHAPES = ((1, 1), (1, 4), (2, 7), (1, 33), (3, 16))


def load_checkpoint(path: Path) -> tuple[RepairNet, np.ndarray]:
    """The averaged weights of a training checkpoint, and the latent's band scale (K,)."""
    if not path.is_file():
        raise ExportError(f"no checkpoint at {path}; `stemprover train` writes checkpoint.pt into the folder of --run")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["detectors"] != Detectors().fingerprint:
            raise ExportError(
                f"{path} was trained with another version's detectors; continue its training with this version"
            )
        net = RepairNet(ModelConfig.from_dict(saved["model"]))
        net.load_state_dict(saved["ema"])
        return net.eval(), saved["scale"].cpu().numpy().astype(np.float32)
    except ExportError:
        raise
    except Exception as error:  # torch.load raises almost any class, depending on the bytes
        raise ExportError(
            f"{path} is not a checkpoint of stemprover train ({type(error).__name__}: {error}); pass its checkpoint.pt"
        ) from error


def export_bundle(checkpoint: Path, out: Path, adapter: Path | None = None, overwrite: bool = False) -> ParityReport:
    """Merge the adapter, write the bundle folder, and compare it with torch. The folder is made under a temporary name
    and renamed only if both agree. Raises ExportError, OutputExistsError."""
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} already exists; choose another folder or pass --overwrite")
    if out.exists() and not (out / "bundle.json").is_file():
        raise OutputExistsError(f"{out} is not a model bundle, so --overwrite does not replace it; choose another name")
    if not out.absolute().parent.is_dir():
        raise ExportError(f"the folder {out.absolute().parent} does not exist; create it first")
    net, scale = load_checkpoint(checkpoint)
    merge_error: float | None = None
    if adapter is not None:
        net, merge_error = merge(load_adapter(net, adapter))
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.absolute().parent))
    try:
        report = write_bundle(net, scale, part, merge_error)
        if not report.ok:
            raise ExportError(f"the export differs from torch, so nothing was written\n{report.render()}")
        part.chmod(0o777 & ~_umask())
        if out.exists():
            for name in FILES:  # bundle.json, which has the checksums, comes last; other files in the folder stay
                os.replace(part / name, out / name)
        else:
            os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return report


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bundle(net: RepairNet, scale: np.ndarray, folder: Path, merge_error: float | None = None) -> ParityReport:
    """Write the graphs and bundle.json into an existing folder, and compare them with torch."""
    caches = {name: write_graph(name, net, folder / f"{name}.onnx") for name in GRAPHS}
    about = {
        "format": "stemprover-bundle-6",
        "made_by": f"stemprover {__version__}",
        "stft": {"n_fft": StftConfig().n_fft, "hop": StftConfig().hop},
        "latent": {"exponent": Latent().exponent, "scale": [round(float(s), 6) for s in scale]},
        "schedule": {"k": DiffusionSchedule().k, "c": DiffusionSchedule().c},
        "model": net.config.to_dict(),
        "detectors": Detectors().fingerprint,
        "lookahead": net.config.lookahead,
        "receptive_field": receptive_field(net),
        "caches": caches,
        "fine_opened": any(bool(parameter.any()) for parameter in net.fine.out.parameters()),
        "sha256": {f"{name}.onnx": checksum(folder / f"{name}.onnx") for name in GRAPHS},
    }
    (folder / "bundle.json").write_text(json.dumps(about, indent=1) + "\n")
    return compare(net, folder, caches, merge_error)


def checksum(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def receptive_field(net: RepairNet) -> dict[str, int]:
    """Frames that an output can depend on, summed over the convolutions of the longest path. The control branch looks
    as far back as ahead; the memory of its features comes before that."""
    return {
        "control": 2 * net.config.lookahead + 1,
        "denoiser": sum(layer.columns for _, layer in memories(net.denoiser)),
    }


def compare(
    net: RepairNet, folder: Path, caches: dict[str, dict[str, list[int]]], merge_error: float | None
) -> ParityReport:
    """Compare names, axes, shapes and values of the graphs with torch, for several shapes and random caches."""
    tensors: list[TensorError] = []
    problems: list[str] = []
    generator = torch.Generator().manual_seed(7)
    for name, make in GRAPHS.items():
        graph = make(net)
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        names_in = graph_inputs(name, net.config) + [f"{key}.cache" for key in caches[name]]
        names_out = graph_outputs(name, net.config) + [f"{key}.next" for key in caches[name]]
        problems += _axes(folder / f"{name}.onnx", names_in, names_out)
        for batch, frames in SHAPES:
            example = example_inputs(net.config, batch, frames, seed=batch * 100 + frames)
            for key, shape in caches[name].items():
                example[f"{key}.cache"] = torch.randn(batch, *shape, generator=generator)
            with torch.no_grad():
                expected = graph(*[example[key] for key in names_in])
            found = session.run(names_out, {key: example[key].numpy() for key in names_in})
            for key, a, b in zip(names_out, expected, found, strict=True):
                if tuple(a.shape) != b.shape:
                    problems.append(f"{name}/{key}: shape {list(b.shape)}, but {list(a.shape)} in torch")
                    continue
                error = float(np.abs(a.numpy() - b).max() / max(1.0, float(a.abs().max()))) if a.numel() else 0.0
                tensors.append(TensorError(name, key, tuple(a.shape), error))
    forget(net)
    return ParityReport(tuple(tensors), tuple(problems), merge_error, shapes_tried=SHAPES)


def _axes(path: Path, names_in: list[str], names_out: list[str]) -> list[str]:
    graph = onnx.load(path).graph
    found = [[v.name for v in values] for values in (graph.input, graph.output)]
    problems = [
        f"{path.stem}: names {sorted(set(a) ^ set(b))} differ"
        for a, b in zip(found, (names_in, names_out), strict=True)
        if a != b
    ]
    for value in graph.input:
        sizes = value.type.tensor_type.shape.dim
        if sizes[0].dim_param != "batch":
            problems.append(f"{path.stem}/{value.name}: the batch axis is fixed")
        if len(sizes) >= 4 and not value.name.endswith(".cache") and sizes[-1].dim_param != "frames":
            problems.append(f"{path.stem}/{value.name}: the frames axis is fixed")
    return problems
