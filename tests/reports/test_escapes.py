"""File names, presets and tags may hold escape sequences; none reaches the terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeRepairer
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from stemprover.reports.terminal import _Terminal, printable

NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp"


def is_clean(text: str) -> bool:
    return not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202a\u202b\u202d\u202e\u2066\u2067" for c in text)


@given(text=st.text())
def test_any_text_becomes_one_clean_line(text: str) -> None:
    shown = printable(text)
    assert is_clean(shown)
    if is_clean(text) and not set(text) & set("\u200e\u200f\u202c\u2068\u2069"):
        assert shown == text


@given(text=st.text())
def test_the_terminal_itself_passes_no_control_characters(text: str) -> None:
    terminal = _Terminal(width=10_000, soft_wrap=True, highlight=False)
    table = Table("name")
    table.add_row(Text(text))
    with terminal.capture() as caught:
        terminal.print(Text(text))
        terminal.print(table)
    assert is_clean(caught.get().replace("\n", "").replace("\t", ""))


@pytest.mark.parametrize("arguments", [["repair", "{}.wav"], ["analyze", "{}.wav"], ["repair", "--{}"], ["{}"]])
def test_errors_show_escape_sequences_as_text(
    run_cli: Callable, tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.format(NASTY) for argument in arguments]
    if given[0] == "repair" and not given[1].startswith("--"):
        given += ["-o", "out.wav"]
    result = run_cli(*given)
    assert result.code == 2
    assert is_clean((result.out + result.err).replace("\n", ""))
    assert "\\x1b" in result.err


def test_results_show_escape_sequences_and_line_ends_as_text(
    run_cli: Callable, make_audio: Callable[..., Path], tmp_path: Path
) -> None:
    name = f"a\nb{NASTY}.wav"
    source = make_audio("plain.wav").rename(tmp_path / name)
    (tmp_path / f"bad{NASTY}.wav").write_bytes(b"no audio")
    result = run_cli("repair", source, tmp_path / f"bad{NASTY}.wav", "-o", tmp_path / "out", repairer=FakeRepairer())
    assert result.code == 2
    assert is_clean((result.out + result.err).replace("\n", ""))
    assert "a\\nb\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202egnp.wav -> " in result.out
    assert os.listdir(tmp_path / "out").count(name) == 1, "the file itself keeps its name"
