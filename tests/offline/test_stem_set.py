"""`repair` of all stems of a song, which sum to the mix afterwards."""

from __future__ import annotations

import re
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
            np.testing.assert_allclose(
                one[:, unknown], other[:, unknown], rtol=0.0, atol=1e-6, err_msg="without a mix nothing is added"
            )
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
    np.testing.assert_allclose(soundfile.read(out / "vocals.wav")[0], wanted, rtol=0.0, atol=1e-6)


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


@pytest.mark.parametrize("longer", [1, -1, 700])
def test_a_stem_may_be_longer_or_shorter_than_the_others(
    run_cli, stems, make_audio, tmp_path: Path, longer: int
) -> None:
    paths, song = stems
    levels = soundfile.read(paths[1])[0].T
    make_audio("in/drums.wav", levels=np.pad(levels, ((0, 0), (0, 1000)))[:, : levels.shape[1] + longer])
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 0
    assert "the 3 stems sum to the mix" in found.out
    made = [soundfile.read(out / path.name)[0] for path in paths]
    assert [len(audio) for audio in made] == [soundfile.info(path).frames for path in paths]
    shortest = min(len(audio) for audio in made)
    mix = soundfile.read(song)[0][:shortest]
    rest = mix - sum(audio[:shortest] for audio in made)
    assert 10 * np.log10((rest**2).sum() / (mix**2).sum()) < -60


def test_if_the_sum_cannot_be_written_the_repaired_stems_stay(
    run_cli, stems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, song = stems
    monkeypatch.setattr("shutil.copymode", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 1
    assert "do not sum to the mix" in found.err
    np.testing.assert_allclose(
        soundfile.read(out / "drums.wav")[0], 0.9 * soundfile.read(paths[1])[0], rtol=0.0, atol=1e-6
    )


def late(audio: np.ndarray, samples: float) -> np.ndarray:
    """Samples (n, C), later by a fraction."""
    padded = np.pad(audio, ((0, 1024), (0, 0)))
    spectra = np.fft.rfft(padded, axis=0)
    turn = np.exp(-2j * np.pi * np.arange(len(spectra)) / len(padded) * samples)[:, None]
    return np.fft.irfft(spectra * turn, len(padded), axis=0)[: len(audio)]


@pytest.fixture
def exact(make_audio: Callable[..., Path]) -> tuple[list[Path], Path, list[np.ndarray]]:
    """Three stems of four seconds that sum to their mix, the mix, and the stems' samples."""
    rng = np.random.default_rng(3)
    envelopes = np.repeat(rng.uniform(0, 1, (3, 20)) ** 2, 44100 // 5, axis=1)[:, None]
    sounds = [0.1 * (envelopes[n] * rng.standard_normal((2, 4 * 44100))).astype(np.float32) for n in range(3)]
    paths = [
        make_audio(f"in/{name}.wav", levels=levels, subtype="PCM_24")
        for name, levels in zip(("vocals", "drums", "other"), sounds, strict=True)
    ]
    return paths, make_audio("song.wav", levels=sum(sounds), subtype="FLOAT"), [audio.T for audio in sounds]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda audio: np.roll(audio, 1, axis=0), "drums.wav is 1 sample late: corrected"),
        (lambda audio: late(audio, 0.5), "drums.wav is 0.5"),
        (lambda audio: late(audio, -7.25), "drums.wav is 7.2"),
        (lambda audio: -audio, "drums.wav has inverted polarity: corrected"),
        (lambda audio: 10**0.05 * audio, "drums.wav is 1.00 dB too loud: corrected"),
        (lambda audio: 0.5 * np.roll(audio, 3, axis=0), "drums.wav is 3 samples late: corrected, drums.wav is 6.0"),
    ],
)
def test_a_stem_that_is_off_is_corrected_and_told(
    run_cli, exact, tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray], told: str
) -> None:
    paths, song, sounds = exact
    soundfile.write(paths[1], spoil(sounds[1]), 44100, "PCM_24")
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer())
    assert found.code == 0, found.err
    assert told in found.out
    assert residual_db(song, [out / path.name for path in paths]) < -60
    for path, audio in zip(paths, sounds, strict=True):
        error = (soundfile.read(out / path.name)[0] - audio)[64:-64]
        assert 10 * np.log10((error**2).sum() / (audio**2).sum()) < -35, "and no stem is bent"


def test_a_16_bit_set_that_was_limited_stem_by_stem_gets_its_levels_back(run_cli, exact, tmp_path: Path) -> None:
    paths, song, sounds = exact
    for path, audio, peak in zip(paths, sounds, (0.2, 0.9, 0.15), strict=True):
        soundfile.write(path, audio / max(1.0, np.abs(audio).max() / peak), 44100, "PCM_16")
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer())
    assert "vocals.wav is " in found.out
    assert "dB too quiet: corrected" in found.out
    assert "drums.wav is " not in found.out
    assert residual_db(song, [out / path.name for path in paths]) < -60
    for path, audio in zip(paths, sounds, strict=True):
        np.testing.assert_allclose(soundfile.read(out / path.name)[0], audio, rtol=0.0, atol=3e-4)


