"""What a repair took out of a stem."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer


@pytest.mark.parametrize(("name", "subtype"), [("stem.wav", "PCM_16"), ("stem.flac", "PCM_24"), ("stem.wav", "FLOAT")])
def test_the_result_and_what_was_removed_sum_to_the_stem(
    name: str, subtype: str, make_audio: Callable[..., Path], run_cli: Callable, tmp_path: Path
) -> None:
    stem = make_audio(name, seconds=2.0, subtype=subtype)
    out, removed = tmp_path / f"out-{name}", tmp_path / f"removed-{name}"
    done = run_cli("repair", stem, "-o", out, "--removed", removed, repairer=FakeRepairer(0.7))
    assert done.code == 0, done.err
    before, after, rest = (soundfile.read(path, dtype="float64")[0] for path in (stem, out, removed))
    assert soundfile.info(removed).subtype == subtype
    np.testing.assert_allclose(after + rest, before, atol=2**-24 if subtype == "FLOAT" else 0)
    assert np.abs(rest).max() > 0.1


@pytest.mark.parametrize(
    ("output", "removed", "message"),
    [
        ("out/", "removed.wav", "--removed is for one stem"),
        ("out.wav", "out.wav", "is the output"),
        ("out.wav", "stem.wav", "is an input and is never overwritten"),
        ("out.wav", "old.wav", "already exists"),
    ],
)
def test_what_it_may_not_be_is_told_before_anything_is_done(
    output: str, removed: str, message: str, make_audio: Callable[..., Path], run_cli: Callable, tmp_path: Path
) -> None:
    stem = make_audio("stem.wav")
    make_audio("old.wav")
    before = stem.read_bytes()
    target = f"{tmp_path}/{output}"
    done = run_cli("repair", stem, "-o", target, "--removed", tmp_path / removed, repairer=FakeRepairer())
    assert (done.code, message in done.err) == (2, True)
    assert stem.read_bytes() == before
    assert not Path(target).exists()
