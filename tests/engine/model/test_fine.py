"""The fine branch: which features a bin's mask gains depend on, and which they do not."""

from __future__ import annotations

import numpy as np
import torch
from models import SMALL, lively_net
from stemprover.engine.dsp.latent import SLOTS, BandLayout
from stemprover.engine.features import LAYOUT
from stemprover.engine.model.config import GATES
from stemprover.engine.model.fine import FINE_BANDS, FineBranch

BANDS = BandLayout()
AHEAD = SMALL.lookahead
REACH = 6


def features(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, SMALL.features, SMALL.bands, frames, generator=torch.Generator().manual_seed(seed))


def gates_of(values: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        gates: torch.Tensor = lively_net().fine(values)
        return gates


def by_bin(gates: torch.Tensor) -> np.ndarray:
    """(128, K, N) to (8, F, N): the mask gains of the first slot of each bin, in the bands that have mask gains."""
    shown = BANDS.slot_bins[:FINE_BANDS].reshape(-1)
    first = np.flatnonzero(np.diff(shown, prepend=-1))
    slots = gates.reshape(2 * GATES, SLOTS, SMALL.bands, -1)[:, :, :FINE_BANDS]
    return slots.permute(0, 2, 1, 3).reshape(2 * GATES, len(shown), -1)[:, first].numpy()


def test_a_new_branch_is_silent() -> None:
    assert not FineBranch(SMALL)(features(9)).any()


def test_all_slots_of_a_bin_share_its_mask_gain_and_there_is_none_above_11_khz() -> None:
    gates = gates_of(features(30))[0]
    assert gates.shape == (SMALL.gates, SMALL.bands, 30)
    assert not gates[:, FINE_BANDS:].any()
    slots = gates.reshape(2 * GATES, SLOTS, SMALL.bands, -1)[:, :, :FINE_BANDS].permute(0, 2, 1, 3)
    bins = by_bin(gates)
    np.testing.assert_array_equal(slots.numpy(), bins[:, BANDS.slot_bins[:FINE_BANDS]])
    assert bins.shape[1] * 44100 / 2048 > 11000


def test_a_frame_affects_the_six_frames_on_each_side() -> None:
    values = features(60)
    changed = values.clone()
    changed[..., 20] += 3.0
    touched = np.flatnonzero((gates_of(values) - gates_of(changed)).abs().amax(dim=(0, 1, 2)))
    assert touched.tolist() == list(range(20 + AHEAD - REACH, 20 + AHEAD + REACH + 1))


def test_a_bin_affects_only_its_neighbours() -> None:
    values, band, slot = features(40), 40, 5
    changed = values.clone()
    complex_rows = (LAYOUT.stem, LAYOUT.residual)
    starts = [row.start for row in (*complex_rows, LAYOUT.log_stem, LAYOUT.log_mix, LAYOUT.log_residual)]
    starts += [row.start + 2 * SLOTS for row in complex_rows]  # the imaginary parts
    for start in starts:
        changed[:, start + slot, band] += 3.0  # slots of mid come first
    touched = np.flatnonzero(np.abs(by_bin(gates_of(values)[0]) - by_bin(gates_of(changed)[0])).max(axis=(0, 2)))
    place = BANDS.slot_bins[band, slot]
    assert touched.tolist() == list(range(place - 5, place + 6))


def test_severities_and_the_flag_of_the_mix_reach_all_bins_of_a_band() -> None:
    for channel in (LAYOUT.has_mix.start, LAYOUT.severity.stop - 1):
        values, band = features(40), 45
        changed = values.clone()
        changed[:, channel, band] += 3.0
        difference = np.abs(by_bin(gates_of(values)[0]) - by_bin(gates_of(changed)[0])).max(axis=(0, 2))
        mine = np.unique(BANDS.slot_bins[band])
        assert (difference[mine] > 0).all()
        assert not difference[: mine[0] - 5].any()
