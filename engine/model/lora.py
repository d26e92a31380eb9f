"""Makes, saves and loads LoRA adapters with peft. The export package merges them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor, nn

from ..adapters import fingerprint, write_adapter
from ..errors import ModelError
from .network import RepairNet

FORMAT = "stemprover-lora-3"
PARTS = ("control", "denoiser", "fine")
INSIDE = ("base_layer", "lora_A", "lora_B")  # modules that peft puts inside a layer with an adapter
LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "conv1.conv", "conv2.conv", "control.conv_in", "conv_in.conv", "conv_out.conv",
)  # fmt: skip


def lora_layers(net: nn.Module, parts: Sequence[str] = PARTS) -> list[str]:
    """Names of the layers that an adapter of these parts changes: attention, the first and last convolutions, the
    convolutions of the blocks, and the whole fine branch. Dilated convolutions are left out, because peft's adapter
    copies kernel, stride and padding but not the dilation."""
    found = []
    for name, layer in net.named_modules():
        if name.split(".")[0] not in parts or any(part in INSIDE for part in name.split(".")):
            continue
        plain = layer.base_layer if hasattr(layer, "base_layer") else layer
        wanted = name.endswith(LAYERS) or (name.startswith("fine.") and isinstance(plain, nn.Conv2d))
        if wanted and getattr(plain, "dilation", (1, 1)) == (1, 1):
            found.append(name)
    return found


def add_adapter(
    net: RepairNet | PeftModel, rank: int = 8, alpha: float | None = None, name: str = "default",
    parts: Sequence[str] = PARTS,
) -> PeftModel:  # fmt: skip
    """The network, frozen, with a new and neutral LoRA on the layers of `lora_layers`. A network that already has
    adapters gets another one. `alpha` defaults to the rank."""
    plain = net.get_base_model() if isinstance(net, PeftModel) else net
    config = LoraConfig(
        r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=lora_layers(plain, parts),
        init_lora_weights=True,
    )  # fmt: skip
    if not isinstance(net, PeftModel):
        return get_peft_model(net, config, adapter_name=name)
    net.add_adapter(name, config)
    return net


def save_adapter(model: PeftModel, path: Path, name: str = "default") -> None:
    """Write one adapter as safetensors, atomically. The keys are `<layer>.lora_A` and `<layer>.lora_B`; the metadata
    holds the scale alpha / r."""
    config = model.peft_config[name]
    tensors = {}
    for key, value in get_peft_model_state_dict(model, adapter_name=name).items():
        plain = key.removeprefix("base_model.model.").removesuffix(".weight")
        tensors[plain] = value.detach().cpu().contiguous().numpy()
    kernels = {
        layer.removeprefix("base_model.model."): module.base_layer.weight.detach().cpu().numpy()
        for layer, module in model.named_modules()
        if hasattr(module, "base_layer") and name in module.lora_A
    }
    meta = {
        "format": FORMAT,
        "rank": str(config.r),
        "scale": str(config.lora_alpha / config.r),
        "base": fingerprint(kernels),
    }
    write_adapter(path, tensors, meta)


def load_adapter(net: RepairNet | PeftModel, path: Path, name: str = "default") -> PeftModel:
    """The network with a saved LoRA on it, not merged. A network that already has adapters gets another one. Raises
    ModelError if the file does not fit the network."""
    tensors, rank, scale = _read(path)
    parts = tuple(part for part in PARTS if any(key.startswith(f"{part}.") for key in tensors))
    model = add_adapter(net, rank, scale * rank, name, parts)
    own = model.state_dict()
    for key, value in tensors.items():
        full = f"base_model.model.{key}.{name}.weight"
        if full not in own or own[full].shape != value.shape:
            raise ModelError(
                f"adapter {path}: {key} does not fit this network; use the base that the adapter was trained on"
            )
        own[full].copy_(value)
    return model


def warm_start(model: PeftModel, path: Path, name: str = "default") -> None:
    """Copy a saved LoRA into the new adapter `name`, whose rank and parts may be larger; the remainder stays new and
    neutral. Raises ModelError if the saved one does not fit."""
    tensors, _, scale = _read(path)
    config, own = model.peft_config[name], model.state_dict()
    for key, value in tensors.items():
        full = f"base_model.model.{key}.{name}.weight"
        room = own.get(full)
        if room is None or room.ndim != value.ndim or any(a < b for a, b in zip(room.shape, value.shape, strict=True)):
            raise ModelError(
                f"adapter {path}: {key} has no room at rank {config.r}; train its parts, with at least its rank"
            )
        factor = scale * config.r / config.lora_alpha if key.endswith("lora_B") else 1.0
        room[tuple(slice(size) for size in value.shape)].copy_(factor * value)


def _read(path: Path) -> tuple[dict[str, Tensor], int, float]:
    """Tensors, rank and scale of an adapter file. Raises ModelError."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - the handle is not a mapping
    except Exception as error:  # safetensors raises unrelated classes for missing and damaged files
        raise ModelError(
            f"adapter {path} cannot be read ({error}); train one with stemprover train --adapter"
        ) from error
    if meta.get("format") != FORMAT:
        raise ModelError(f"adapter {path}: format {meta.get('format')!r} is not supported; train it again")
    try:
        rank, scale = int(meta["rank"]), float(meta["scale"])
    except (KeyError, ValueError) as error:
        raise ModelError(f"adapter {path}: its metadata is damaged ({error}); train it again") from error
    return tensors, rank, scale
