"""What a run begins with: a checkpoint, an exported bundle, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundle import Bundle
from ..errors import TrainingError
from ..model.config import ModelConfig
from ..model.network import RepairNet


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What a run has saved. Raises TrainingError for what is none."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise TrainingError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); delete it or give another"
        ) from error


def load_start(net: RepairNet, start_from: Path, device: torch.device) -> Tensor:
    """Weights of a checkpoint or of a bundle's folder into the network; returns the band scale (K,). Raises
    TrainingError where they do not fit."""
    start = from_bundle(start_from) if start_from.is_dir() else load_checkpoint(start_from, device)
    if ModelConfig.from_dict(start["model"]) != net.config:
        give = "give the --base it came from" if start["model"].get("base") else f"set [model] to {start['model']}"
        raise TrainingError(f"{start_from} holds a network of other sizes; {give}")
    missing = net.load_state_dict(start["ema"], strict=False).missing_keys
    if any(net.get_parameter(name).ndim > 1 for name in missing):
        raise TrainingError(f"{start_from} lacks {missing[0]}; it is not a whole network")
    scale: Tensor = start["scale"]
    return scale


def from_bundle(folder: Path) -> dict[str, Any]:
    """The averaged weights, band scale and sizes of an exported model: what a checkpoint holds, but for the optimiser.

    Vectors that are still as at the start are missing: the exporter writes equal ones once.
    """
    import onnx
    from onnx import numpy_helper

    bundle = Bundle.load(folder)
    weights = {
        f"{name}.{item.name}": torch.from_numpy(numpy_helper.to_array(item).copy())
        for name, graph in bundle.graphs.items()
        for item in onnx.load_from_string(graph).graph.initializer
    }
    about = json.loads((folder / "bundle.json").read_text())
    sizes = ModelConfig.from_dict(about["model"])
    return {"ema": weights, "scale": torch.from_numpy(bundle.latent.scale), "model": sizes.to_dict()}
