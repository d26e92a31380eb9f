"""Training settings from TOML: typed, nested, and every wrong key is named with its file."""

import re
from pathlib import Path

import pytest
from paths import ROOT
from stemprover.engine.bundle import base_bundle
from stemprover.engine.errors import OptionError
from stemprover.engine.train.options import load_options


def write(folder: Path, text: str) -> Path:
    (folder / "run.toml").write_text(text)
    return folder / "run.toml"


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        'run = "here"\nsteps = 10\nlearning_rate = 1\nadapter = "bleed"\n'
        "[crop]\nbatch = 2\n[model]\ncontrol = [16, 16, 32]\n[weights]\nphase = 0\n",
    )
    options = load_options(config, steps=20, pool=None, minutes=1.5, adapter=None)
    assert (options.run, options.pool) == (Path("here"), Path("data/pool"))
    assert (options.steps, options.minutes, options.adapter) == (20, 1.5, "bleed")
    assert options.start_from == base_bundle(), "an adapter adapts the shipped base unless another is named"
    assert options.learning_rate == 1.0
    assert isinstance(options.learning_rate, float)
    assert options.crop.batch == 2
    assert options.model.control == (16, 16, 32)
    assert options.weights.phase == 0.0


@pytest.mark.parametrize("name", ["train-cpu", "train-gpu", "train-drums"])
def test_the_shipped_settings_are_valid(name: str) -> None:
    options = load_options(ROOT / "docs" / f"{name}.toml")
    assert options.steps > 0
    assert options.adapter == ("drums" if name == "train-drums" else None)


def test_defaults_apply_without_a_file() -> None:
    options = load_options(None, run=None, steps=None)
    assert options.run == Path("runs/base")
    assert options.steps > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps = 3\n", "unknown key 'stepps'; did you mean 'steps'?"),
        ("[crop]\nbatsch = 3\n", "unknown key 'batsch' in [crop]; did you mean 'batch'?"),
        ('steps = "many"\n', "steps = 'many' is not of type int"),
        ("steps = true\n", "steps = True is not of type int"),
        ("run = 3\n", "run = 3 is not of type Path"),
        ("crop = 3\n", "crop = 3 is not of type CropConfig"),
        ("steps = \n", "cannot be read as TOML"),
    ],
)
def test_invalid_settings_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    config = write(tmp_path, text)
    with pytest.raises(OptionError, match=re.escape(f"{config}: {message}")):
        load_options(config)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such file"):
        load_options(tmp_path / "none.toml")
