"""Reads a pretrained U-Net of the Stable Diffusion family from a folder in diffusers' format."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from ..errors import ModelError, OptionError
from .config import ModelConfig

CLASS = "UNet2DConditionModel"
#: Layers that start afresh, because our latent and our outputs have other sizes.
REMADE = ("conv_in.", "conv_out.")
#: Layers that only a text prompt, a class label or a guidance scale feeds; dropped, like the keys in config.UNUSED.
TEXT_ONLY = ("add_embedding.", "class_embedding.", "encoder_hid_proj.", "time_embedding.cond_proj.")
#: File endings of weights in full precision. If there are none, the half-precision files are read.
WHOLE = ("safetensors", "safetensors.index.json", "bin", "bin.index.json")
LARGEST = 2**31 - 2**26  # an ONNX file is one protobuf message of at most 2 GiB; 64 MiB are left for the graph itself


def unet_folder(folder: Path) -> Path:
    """The folder of the U-Net: `folder` itself, or unet/ inside a pipeline's folder. Raises OptionError."""
    if not folder.exists():
        raise OptionError(f"base {folder}: no such folder; pass a folder that diffusers' save_pretrained has written")
    if not folder.is_dir():
        raise OptionError(
            f"base {folder} is a file; load it with diffusers, call save_pretrained, and pass the folder that it writes"
        )
    if (folder / "config.json").is_file():
        return folder
    if (folder / "unet" / "config.json").is_file():
        return folder / "unet"
    if (folder / "model_index.json").is_file():
        raise OptionError(f"base {folder} is a pipeline without unet/; choose Stable Diffusion 1, 2 or XL")
    raise OptionError(f"base {folder} has neither config.json nor unet/config.json; pass a folder in diffusers' format")


def read_base(folder: Path) -> dict[str, Any]:
    """All keys of the U-Net's configuration, with diffusers' defaults filled in. Raises OptionError for a file that
    cannot be read and for any other class of model."""
    from diffusers import UNet2DConditionModel

    path = unet_folder(folder) / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        name = found.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise OptionError(f"base {path} cannot be read as a configuration ({error}); download it again") from error
    if name != CLASS:
        raise OptionError(
            f"base {path} describes a {name}; pass the folder of a {CLASS}, the U-Net of Stable Diffusion"
        )
    keys = list(inspect.signature(UNet2DConditionModel.__init__).parameters.values())[1:]
    return {key.name: found.get(key.name, key.default) for key in keys}


def with_base(config: ModelConfig, folder: Path) -> ModelConfig:
    """`config` with the folder's U-Net as the denoiser. Raises OptionError, naming the folder and the value."""
    try:
        return config.with_base(read_base(folder))
    except (ModelError, KeyError, TypeError) as error:
        raise OptionError(f"base {folder}: {error}") from error


def load_base(folder: Path, config: ModelConfig) -> Any:
    """The U-Net with the folder's weights, made causal and ready for the denoiser. Its first and last convolutions are
    new, and the layers that only a prompt would feed are dropped. Raises OptionError if weights are missing or
    damaged."""
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.utils import logging

    from .unet import base_config, make_base_causal

    place = unet_folder(folder)
    whole = any((place / f"diffusion_pytorch_model.{end}").exists() for end in WHOLE)
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # missing weights are reported below, in one line
    try:
        pretrained, about = UNet2DConditionModel.from_pretrained(
            str(place),
            local_files_only=True,
            output_loading_info=True,
            torch_dtype=torch.float32,
            variant=None if whole else "fp16",
        )
    except Exception as error:  # diffusers raises many unrelated classes for missing or damaged files
        reason = " ".join(str(error).split())[:200]
        raise OptionError(
            f"base {place}: the weights cannot be read ({type(error).__name__}: {reason}); download them again"
        ) from error
    finally:
        logging.set_verbosity(before)
    lost = sorted(key for key in about["missing_keys"] if not key.startswith((*REMADE, *TEXT_ONLY)))
    if lost:
        raise OptionError(f"base {place} lacks {len(lost)} weights, the first is {lost[0]}; download it again")
    unet = UNet2DConditionModel.from_config(base_config(config))
    kept = {key: value for key, value in pretrained.state_dict().items() if not key.startswith((*REMADE, *TEXT_ONLY))}
    missing, unknown = unet.load_state_dict(kept, strict=False, assign=True)
    assert not unknown, unknown
    assert all(key.startswith(REMADE) for key in missing), missing
    size = 4 * sum(parameter.numel() for parameter in unet.parameters())
    if size > LARGEST:
        raise OptionError(
            f"base {place} has {size / 4e6:.0f} million weights ({size / 2**30:.1f} GiB), too many for an exported "
            "model, which is one file of at most 2 GiB; choose a smaller U-Net, such as a distilled one"
        )
    return make_base_causal(unet)
