"""Where each file goes."""

import os
from pathlib import Path

import pytest
from stemprover.engine.errors import AudioFileError, OptionError, OutputExistsError
from stemprover.offline.batch import RenderJob, plan_renders


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


def test_one_file_to_a_file_name(tree: Path) -> None:
    plan = plan_renders([tree / "song.wav"], tree / "out.flac")
    assert plan.jobs == (RenderJob(tree / "song.wav", tree / "out.flac"),)
    assert not plan.makes_folders, "a missing folder of a file name is more likely a slip of the pen"


@pytest.mark.parametrize(("out", "is_folder"), [("out", False), ("out.d", True), ("more", False)])
def test_one_file_into_a_folder(tree: Path, out: str, is_folder: bool) -> None:
    plan = plan_renders([tree / "song.wav"], tree / out, is_folder=is_folder)
    assert pairs(tree, plan) == [("song.wav", f"{out}/song.wav")]
    assert plan.makes_folders


def test_a_folder_keeps_its_sub_folders_and_leaves_out_what_is_no_audio(tree: Path) -> None:
    plan = plan_renders([tree / "stems"], tree / "out")
    assert pairs(tree, plan) == [
        ("stems/vocals.wav", "out/vocals.wav"),
        ("stems/sub/drums.flac", "out/sub/drums.flac"),
        ("stems/sub/deep/bass.AIFF", "out/sub/deep/bass.AIFF"),
    ]


def test_an_output_folder_inside_the_input_is_not_an_input(tree: Path) -> None:
    (tree / "stems/fixed").mkdir()
    (tree / "stems/fixed/vocals.wav").write_bytes(b"x")
    plan = plan_renders([tree / "stems"], tree / "stems/fixed")
    assert ("stems/fixed/vocals.wav", "stems/fixed/fixed/vocals.wav") not in pairs(tree, plan)
    assert len(plan.jobs) == 3


def test_the_song_in_the_stems_folder_is_no_stem(tree: Path) -> None:
    (tree / "stems/song.wav").symlink_to(tree / "song.wav")
    plan = plan_renders([tree / "stems"], tree / "out", mix=tree / "song.wav")
    assert [job.source.name for job in plan.jobs] == ["vocals.wav", "drums.flac", "bass.AIFF"]
    named = plan_renders([tree / "song.wav"], tree / "out", mix=tree / "song.wav")
    assert [job.source.name for job in named.jobs] == ["song.wav"], "what is asked for by its name is repaired"


def test_files_and_folders_together_and_twice(tree: Path) -> None:
    plan = plan_renders([tree / "song.wav", tree / "stems", tree / "stems" / ".." / "song.wav"], tree / "out")
    assert [job.target.name for job in plan.jobs] == ["song.wav", "vocals.wav", "drums.flac", "bass.AIFF"]


def test_two_files_may_not_become_one(tree: Path) -> None:
    with pytest.raises(OptionError, match=r"stems/vocals.wav and .*more/vocals.wav would both become .*out/vocals.wav"):
        plan_renders([tree / "stems", tree / "more"], tree / "out")


def test_several_files_cannot_go_into_a_file(tree: Path) -> None:
    with pytest.raises(OutputExistsError, match=r"song.wav: is a file; name a folder"):
        plan_renders([tree / "stems"], tree / "song.wav")


def test_a_folder_without_audio_is_a_failure_beside_the_others(tree: Path) -> None:
    (tree / "empty").mkdir()
    plan = plan_renders([tree / "empty", tree / "song.wav"], tree / "out")
    assert pairs(tree, plan) == [("song.wav", "out/song.wav")]
    [(path, error)] = plan.failures
    assert path == tree / "empty"
    assert isinstance(error, AudioFileError)
    assert "no audio files" in str(error)


def test_a_folder_that_may_not_be_read_is_a_failure_and_not_left_out_in_silence(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", refuse)
    plan = plan_renders([tree / "stems"], tree / "out")
    assert pairs(tree, plan) == [("stems/vocals.wav", "out/vocals.wav")]
    ((place, error),) = plan.failures
    assert place == tree / "stems/sub"
    assert str(error) == f"{place}: cannot be read (Permission denied); give leave to read it"


def test_nothing_to_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nothing to repair"):
        plan_renders([], tmp_path)
