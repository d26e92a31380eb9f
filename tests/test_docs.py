"""Every example in the documentation runs as it stands, every link leads somewhere, and the README stays short."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile
from paths import DEMO, ROOT
from stemprover.bridge import PORT

PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "presets").glob("*/README.md")),
]  # fmt: skip
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 1.5


def python_examples() -> list[object]:
    """The Python blocks in all pages."""
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}:{text[: text.index(block)].count(chr(10)) + 1}")
        for page in PAGES
        for text in [page.read_text()]
        for kind, block in BLOCK.findall(text)
        if kind == "python"
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples name: a song with its stems, and the repository's presets and examples."""
    place = tmp_path_factory.mktemp("examples")
    for name in ("stems", "songs", "separated/song"):
        (place / name).mkdir(parents=True)
    for name in ("presets", "examples", "docs"):
        (place / name).symlink_to(ROOT / name)
    mix, rate = soundfile.read(DEMO / "song.flac", frames=round(SECONDS * 44100), start=88_200)
    stem, _ = soundfile.read(DEMO / "separated.flac", frames=round(SECONDS * 44100), start=88_200)
    for path, audio in (
        ("song.wav", mix), ("vocals.wav", stem), ("drums.flac", mix - stem), ("no_vocals.wav", mix - stem),
        ("stems/vocals.wav", stem), ("stems/accompaniment.wav", mix - stem), ("songs/song.wav", mix),
        ("separated/song/vocals.wav", stem),
    ):  # fmt: skip
        soundfile.write(place / path, audio, rate, subtype="PCM_16")
    return place


def run(command: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def bridge_at_its_usual_port() -> Iterator[None]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            pytest.skip("something else has the bridge's port")
    with subprocess.Popen([sys.executable, "-m", "stemprover", "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "OSC 127.0.0.1" in process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_shell_examples_of_a_page_run_in_their_order(page: Path, folder: Path) -> None:
    for kind, block in BLOCK.findall(page.read_text()):
        if kind == "sh":
            run(["bash", "-euo", "pipefail", "-c", block], folder)


@pytest.mark.parametrize("block", python_examples())
def test_a_python_example_runs(block: str, folder: Path) -> None:
    if "Client(" in block:
        with bridge_at_its_usual_port():
            run([sys.executable, "-c", block], folder)
    else:
        run([sys.executable, "-c", block], folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [link for link in links if link and "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page: Path) -> None:
    tops = "benchmarks|bridge|cli|docs|engine|examples|export|offline|reports|tests|tools"
    named = set(re.findall(rf"(?<![\w/.-])((?:{tops})/[\w/.-]*\w\.\w+)", page.read_text()))
    assert not {name for name in named if not (ROOT / name).exists()}


def test_the_readme_is_short_and_explains_its_measures() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(re.findall(r"\d+(?:\.\d+)?", text)) <= 60
    assert "SI-SDR, the ratio in dB" in text
