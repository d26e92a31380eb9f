"""Reads and writes checkpoints, and loads the weights that a run starts from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundle import Bundle
from ..errors import TrainingError
from ..model.config import ModelConfig
from ..model.network import RepairNet


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """The saved state of a run. Raises TrainingError if the file is not a checkpoint."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises almost any class, depending on the bytes
        raise TrainingError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); delete it or use another"
        ) from error


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state under a temporary name and rename it, so that the file is always whole."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_start(net: RepairNet, start_from: Path, device: torch.device) -> Tensor:
    """Load the weights of a checkpoint or of a bundle's folder into the network; returns the band scale (K,). Raises
    TrainingError if they do not fit."""
    start = _from_bundle(start_from) if start_from.is_dir() else load_checkpoint(start_from, device)
    if ModelConfig.from_dict(start["model"]) != net.config:
        fix = "use the --base it came from" if start["model"].get("base") else f"set [model] to {start['model']}"
        raise TrainingError(f"{start_from} holds a network of other sizes; {fix}")
    missing = net.load_state_dict(start["ema"], strict=False).missing_keys
    if any(net.get_parameter(name).ndim > 1 for name in missing):
        raise TrainingError(f"{start_from} lacks {missing[0]}, so it is not a whole network; export or train it again")
    scale: Tensor = start["scale"]
    return scale


def _from_bundle(folder: Path) -> dict[str, Any]:
    """The averaged weights, band scale and sizes of an exported model, under the keys of a checkpoint.

    Vectors that still have their initial values are missing, because the exporter writes equal vectors only once.
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
