"""An adapter between what a run began with (`on` in its recipe) and what it ended with: factors and caution at `share`
of the end (the caution at one of its own, if given), and the change as a whole `gain` times as large. The gate's limits
are the end's. A layer that the start lacks is left out; one that the end lacks is an error.

python tools/blend_adapters.py runs/bleed/bleed.safetensors presets/bleed/adapter.safetensors -o bleed.safetensors
python tools/blend_adapters.py runs/bleed/bleed.safetensors --gain 1.1 -o bleed.safetensors
python tools/blend_adapters.py mean.safetensors old.safetensors --share 1 --caution-share 0.67 -o bleed.safetensors
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from stemprover.engine.adapters import Adapter, write_adapter
from stemprover.engine.constants import MAX_WEIGHT
from stemprover.engine.errors import ModelError
from stemprover.engine.model.lora import FORMAT
from stemprover.engine.trust import Caution


def between(
    end: Adapter, start: Adapter, share: float, caution_share: float | None = None
) -> tuple[dict[str, np.ndarray], Caution | None]:
    """Tensors and caution, which has `share` too unless told otherwise. Ranks are the end's; the start's factors lie
    in the first rows of the end's, as they do when a run goes on from them. Raises ModelError."""
    if end.scale != start.scale:
        raise ModelError(
            f"{start.path} has scale {start.scale:g}, {end.path} {end.scale:g}: one did not begin with the other"
        )
    tensors = {}
    for layer, (start_a, start_b) in start.factors.items():
        if layer not in end.factors:
            raise ModelError(f"{end.path} has no {layer}, so it did not begin with {start.path}")
        a, b = (factor.astype(np.float32) for factor in end.factors[layer])
        rank = len(start_a)
        a[:rank] = share * a[:rank] + (1.0 - share) * start_a
        b = share * b
        b[:, :rank] += (1.0 - share) * start_b
        tensors |= {f"{layer}.lora_A": a, f"{layer}.lora_B": b}
    if end.caution is None or start.caution is None:
        if caution_share is not None:
            missing = end.path if end.caution is None else start.path
            raise ModelError(f"{missing} has no caution to take a share of; fit one first")
        return tensors, end.caution
    if any(getattr(end.caution, name) != getattr(start.caution, name) for name in ("knots", "starts")):
        raise ModelError(f"the cautions of {end.path} and {start.path} have not the same knots and groups")
    part = share if caution_share is None else caution_share
    with_mix, without_mix = (
        part * getattr(end.caution, name) + (1.0 - part) * getattr(start.caution, name)
        for name in ("with_mix", "without_mix")
    )
    known = end.caution
    caution = Caution(known.starts, with_mix, without_mix, known.ramps, known.knots, known.contested)
    return tensors, caution


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("end", type=Path)
    parser.add_argument("start", type=Path, nargs="?", default=None, help="the end alone, if not given")
    parser.add_argument("--share", type=float, default=0.5, help="of the end, 0 to 1")
    parser.add_argument("--caution-share", type=float, default=None, help="of the end's caution, 0 to 1 (--share)")
    parser.add_argument("--gain", type=float, default=1.0, help="of the change, over 0 to 1.5")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    if not 0.0 <= given.share <= 1.0:
        parser.error(f"--share {given.share:g}: give 0 to 1")
    if given.caution_share is not None and not 0.0 <= given.caution_share <= 1.0:
        parser.error(f"--caution-share {given.caution_share:g}: give 0 to 1")
    if not 0.0 < given.gain <= MAX_WEIGHT:
        parser.error(f"--gain {given.gain:g}: give more than 0 and at most {MAX_WEIGHT:g}")
    if given.out.exists():
        parser.error(f"{given.out} is there already; give another name")
    end = Adapter.load(given.end)
    start = end if given.start is None else Adapter.load(given.start)
    try:
        tensors, caution = between(end, start, given.share, given.caution_share)
    except ModelError as error:
        parser.error(str(error))
    rank = max(len(value) for name, value in tensors.items() if name.endswith("lora_A"))
    meta = {"format": FORMAT, "rank": str(rank), "scale": str(given.gain * end.scale), "base": start.base}
    about = {} if caution is None else {"caution": json.dumps(caution.to_dict())}
    write_adapter(given.out, tensors, meta | about)


if __name__ == "__main__":
    main()
