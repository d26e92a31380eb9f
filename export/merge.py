"""Merges LoRA adapters into the base, and proves that the result is equal."""

from __future__ import annotations

import copy

import torch
from peft import PeftModel

from ..engine.model.network import RepairNet
from .graphs import example_inputs


def merge(model: PeftModel) -> tuple[RepairNet, float]:
    """The plain network with all active adapters merged into its weights, and the largest relative difference between
    merged and unmerged outputs for random inputs."""
    unmerged = copy.deepcopy(model).eval()
    merged = copy.deepcopy(model).eval().merge_and_unload()
    assert isinstance(merged, RepairNet)
    inputs = example_inputs(merged.config, frames=9)
    control = torch.nn.functional.pad(inputs["control"], (merged.config.lookahead, 0))
    arguments = (control, inputs["x_t"], inputs["t"], inputs["references"])
    with torch.no_grad():
        before, after = unmerged(*arguments), merged(*arguments)
    return merged, float((before - after).abs().max() / before.abs().max().clamp_min(1.0))
