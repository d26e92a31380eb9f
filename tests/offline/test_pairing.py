"""Many songs at once: each stem gets the mix that it is in, whatever the names say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from hypothesis import given
from hypothesis import strategies as st
from stemprover.offline import pairing
from stemprover.offline.pairing import find_songs, likeness, pair_with_mixes
from stemprover.offline.plan import BatchJob, plan_batch

RATE = 44100
NAMES = ("vocals", "drums")


def stems_of(seed: int, seconds: float = 3.0) -> dict[str, np.ndarray]:
    """Two stems (T, 2): bursts of noise in bands and at times of their own."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    found = {}
    for name in NAMES:
        level = np.repeat(rng.uniform(0, 1, -(-count // 4410)) ** 3, 4410)[:count, None]
        found[name] = 0.2 * level * rng.standard_normal((count, 2))
    return found


def write(path: Path, audio: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, RATE, subtype="PCM_24")
    return path


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Three songs as three separators write them, and their mixes; one of these has a name that says nothing."""
    places = {
        "Crème Brûlée": "separated/htdemucs/Crème Brûlée/{}.wav",
        "Second Song": "separated/3_Second Song_({})_UVR-MDX.wav",
        "Third": "separated/spleeter/Third/{}.wav",
    }
    for seed, (song, place) in enumerate(places.items()):
        stems = stems_of(seed)
        for name, audio in stems.items():
            write(tmp_path / place.format(name.title() if "(" in place else name), audio)
        mix = {"Crème Brûlée": "creme brulee.wav", "Second Song": "deep/second song (mix).wav", "Third": "bounce.wav"}
        write(tmp_path / "mixes" / mix[song], sum(stems.values()))
    return tmp_path


def paired(library: Path, **options: object) -> dict[str, str | None]:
    plan = plan_batch([library / "separated"], library / "out", mixes=library / "mixes")
    found = pair_with_mixes(plan, library / "mixes", **options)  # type: ignore[arg-type]
    return {
        job.source.relative_to(library / "separated").as_posix(): job.mix and job.mix.name for job in found.plan.jobs
    }


def test_each_stem_gets_the_mix_of_its_song(library: Path) -> None:
    assert paired(library) == {
        "3_Second Song_(Drums)_UVR-MDX.wav": "second song (mix).wav",
        "3_Second Song_(Vocals)_UVR-MDX.wav": "second song (mix).wav",
        "htdemucs/Crème Brûlée/drums.wav": "creme brulee.wav",
        "htdemucs/Crème Brûlée/vocals.wav": "creme brulee.wav",
        "spleeter/Third/drums.wav": "bounce.wav",
        "spleeter/Third/vocals.wav": "bounce.wav",
    }


def test_the_ear_decides_and_not_the_name(library: Path) -> None:
    mixes = library / "mixes"
    (mixes / "creme brulee.wav").rename(mixes / "x.wav")
    (mixes / "bounce.wav").rename(mixes / "creme brulee.wav")
    (mixes / "x.wav").rename(mixes / "third.wav")
    found = paired(library)
    assert found["htdemucs/Crème Brûlée/vocals.wav"] == "third.wav"
    assert found["spleeter/Third/vocals.wav"] == "creme brulee.wav"


def test_among_many_mixes_of_one_length_few_are_tried(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(10, 22):
        write(library / "mixes" / f"take {seed}.wav", sum(stems_of(seed).values()))
    tried: list[Path] = []
    prove = pairing.prove

    def counted(stem: object, mix: object) -> object:
        tried.append(mix.path)  # type: ignore[attr-defined]
        return prove(stem, mix)  # type: ignore[arg-type]

    monkeypatch.setattr(pairing, "prove", counted)
    assert paired(library)["spleeter/Third/vocals.wav"] == "bounce.wav"
    assert len(tried) <= 5, "names or the levels' rhythm point to the right one"


def test_a_song_without_its_mix_is_told_and_repaired_without_or_left_out(library: Path, run_cli: Callable) -> None:
    (library / "mixes" / "bounce.wav").unlink()
    command = ("repair", library / "separated", "-o", library / "out", "--mixes", library / "mixes")
    result = run_cli(*command, "--preset", "general", repairer=FakeRepairer(0.9))
    assert result.code == 0, result.err
    assert "2 of 3 songs have their mix in" in result.out
    assert "Note: no mix for Third (2 files): repaired without" in result.err
    assert result.out.count("the 2 stems sum to the mix") == 2
    assert (library / "out" / "spleeter" / "Third" / "drums.wav").exists()
    again = run_cli(*command, "--preset", "general", repairer=FakeRepairer(0.9))
    assert "0 repaired, 6 already done" in again.out
    strict = ("repair", library / "separated", "-o", library / "strict", "--mixes", library / "mixes", "--require-mix")
    result = run_cli(*strict, "--preset", "general", repairer=FakeRepairer(0.9))
    assert result.code == 1
    assert "no mix of this song in" in result.err
    assert not (library / "strict" / "spleeter").exists()
    assert (library / "strict" / "htdemucs" / "Crème Brûlée" / "drums.wav").exists()


def test_a_song_that_fails_does_not_keep_the_others_from_being_summed(library: Path, run_cli: Callable) -> None:
    (library / "separated" / "spleeter" / "Third" / "drums.wav").write_bytes(b"not audio")
    command = ("repair", library / "separated", "-o", library / "out", "--mixes", library / "mixes")
    result = run_cli(*command, "--preset", "general", repairer=FakeRepairer(0.9))
    assert result.code == 2
    assert "drums.wav" in result.err
    assert result.out.count("the 2 stems sum to the mix") == 2
    assert "5 of 6 repaired, 1 failed" in result.out


def test_a_data_set_has_the_mix_beside_the_stems_and_files_of_a_stem_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mixes").mkdir()
    write(tmp_path / "mixes" / "another.wav", sum(stems_of(9).values()))
    stems = stems_of(4)
    for name, audio in stems.items():
        write(tmp_path / "in" / "musdb" / f"{name}.wav", audio)
        write(tmp_path / "in" / "moises" / name / "4f1c-77.wav", audio)
    write(tmp_path / "in" / "musdb" / "mixture.wav", sum(stems.values()))
    plan = plan_batch([tmp_path / "in"], tmp_path / "out", mixes=tmp_path / "mixes")
    found = pair_with_mixes(plan, tmp_path / "mixes")
    assert [song.name for song in found.without] == ["moises"]
    assert [(job.source.name, job.mix and job.mix.name) for job in found.plan.jobs if "musdb" in str(job.source)] == [
        ("drums.wav", "mixture.wav"), ("vocals.wav", "mixture.wav"),
    ]  # fmt: skip
    assert tmp_path / "in" / "musdb" / "mixture.wav" in found.plan.inputs


def test_a_silent_stem_proves_no_mix(library: Path) -> None:
    """It is in every mix. So it gets that of its song's other stems, and none if there are no others."""
    quiet = np.zeros((3 * RATE, 2))
    quiet[RATE : RATE + 200] = 1e-4
    write(library / "separated" / "spleeter" / "Third" / "bass.wav", quiet)
    write(library / "separated" / "spleeter" / "Second song" / "bass.wav", quiet)
    found = paired(library)
    assert found["spleeter/Third/bass.wav"] == "bounce.wav"
    assert found["spleeter/Second song/bass.wav"] is None


def test_songs_of_one_name_in_two_folders_are_two() -> None:
    jobs = [BatchJob(Path(f"{album}/Intro/{stem}.wav"), Path("x")) for album in "ab" for stem in NAMES]
    assert [(song.name, len(song.jobs)) for song in find_songs(jobs)] == [("Intro", 2), ("Intro", 2)]
    (uvr,) = find_songs([BatchJob(Path("in/3_Été_(Vocals)_UVR.wav"), Path("x"))])
    assert (uvr.name, uvr.words) == ("3_Été_(Vocals)_UVR", ("ete", "uvr"))


def test_other_options_exclude_a_folder_of_mixes(library: Path, run_cli: Callable) -> None:
    command = ("repair", library / "separated", "-o", library / "out", "--mixes", library / "mixes")
    result = run_cli(*command, "--mix", library / "mixes" / "bounce.wav")
    assert result.code == 2
    assert "--mix and --mixes exclude each other" in result.err
    result = run_cli(*command, "--residual", library / "r.wav")
    assert "--residual and --mixes exclude each other" in result.err
    empty = library / "none"
    empty.mkdir()
    result = run_cli("repair", library / "separated", "-o", library / "out", "--mixes", empty)
    assert result.code == 2
    assert "no audio files in this folder" in result.err


@given(st.lists(st.text(alphabet="abc ", min_size=1, max_size=6), min_size=1, max_size=4))
def test_a_name_is_most_like_itself(words: list[str]) -> None:
    assert likeness(words, words) == pytest.approx(1.0)
    assert 0.0 <= likeness(words, ["zebra"]) < 1.0
    assert likeness(words, []) == 0.0
