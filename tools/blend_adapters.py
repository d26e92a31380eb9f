"""Blend an adapter with the one that its training started from (`on` in its recipe): layer factors and trust curve at a
share of the newer one. The whole correction can be scaled by --gain. The ramps of the trust curve are the newer one's.

    python tools/blend_adapters.py runs/bleed/bleed.safetensors presets/bleed/adapter.safetensors -o bleed.safetensors
    python tools/blend_adapters.py runs/bleed/bleed.safetensors --gain 1.1 -o bleed.safetensors
    python tools/blend_adapters.py mean.safetensors old.safetensors --share 1 --trust-share 0.67 -o bleed.safetensors

Layers that only the newer adapter has are left out; a layer that only the older one has is an error.
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
from stemprover.engine.trust import TrustCurve


def blended(
    new: Adapter, old: Adapter, share: float, trust_share: float | None = None
) -> tuple[dict[str, np.ndarray], TrustCurve | None]:
    """Tensors and trust curve at `share` of `new`; trust_share: another share for the trust curve. The ranks are those
    of `new`, whose first rows hold the factors of `old`, as when a run continues from them. Raises ModelError."""
    if new.scale != old.scale:
        raise ModelError(
            f"{old.path} has scale {old.scale:g}, {new.path} {new.scale:g}: neither was trained from the other"
        )
    tensors = {}
    for layer, (old_a, old_b) in old.factors.items():
        if layer not in new.factors:
            raise ModelError(f"{new.path} has no {layer}, so it was not trained from {old.path}")
        a, b = (factor.astype(np.float32) for factor in new.factors[layer])
        rank = len(old_a)
        a[:rank] = share * a[:rank] + (1.0 - share) * old_a
        b = share * b
        b[:, :rank] += (1.0 - share) * old_b
        tensors |= {f"{layer}.lora_A": a, f"{layer}.lora_B": b}
    if new.trust_curve is None or old.trust_curve is None:
        if trust_share is not None:
            missing = new.path if new.trust_curve is None else old.path
            raise ModelError(f"{missing} has no trust curve to blend; fit one first")
        return tensors, new.trust_curve
    if any(getattr(new.trust_curve, name) != getattr(old.trust_curve, name) for name in ("knots", "starts")):
        raise ModelError(f"the trust curves of {new.path} and {old.path} have different knots or groups of bands")
    part = share if trust_share is None else trust_share
    with_mix, without_mix = (
        part * getattr(new.trust_curve, name) + (1.0 - part) * getattr(old.trust_curve, name)
        for name in ("with_mix", "without_mix")
    )
    known = new.trust_curve
    trust_curve = TrustCurve(known.starts, with_mix, without_mix, known.ramps, known.knots, known.contested)
    return tensors, trust_curve


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("new", type=Path, help="adapter at the end of its training")
    parser.add_argument("old", type=Path, nargs="?", default=None, help="adapter that the training started from")
    parser.add_argument("--share", type=float, default=0.5, help="share of the new adapter, 0 to 1")
    parser.add_argument(
        "--trust-share", type=float, default=None, help="share of the new trust curve, 0 to 1 (default: --share)"
    )
    parser.add_argument("--gain", type=float, default=1.0, help="factor of the correction, above 0 to 1.5")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    if not 0.0 <= given.share <= 1.0:
        parser.error(f"--share {given.share:g} is out of range; choose 0 to 1")
    if given.trust_share is not None and not 0.0 <= given.trust_share <= 1.0:
        parser.error(f"--trust-share {given.trust_share:g} is out of range; choose 0 to 1")
    if not 0.0 < given.gain <= MAX_WEIGHT:
        parser.error(f"--gain {given.gain:g} is out of range; choose more than 0 and at most {MAX_WEIGHT:g}")
    if given.out.exists():
        parser.error(f"{given.out} exists already; choose another name")
    new = Adapter.load(given.new)
    old = new if given.old is None else Adapter.load(given.old)
    try:
        tensors, trust_curve = blended(new, old, given.share, given.trust_share)
    except ModelError as error:
        parser.error(str(error))
    rank = max(len(value) for name, value in tensors.items() if name.endswith("lora_A"))
    meta = {"format": FORMAT, "rank": str(rank), "scale": str(given.gain * new.scale), "base": old.base}
    about = {} if trust_curve is None else {"trust": json.dumps(trust_curve.to_dict())}
    write_adapter(given.out, tensors, meta | about)


if __name__ == "__main__":
    main()
