"""`repair` of all stems of a song, which sum to the mix afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from models import sound


def residual_db(song: Path, stems: list[Path]) -> float:
    mix = soundfile.read(song)[0]
    residual = mix - sum(soundfile.read(stem)[0] for stem in stems)
    return float(10 * np.log10((residual**2).sum() / (mix**2).sum() + 1e-20))


@pytest.fixture
def stems(make_audio: Callable[..., Path]) -> tuple[list[Path], Path]:
    """Three stems that sum to their mix except for a little noise, and the mix."""
    pitched = ((1, 44100), (2, 38900), (3, 49300))  # resampled, so that no two have the same pitch
    sounds = [0.3 * sound(44100 / rate, rate, seed=seed) for seed, rate in pitched]
    paths = [
        make_audio(f"in/{name}.wav", levels=levels, subtype="PCM_24")
        for name, levels in zip(("vocals", "drums", "other"), sounds, strict=True)
    ]
    song = make_audio("song.wav", levels=sum(sounds) + 0.01 * sound(1.0, 44100, seed=9), subtype="PCM_24")
    return paths, song


def test_repaired_stems_sum_to_the_mix(run_cli, stems, tmp_path: Path) -> None:
    paths, song = stems
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 0, found.err
    made = [out / path.name for path in paths]
    assert residual_db(song, made) < -60
    assert "the 3 stems sum to the mix" in found.out
    assert {path.name for path in out.iterdir()} == {"drums.wav", "other.wav", "vocals.wav"}, "no other files"
    assert soundfile.info(made[0]).subtype == "PCM_24"
    left = run_cli("repair", *paths, "-o", tmp_path / "apart", "--mix", song, "--no-sum", repairer=FakeRepairer(0.9))
    assert left.code == 0
    assert residual_db(song, [tmp_path / "apart" / path.name for path in paths]) > -30


@pytest.mark.parametrize("offset", [500, -700])
@pytest.mark.parametrize("longer", [0, 1000, -1000])
def test_repaired_stems_sum_to_a_mix_with_an_offset(
    run_cli, stems, make_audio, tmp_path: Path, offset: int, longer: int
) -> None:
    paths, song = stems
    whole = soundfile.read(song)[0].T
    samples = whole.shape[1]
    levels = np.pad(whole, ((0, 0), (max(offset, 0), 2000)))[:, max(-offset, 0) :][:, : samples + longer]
    moved = make_audio("moved.wav", levels=levels, subtype="PCM_24")
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", moved, repairer=FakeRepairer(0.9))
    assert found.code == 0, found.err
    assert "the 3 stems sum to the mix" in found.out
    assert found.out.count(f"({abs(offset)} samples) {'before' if offset > 0 else 'after'} the stem") == 3
    known = slice(max(-offset, 0), min(samples, levels.shape[1] - offset))
    summed = sum(soundfile.read(out / path.name)[0].T for path in paths)
    edge = 4096  # a window may reach beyond the end of the mix
    inner = slice(known.start + (edge if known.start else 0), known.stop - (edge if known.stop < samples else 0))
    rest = (whole - summed)[:, inner]
    assert 10 * np.log10((rest**2).sum() / (whole[:, inner] ** 2).sum()) < -60
    apart = tmp_path / "apart"
    assert run_cli("repair", *paths, "-o", apart, "--mix", moved, "--no-sum", repairer=FakeRepairer(0.9)).code == 0
    for path in paths:
        one, other = (soundfile.read(folder / path.name)[0].T for folder in (out, apart))
        for unknown in (slice(0, max(known.start - edge, 0)), slice(known.stop + edge, None)):
            assert one[:, unknown] == pytest.approx(other[:, unknown], abs=1e-6), "without a mix nothing is added"
        ends = np.r_[0 : known.start, known.stop : samples]
        if len(ends):
            assert np.abs(one[:, ends]).max() > 0.5 * np.abs(other[:, ends]).max(), "and nothing is muted"


@pytest.mark.parametrize("quiet_db", [0, -11])
def test_if_a_stem_is_missing_the_others_are_repaired_one_by_one(
    run_cli, stems, make_audio, tmp_path: Path, quiet_db: int
) -> None:
    paths, _ = stems
    sounds = [soundfile.read(path)[0].T for path in paths]
    gain = 10 ** (quiet_db / 20)
    song = make_audio("other-song.wav", levels=sounds[0] + sounds[1] + gain * sounds[2], subtype="FLOAT")
    assert residual_db(song, paths[:2]) == pytest.approx(quiet_db - 5, abs=2)
    out = tmp_path / "out"
    found = run_cli("repair", *paths[:2], "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 0
    assert "the stems do not add up to the mix" in found.out
    wanted = 0.9 * soundfile.read(paths[0])[0]
    assert soundfile.read(out / "vocals.wav")[0] == pytest.approx(wanted, abs=1e-6)


def test_wet_zero_leaves_all_stems_unchanged(run_cli, stems, tmp_path: Path) -> None:
    paths, song = stems
    found = run_cli("repair", *paths, "-o", tmp_path / "out", "--mix", song, "--wet", "0")
    assert found.code == 0, found.err
    for path in paths:
        assert np.array_equal(soundfile.read(tmp_path / "out" / path.name)[0], soundfile.read(path)[0])


def test_stems_that_only_add_up_after_the_repair_are_a_set(run_cli, stems, tmp_path: Path) -> None:
    """For example if everything bleeds into everything."""
    paths, song = stems
    for path in paths:
        too_loud = 1.5 * soundfile.read(path)[0]
        soundfile.write(path, too_loud, 44100, "PCM_24")
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer(1 / 1.5))
    assert "the 3 stems sum to the mix" in found.out
    assert residual_db(song, [out / path.name for path in paths]) < -60


def test_files_of_different_lengths_are_not_a_set(run_cli, stems, make_audio, tmp_path: Path) -> None:
    paths, song = stems
    short = make_audio("in/short.wav", levels=0.1 * sound(0.9, 44100, seed=4))
    found = run_cli("repair", *paths, short, "-o", tmp_path / "out", "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 0
    assert "sum to the mix" not in found.out


def test_if_the_sum_cannot_be_written_the_repaired_stems_stay(
    run_cli, stems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, song = stems
    monkeypatch.setattr("shutil.copymode", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 1
    assert "do not sum to the mix" in found.err
    assert soundfile.read(out / "drums.wav")[0] == pytest.approx(0.9 * soundfile.read(paths[1])[0], abs=1e-6)
