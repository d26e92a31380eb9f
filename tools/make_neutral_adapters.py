"""A neutral adapter for every preset that names one and was not trained yet, made for the base of a checkpoint.

    python tools/make_neutral_adapters.py runs/base/checkpoint.pt

An adapter belongs to one base (its fingerprint is in the file), so these are made anew with every new base.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from stemprover.engine.model.lora import add_adapter, save_adapter
from stemprover.engine.preset import SHIPPED, list_presets
from stemprover.export.bundle import load_checkpoint


def main() -> None:
    for number, preset in enumerate(list_presets()):
        if preset.is_shipped and not preset.trained:
            torch.manual_seed(number)
            net, _ = load_checkpoint(Path(sys.argv[1]))
            path = SHIPPED / preset.name / "adapter.safetensors"
            save_adapter(add_adapter(net), path)
            print(path.relative_to(SHIPPED.parent), f"{path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
