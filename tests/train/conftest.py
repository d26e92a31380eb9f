"""Fixtures for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of noise bursts. Its "separated" stems have half the level and nothing above 11 kHz."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pool")
    for split in ("train", "valid", "valid-other"):
        (folder / split).mkdir()
        items = np.zeros((3, 6, 2, 200_000), np.int16)
        for item in items:
            stems = 6000 * rng.standard_normal((2, 2, 200_000)) * np.abs(np.sin(np.arange(200_000) / 5000))
            spectrum = np.fft.rfft(stems, axis=-1)
            spectrum[..., spectrum.shape[-1] // 2 :] = 0
            dull = 0.5 * np.fft.irfft(spectrum, 200_000)
            item[:] = np.concatenate([stems, dull, dull]).clip(-32767, 32767)
        np.save(folder / split / "shard_000.npy", items)
        (folder / split / "shard_000.json").write_text('{"items": [{}, {}, {}]}')
    return folder
