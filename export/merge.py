"""LoRA by peft: adapters on attention and convolutions, merged into the base with a proof."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from ..engine.errors import ExportError
from ..engine.model.network import RepairNet
from .graphs import example_inputs

TARGETS = r".*\.(to_q|to_k|to_v|to_out\.0|conv1\.conv|conv2\.conv)"


def add_adapter(net: RepairNet, rank: int = 8, alpha: float = 8.0, name: str = "default") -> PeftModel:
    """The network with a fresh, neutral LoRA on to_q, to_k, to_v, to_out, conv1 and conv2 of control branch and denoiser."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS, init_lora_weights=True)
    return get_peft_model(net, config, adapter_name=name)  # type: ignore[arg-type]


def save_adapter(model: PeftModel, path: Path, name: str = "default") -> None:
    """One adapter as safetensors; keys `<layer>.lora_A` and `<layer>.lora_B`, the scale alpha / r in the metadata."""
    config = model.peft_config[name]
    tensors = {}
    for key, value in get_peft_model_state_dict(model, adapter_name=name).items():
        plain = key.removeprefix("base_model.model.").removesuffix(".weight")
        tensors[plain] = value.detach().cpu().contiguous()
    scale = config.lora_alpha / config.r
    save_file(tensors, path, metadata={"scale": str(scale), "rank": str(config.r), "format": "stemprover-lora-1"})


def load_adapter(net: RepairNet, path: Path, name: str = "default") -> PeftModel:
    """The network with a saved LoRA on it, not yet merged. Raises ExportError where the file does not fit the network."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        meta = file.metadata() or {}
        rank = int(meta.get("rank", 0))
        if rank < 1:
            raise ExportError(f"{path}: not an adapter of this program (no rank in its metadata); make one with stemprover train")
        model = add_adapter(net, rank, float(meta["scale"]) * rank, name)
        own = model.state_dict()
        for key in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
            full = f"base_model.model.{key}.{name}.weight"
            if full not in own or own[full].shape != file.get_tensor(key).shape:
                raise ExportError(f"{path}: {key} does not fit this network; the adapter was made for another base")
            own[full].copy_(file.get_tensor(key))
    return model


def merge(model: PeftModel) -> tuple[RepairNet, float]:
    """The plain network with all active adapters in its weights, and the proof: the largest relative difference between
    merged and unmerged outputs over random inputs."""
    unmerged = copy.deepcopy(model).eval()
    merged: nn.Module = copy.deepcopy(model).eval().merge_and_unload()  # type: ignore[operator]
    assert isinstance(merged, RepairNet)
    inputs = example_inputs(merged.config, frames=9)
    control = torch.nn.functional.pad(inputs["control"], (merged.config.lookahead, 0))
    with torch.no_grad():
        arguments = (control, inputs["x_t"], inputs["t"], inputs["stem"], inputs["mix"])
        before, after = unmerged(*arguments), merged(*arguments)
    error = float((before - after).abs().max() / before.abs().max().clamp_min(1.0))
    return merged, error
