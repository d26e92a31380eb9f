"""Which file goes where."""

import os
from pathlib import Path

import pytest
from stemprover.engine.errors import AudioFileError, OptionError, OutputExistsError
from stemprover.offline.plan import BatchJob, plan_batch


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("stems/vocals.wav", "stems/sub/drums.flac", "stems/sub/deep/bass.AIFF", "stems/readme.txt",
                 "stems/.hidden.wav", "stems/.git/x.wav", "more/vocals.wav", "song.wav"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def pairs(tree: Path, plan) -> list[tuple[str, str]]:
    return [(str(job.source.relative_to(tree)), str(job.target.relative_to(tree))) for job in plan.jobs]


def test_one_file_and_a_file_name(tree: Path) -> None:
    plan = plan_batch([tree / "song.wav"], tree / "out.flac")
    assert plan.jobs == (BatchJob(tree / "song.wav", tree / "out.flac"),)
    assert plan.inputs == (tree / "song.wav",)
    assert plan.folder is None


@pytest.mark.parametrize(("out", "is_folder"), [("out", False), ("out.d", True), ("more", False)])
def test_one_file_and_an_output_folder(tree: Path, out: str, is_folder: bool) -> None:
    plan = plan_batch([tree / "song.wav"], tree / out, is_folder=is_folder)
    assert pairs(tree, plan) == [("song.wav", f"{out}/song.wav")]
    assert plan.folder == tree / out


@pytest.mark.parametrize("out", ["Song feat. X", "htdemucs_v4.1", "new/v1.0"])
def test_an_unknown_extension_may_be_meant_as_a_folder(tree: Path, out: str) -> None:
    message = rf"{out}: \.\S* ?\w* is not an audio file type; for a folder .* slash at the end \(.*{out}/\), for a file"
    with pytest.raises(OptionError, match=message):
        plan_batch([tree / "song.wav"], tree / out)
    assert pairs(tree, plan_batch([tree / "song.wav"], tree / out, is_folder=True)) == [("song.wav", f"{out}/song.wav")]
    (tree / out).mkdir(parents=True)
    assert pairs(tree, plan_batch([tree / "song.wav"], tree / out)) == [("song.wav", f"{out}/song.wav")]


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
def test_standard_output_is_refused(tree: Path, out: str) -> None:
    with pytest.raises(OptionError, match="a result cannot be written to standard output; name a file or a folder"):
        plan_batch([tree / "song.wav"], Path(out))


def test_an_extension_that_the_input_has_too_is_kept(tree: Path) -> None:
    assert plan_batch([tree / "song.take"], tree / "out.take").jobs[0].target == tree / "out.take"


def test_several_inputs_with_a_file_name_for_the_output_are_refused(tree: Path) -> None:
    with pytest.raises(
        OptionError, match=r"x\.wav is a name for one file, but there are 2 inputs; name a folder, such as x/"
    ):
        plan_batch([tree / "song.wav", tree / "more/vocals.wav"], tree / "x.wav")
    with pytest.raises(OptionError, match=r"x\.flac is a name for one file, but .*stems is a folder; name a folder"):
        plan_batch([tree / "stems"], tree / "x.flac")
    assert plan_batch([tree / "stems"], tree / "x.wav", is_folder=True).folder == tree / "x.wav"


def test_a_folder_keeps_its_subfolders_and_only_audio_is_picked(tree: Path) -> None:
    plan = plan_batch([tree / "stems"], tree / "out")
    assert pairs(tree, plan) == [
        ("stems/vocals.wav", "out/vocals.wav"),
        ("stems/sub/drums.flac", "out/sub/drums.flac"),
        ("stems/sub/deep/bass.AIFF", "out/sub/deep/bass.AIFF"),
    ]


def test_an_output_folder_inside_the_input_folder_is_skipped(tree: Path) -> None:
    (tree / "stems/fixed").mkdir()
    (tree / "stems/fixed/vocals.wav").write_bytes(b"x")
    plan = plan_batch([tree / "stems"], tree / "stems/fixed")
    assert ("stems/fixed/vocals.wav", "stems/fixed/fixed/vocals.wav") not in pairs(tree, plan)
    assert len(plan.jobs) == 3


def test_the_mix_in_the_stems_folder_is_skipped(tree: Path) -> None:
    (tree / "stems/song.wav").symlink_to(tree / "song.wav")
    plan = plan_batch([tree / "stems"], tree / "out", mix=tree / "song.wav")
    assert [job.source.name for job in plan.jobs] == ["vocals.wav", "drums.flac", "bass.AIFF"]
    assert plan.inputs == (*(job.source for job in plan.jobs), tree / "song.wav")
    named = plan_batch([tree / "song.wav"], tree / "out", mix=tree / "song.wav")
    assert [job.source.name for job in named.jobs] == ["song.wav"], "a file that is named directly is repaired"


def test_a_file_that_is_named_twice_is_repaired_once(tree: Path) -> None:
    plan = plan_batch([tree / "song.wav", tree / "stems", tree / "stems" / ".." / "song.wav"], tree / "out")
    assert [job.target.name for job in plan.jobs] == ["song.wav", "vocals.wav", "drums.flac", "bass.AIFF"]


def test_two_files_with_the_same_output_are_refused(tree: Path) -> None:
    message = r"stems/vocals.wav and .*more/vocals.wav would both be written to .*out/vocals.wav"
    with pytest.raises(OptionError, match=message):
        plan_batch([tree / "stems", tree / "more"], tree / "out")


def test_a_file_as_the_output_of_a_folder_is_refused(tree: Path) -> None:
    (tree / "notes").write_bytes(b"x")
    with pytest.raises(OutputExistsError, match=r"notes is a file; .* name an output folder"):
        plan_batch([tree / "stems"], tree / "notes")


def test_a_folder_without_audio_is_a_failure_and_the_others_are_planned(tree: Path) -> None:
    (tree / "empty").mkdir()
    plan = plan_batch([tree / "empty", tree / "song.wav"], tree / "out")
    assert pairs(tree, plan) == [("song.wav", "out/song.wav")]
    [(path, error)] = plan.failures
    assert path == tree / "empty"
    assert isinstance(error, AudioFileError)
    assert "no audio files" in str(error)


def test_a_folder_without_read_permission_is_a_failure_and_not_skipped_silently(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", refuse)
    plan = plan_batch([tree / "stems"], tree / "out")
    assert pairs(tree, plan) == [("stems/vocals.wav", "out/vocals.wav")]
    ((place, error),) = plan.failures
    assert place == tree / "stems/sub"
    assert str(error) == f"{place} cannot be read (Permission denied); check its read permission"


def test_no_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nothing to repair"):
        plan_batch([], tmp_path)


def test_vocals_and_instrumental_of_a_song_are_each_others_rest(tmp_path: Path) -> None:
    names = ["1_a_(Vocals)_m.wav", "1_a_(Instrumental)_m.wav", "2_b_(Vocals)_m.wav", "2_b_(Drums)_m.wav"]
    files = [tmp_path / name for name in names]
    for file in files:
        file.touch()
    jobs = plan_batch(files, tmp_path / "out").jobs
    assert [job.rest for job in jobs] == [files[1], files[0], None, None]
    with_mix = plan_batch(files, tmp_path / "out", mix=tmp_path / "song.wav")
    assert all(job.rest is None for job in with_mix.jobs)


def test_the_rest_of_a_song_belongs_to_one_stem(tmp_path: Path) -> None:
    rest, vocals = tmp_path / "no_vocals.wav", tmp_path / "vocals.wav"
    for file in (rest, vocals):
        file.touch()
    for inputs in ([vocals], [tmp_path]):
        plan = plan_batch(inputs, tmp_path / "out", rest=rest)
        assert [(job.source, job.rest) for job in plan.jobs] == [(vocals, rest)]
        assert rest in plan.inputs
    with pytest.raises(OptionError, match="--rest is the song without one stem"):
        plan_batch([vocals, tmp_path / "drums.wav"], tmp_path / "out", rest=rest)
