"""An adapter without layers: what the base makes, let through with the song by another ramp than its own caution's, and
by other shares: `steep` times what its caution's functions say, less `doubt`, before they are cut off at 0 and 1.

    python tools/caution_alone.py --ramp 0.03 0.1 --steep 1.2 --doubt 0.4 -o presets/separated/adapter.safetensors
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from safetensors.numpy import save_file
from stemprover.engine.bundle import Bundle, base_bundle, fingerprint
from stemprover.engine.errors import OptionError
from stemprover.engine.gate import EVIDENCE, Ramp
from stemprover.engine.model.lora import FORMAT


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--ramp", type=float, nargs=2, required=True, metavar=("CLOSED", "OPENED"))
    parser.add_argument("--steep", type=float, default=1.0, help="over 0")
    parser.add_argument("--doubt", type=float, default=0.0, help="0 or more")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    if not 0.0 < given.steep < float("inf"):
        parser.error(f"--steep {given.steep:g}: give more than 0")
    if not 0.0 <= given.doubt < float("inf"):
        parser.error(f"--doubt {given.doubt:g}: give 0 or more")
    if given.out.exists():
        parser.error(f"{given.out} is there already; give another name")
    caution = Bundle.load(base_bundle()).caution
    if caution is None:
        parser.error("the base has no caution")
    try:
        ramps = Ramp(*given.ramp), caution.ramps[1]
        with_mix = given.steep * caution.with_mix
        with_mix[..., EVIDENCE.index("always")] -= given.doubt
        caution = replace(caution, with_mix=with_mix, ramps=ramps)
    except OptionError as error:
        parser.error(f"--ramp: {error}")
    meta = {"format": FORMAT, "rank": "0", "scale": "1.0", "base": fingerprint({})}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({}, given.out, metadata=meta | {"caution": json.dumps(caution.to_dict())})


if __name__ == "__main__":
    main()