def test_bleed_is_told_and_bends_nothing(run_cli, exact, tmp_path: Path) -> None:
    paths, song, sounds = exact
    for path, audio in zip(paths, sounds, strict=True):
        soundfile.write(path, audio + 0.3 * (sum(sounds) - audio), 44100, "PCM_24")
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer())
    assert "the stems do not add up to the mix: what they have too much is at -4.4 dB" in found.out
    assert "stems with bleed do not add up" in found.out
    for path in paths:
        assert np.array_equal(soundfile.read(out / path.name)[0], soundfile.read(path)[0])


@pytest.mark.parametrize("given", [1, 2, 3])
def test_stems_and_residual_are_the_mix(run_cli, exact, tmp_path: Path, given: int) -> None:
    paths, song, _ = exact
    out, rest = tmp_path / "out", tmp_path / "rest.flac"
    arguments = ("repair", *paths[:given], "-o", f"{out}/", "--mix", song, "--residual", rest)
    found = run_cli(*arguments, repairer=FakeRepairer(0.9))
    assert found.code == 0, found.err
    assert "rest.flac sum to the mix" in found.out
    made = [out / path.name for path in paths[:given]]
    assert residual_db(song, [*made, rest]) < -80
    for path, target in zip(paths, made, strict=False):
        wanted = 0.9 * soundfile.read(path)[0]
        np.testing.assert_allclose(
            soundfile.read(target)[0], wanted, rtol=0.0, atol=1e-6, err_msg="nothing is shared out"
        )
    assert run_cli(*arguments, repairer=FakeRepairer()).code == 2, "nothing is replaced without --overwrite"
    for bad in (paths[0], song, out / "vocals.wav"):
        wrong = ("repair", *paths[:given], "-o", f"{out}/", "--mix", song, "--overwrite", "--residual", bad)
        assert run_cli(*wrong, repairer=FakeRepairer()).code == 2


def test_a_residual_needs_a_mix_and_the_sum(run_cli, exact, tmp_path: Path) -> None:
    paths, song, _ = exact
    arguments = ("repair", *paths, "-o", tmp_path / "out", "--residual", tmp_path / "rest.wav")
    assert "--residual needs a mix" in run_cli(*arguments).err
    assert "--residual and --no-sum exclude each other" in run_cli(*arguments, "--mix", song, "--no-sum").err


def test_no_residual_is_written_if_a_stem_fails(run_cli, exact, tmp_path: Path) -> None:
    paths, song, _ = exact
    paths[0].write_bytes(b"not audio")
    rest = tmp_path / "rest.wav"
    arguments = ("repair", *paths, "-o", tmp_path / "out", "--mix", song, "--residual", rest)
    found = run_cli(*arguments, repairer=FakeRepairer())
    assert f"{rest} was not written, because a stem failed" in found.err
    assert not rest.exists()


def test_a_stem_that_others_contain_is_not_summed(run_cli, exact, make_audio, tmp_path: Path) -> None:
    paths, song, sounds = exact
    make_audio("in/bass.wav", levels=0 * sounds[0].T)
    make_audio("in/song_(Instrumental).wav", levels=(sounds[1] + sounds[2]).T, subtype="PCM_24")
    make_audio("in/mixture.wav", levels=sum(sounds).T, subtype="PCM_24")
    out = tmp_path / "out"
    found = run_cli("repair", tmp_path / "in", "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert "the 4 stems sum to the mix" in found.out
    assert residual_db(song, [out / path.name for path in paths]) < -60


def test_vocals_and_instrumental_sum_to_their_own_sum(run_cli, exact, make_audio, tmp_path: Path) -> None:
    _, song, sounds = exact
    paths = [
        make_audio(f"two/1_song_({name}).wav", levels=audio.T, subtype="PCM_24")
        for name, audio in (("Vocals", sounds[0]), ("Instrumental", sounds[1] + sounds[2]))
    ]
    out = tmp_path / "out"
    found = run_cli("repair", tmp_path / "two", "-o", out, repairer=FakeRepairer(0.9))
    assert found.code == 0, found.err
    assert "the 2 stems sum to the mix" in found.out
    assert residual_db(song, [out / path.name for path in paths]) < -60


def test_a_quiet_stem_that_is_missing_is_not_shared_out_among_the_others(run_cli, exact, tmp_path: Path) -> None:
    paths, song, sounds = exact
    for path, audio in zip(paths[:2], sounds, strict=False):
        audio[44100:88200] = 0.0
        soundfile.write(path, audio, 44100, "PCM_24")
    sounds[2] *= 10 ** (-28 / 20)
    soundfile.write(song, sum(sounds), 44100, "FLOAT")
    out = tmp_path / "out"
    found = run_cli("repair", *paths[:2], "-o", out, "--mix", song, repairer=FakeRepairer())
    assert re.search(r"do not add up to the mix: what is missing is at -\d\d\.\d dB", found.out)
    for path in paths[:2]:
        assert np.array_equal(soundfile.read(out / path.name)[0], soundfile.read(path)[0])


def test_no_residual_is_written_of_another_song(run_cli, exact, make_audio, tmp_path: Path) -> None:
    paths, _, _ = exact
    other, rest = make_audio("other-song.wav", seconds=4.0, seed=7), tmp_path / "rest.wav"
    arguments = ("repair", *paths, "-o", tmp_path / "out", "--mix", other, "--residual", rest)
    found = run_cli(*arguments, repairer=FakeRepairer())
    assert found.code == 3
    assert "stems not found in the mix" in found.out
    assert "rest.wav was not written" in found.out
    assert not rest.exists()
