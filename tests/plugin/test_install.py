"""`stemprover plugin install` with placeholder folders instead of built plug-ins."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stemprover.bridge.plugin.install import BUNDLES, folder_for


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    return tmp_path / "home"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    for name in BUNDLES:
        (tmp_path / "built" / name / "Contents").mkdir(parents=True)
        (tmp_path / "built" / name / "Contents" / "code.so").write_bytes(b"new")
    return tmp_path / "built"


@pytest.mark.skipif(sys.platform != "linux", reason="tests the plug-in folders of Linux")
def test_installing_twice_replaces_and_removing_leaves_nothing(
    run_cli: Callable[..., Any], home: Path, built: Path
) -> None:
    first = run_cli("plugin", "install", "--from", built)
    assert first.code == 0, first.err
    places = [home / ".vst3" / "StemProver.vst3", home / ".lv2" / "StemProver.lv2"]
    assert [folder_for(name) / name for name in BUNDLES] == places
    for place in places:
        assert (place / "Contents" / "code.so").read_bytes() == b"new"
        (place / "Contents" / "code.so").write_bytes(b"old")
        assert str(place) in first.out
    assert Path((home / ".config" / "stemprover" / "command").read_text().strip()).name == "stemprover"
    second = run_cli("plugin", "install", "--from", built)
    assert second.out.count("replaced an older one") == 2
    for place in places:
        assert (place / "Contents" / "code.so").read_bytes() == b"new"
        assert [path.name for path in place.parent.iterdir()] == [place.name], "no temporary files remain"
    assert run_cli("plugin", "remove").out.count("removed") == 2
    assert not any(place.exists() for place in places)
    assert not (home / ".config" / "stemprover" / "command").exists()
    assert run_cli("plugin", "remove").out == "no plug-in was installed\n"


def test_without_a_built_plugin_one_line_says_how_to_build_it(
    run_cli: Callable[..., Any], home: Path, tmp_path: Path
) -> None:
    result = run_cli("plugin", "install", "--from", tmp_path)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert "make plugin" in result.err
    assert not home.exists()


def test_an_unwritable_folder_is_named_in_the_error(run_cli: Callable[..., Any], home: Path, built: Path) -> None:
    home.mkdir()
    (home / ".vst3").write_text("a file where a folder should be")
    result = run_cli("plugin", "install", "--from", built)
    assert result.code == 1
    assert str(home / ".vst3" / "StemProver.vst3") in result.err


def test_a_failed_copy_leaves_the_older_plugin(
    run_cli: Callable[..., Any], home: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("plugin", "install", "--from", built).code == 0
    installed = folder_for("StemProver.vst3") / "StemProver.vst3"

    def full(*_: object, **__: object) -> None:
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", full)
    result = run_cli("plugin", "install", "--from", built)
    assert result.code == 1
    assert "No space left" in result.err
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(home))

    def refused(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise PermissionError(1, "not allowed")
        return rename(path, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", refused)
    result = run_cli("plugin", "install", "--from", built)
    assert result.code == 1
    assert "not allowed" in result.err
    assert (installed / "Contents" / "code.so").read_bytes() == b"new"
    assert [path.name for path in installed.parent.iterdir()] == [installed.name]


def test_removing_a_link_keeps_its_target(run_cli: Callable[..., Any], home: Path, built: Path) -> None:
    place = folder_for("StemProver.vst3")
    place.mkdir(parents=True)
    (place / "StemProver.vst3").symlink_to(built / "StemProver.vst3")
    assert run_cli("plugin", "remove").out.count("removed") == 1
    assert (built / "StemProver.vst3").is_dir()
    assert not (place / "StemProver.vst3").is_symlink()
