"""Interpolate the weights of two checkpoints of one network.

    python tools/blend_weights.py runs/new/checkpoint.pt runs/old/checkpoint.pt --share 0.65 -o blend.pt

Weights between the end of a run and its start keep more of what both can do than either (Wortsman et al., Robust
fine-tuning of zero-shot models, 2022). Export the result like any checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, required=True, help="share of the first, 0 to 1")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    if not 0.0 <= given.share <= 1.0:
        parser.error(f"--share {given.share:g} is out of range; choose 0 to 1")
    if given.out.exists():
        parser.error(f"{given.out} exists already; choose another name")
    first, second = (torch.load(path, map_location="cpu", weights_only=True) for path in (given.first, given.second))
    if first["model"] != second["model"]:
        parser.error(f"{given.first} and {given.second} hold networks of different sizes")
    if not torch.equal(first["scale"], second["scale"]):
        parser.error(f"{given.first} and {given.second} have different latents: neither was trained from the other")
    kept = {key: first[key] for key in ("scale", "model", "detectors")}
    kept["ema"] = {name: torch.lerp(second["ema"][name], value, given.share) for name, value in first["ema"].items()}
    torch.save(kept, given.out)


if __name__ == "__main__":
    main()
