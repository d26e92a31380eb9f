"""Presets: the shipped ones are valid, errors name file and key, and blends add up."""

import re
import shutil
from pathlib import Path

import pytest
from paths import ROOT
from stemprover.engine import preset as presets
from stemprover.engine.errors import OptionError, PresetError
from stemprover.engine.preset import (
    Preset,
    blend_presets,
    check_preset,
    find_presets,
    list_presets,
    load_preset,
    parse_blend,
    user_preset_folder,
)

SHIPPED = ["bleed", "dull-highs", "general", "musical-noise", "phasiness", "smeared-transients"]
GOOD = 'name = "mine"\ntitle = "Mine"\ndescription = "My own."\nfor = "vocals"\n'


@pytest.fixture
def write_preset(no_user_presets: Path):
    def write(text: str = GOOD, name: str = "mine", adapters: tuple[str, ...] = ()) -> Path:
        folder = no_user_presets / name
        folder.mkdir(exist_ok=True)
        (folder / "preset.toml").write_text(text)
        for adapter in adapters:
            (folder / adapter).write_bytes(b"adapter")
        return folder / "preset.toml"

    return write


def test_shipped_presets_are_valid() -> None:
    found = {preset.name: preset for preset in list_presets()}
    assert sorted(found) == SHIPPED
    for preset in found.values():
        assert preset.is_shipped
        assert preset.trained or preset.note, "an untrained preset has a note"
        assert all(file.is_file() for file in preset.adapters)


def test_the_example_preset_is_valid() -> None:
    preset = check_preset(ROOT / "examples" / "presets" / "vocal-cleanup")
    assert [link.plugin for link in preset.before] == ["HighpassFilter"]
    assert preset.before[0].parameters == {"cutoff_frequency_hz": 70}
    assert [link.plugin for link in preset.after] == ["HighShelfFilter"]
    assert preset.wet == 0.9
    assert not preset.is_shipped


def test_user_presets_come_after_the_shipped_ones(write_preset) -> None:
    file = write_preset(GOOD + 'wet = 0.5\n[adapters]\n"a.safetensors" = 0.75\n', adapters=("a.safetensors",))
    assert list(find_presets()) == [*SHIPPED, "mine"]
    preset = load_preset("mine")
    assert (preset.wet, preset.trained, preset.is_shipped, preset.path) == (0.5, True, False, file)
    assert dict(preset.adapters) == {file.parent / "a.safetensors": 0.75}
    assert load_preset(file) == load_preset(file.parent) == load_preset(str(file.parent) + "/") == preset


def test_user_presets_are_in_the_systems_settings_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STEMPROVER_PRESETS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_preset_folder().parts[-2:] == ("stemprover", "presets")


def test_a_user_preset_with_a_shipped_name_is_ignored_with_a_warning(write_preset) -> None:
    file = write_preset(GOOD.replace("mine", "bleed"), name="bleed")
    with pytest.warns(UserWarning, match=f"{re.escape(str(file))} is ignored.*shipped preset; rename"):
        assert load_preset("bleed").is_shipped


@pytest.mark.parametrize(
    ("asked", "nearest"), [("bled", "bleed"), ("musicalnoise", "musical-noise"), ("General", "general")]
)
def test_an_unknown_name_suggests_the_nearest_one(asked: str, nearest: str) -> None:
    with pytest.raises(PresetError, match=f"no preset {asked!r}; did you mean {nearest!r}"):
        load_preset(asked)


def test_a_home_directory_of_an_unknown_user_is_an_error() -> None:
    with pytest.raises(PresetError, match="~nosuchuser/mine: no such file"):
        load_preset("~nosuchuser/mine")


def test_auto_is_not_a_preset_and_the_error_says_what_it_is(write_preset) -> None:
    for ask in (lambda: load_preset("auto"), lambda: blend_presets({"auto": 1.0, "bleed": 0.5})):
        with pytest.raises(PresetError, match=r"auto is not a preset .* repair --preset auto"):
            ask()
    file = write_preset(GOOD.replace("mine", "auto"), name="auto")
    with pytest.raises(PresetError, match=f"{re.escape(str(file))}: name = 'auto' is reserved"):
        check_preset(file)


def test_an_unknown_name_with_nothing_similar_lists_the_presets() -> None:
    with pytest.raises(PresetError, match="no preset 'xyzzy'; presets: auto, bleed, dull-highs"):
        load_preset("xyzzy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "wett = 1\n", "unknown key 'wett'; did you mean 'wet'?"),
        (GOOD + "zzz = 1\n", "unknown key 'zzz'; the keys are name, title"),
        (GOOD.replace("for =", "artefact ="), "unknown key 'artefact'"),
        ('name = "mine"\ntitle = "Mine"\nfor = "x"\n', "the key 'description' is missing"),
        (GOOD.replace('"Mine"', "3"), "title = 3 is not text"),
        (GOOD.replace('"My own."', '" "'), "description = ' ' is not text"),
        (GOOD.replace('"mine"', '"other"'), "name = 'other' differs from the folder's name 'mine'"),
        (GOOD.replace('"mine"', '"My Name"'), "name = 'My Name' may only have lower-case letters"),
        (GOOD + "wet = 1.5\n", "wet = 1.5 is not a number from 0 to 1"),
        (GOOD + "wet = nan\n", "wet = nan is not a number"),
        (GOOD + "wet = true\n", "wet = True is not a number"),
        (GOOD + 'trained = "no"\n', "trained = 'no' is neither true nor false"),
        (GOOD + "note = 3\n", "note = 3 is not text"),
        (GOOD + 'adapters = "a"\n', "adapters is not a table"),
        (GOOD + '[adapters]\n"b.safetensors" = 1\n', "[adapters] 'b.safetensors' is missing from"),
        (
            GOOD + '[adapters]\n"../a.safetensors" = 1\n',
            "[adapters] '../a.safetensors' must be a file in the preset's own folder",
        ),
        (GOOD + '[adapters]\n"a.safetensors" = 2\n', "[adapters] a.safetensors = 2 is not a weight from 0 to 1.5"),
        (GOOD + '[adapters]\n"a.safetensors" = "1"\n', "[adapters] a.safetensors = '1' is not a weight"),
        (GOOD + "before = 3\n", "before is not a list of tables; write [[before]]"),
        (GOOD + '[[before]]\nplugin = "Gain"\n[[before]]\nplugin = "Gian"\n', "[[before]] number 2: plugin = 'Gian'"),
        (GOOD + '[[after]]\nplugin = "Gain"\ngain = 1\n', "[[after]] number 1: unknown key 'gain'"),
        ("name = \n", "is not valid TOML"),
    ],
)
def test_an_invalid_preset_names_the_file_and_the_key(write_preset, text: str, message: str) -> None:
    file = write_preset(text, adapters=("a.safetensors",))
    with pytest.raises(PresetError, match=re.escape(f"{file}: {message}")):
        check_preset(file)


def test_an_unreadable_preset_file_gives_a_one_line_error(write_preset, tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="no such file; a preset is a folder with a preset.toml"):
        check_preset(tmp_path / "nowhere")
    file = write_preset()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(PresetError, match=f"{file}: cannot be read"):
        check_preset(file)


def test_presets_cannot_be_changed() -> None:
    preset = load_preset("general")
    with pytest.raises(AttributeError):
        preset.wet = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        preset.adapters[Path("x")] = 1.0  # type: ignore[index]


def test_a_preset_can_be_for_a_separators_stems(write_preset) -> None:
    mine = load_preset(write_preset("separated = true\n" + GOOD))
    assert mine.separated
    assert not load_preset("general").separated
    assert blend_presets({"mine": 1.0}).separated
    assert not blend_presets({"mine": 1.0, "general": 1.0}).separated, "the other adapters were not trained for it"


def test_a_preset_made_in_python_checks_itself() -> None:
    with pytest.raises(PresetError, match=r"^wet = 2 is not a number from 0 to 1"):
        Preset("a", "A", "An a.", "a", wet=2)
    with pytest.raises(PresetError, match=r"^separated = 1 is neither true nor false"):
        Preset("a", "A", "An a.", "a", separated=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("bleed=0.6,musical-noise=0.4", {"bleed": 0.6, "musical-noise": 0.4}),
        (" bleed = 1.5 ", {"bleed": 1.5}),
        ("a=0,b=1e-1", {"a": 0.0, "b": 0.1}),
    ],
)
def test_blends_are_parsed(text: str, weights: dict[str, float]) -> None:
    assert parse_blend(text) == weights


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bleed", "'bleed' is not NAME=WEIGHT"),
        ("", "'' is not NAME=WEIGHT"),
        ("bleed=", "'bleed=' is not NAME=WEIGHT"),
        ("=0.5", "'=0.5' is not NAME=WEIGHT"),
        ("bleed=0.5,", "'' is not NAME=WEIGHT"),
        ("bleed=half", "'bleed=half' is not NAME=WEIGHT"),
        ("bleed=nan", "'bleed=nan' is not NAME=WEIGHT"),
        ("bleed=-0.1", "the weight -0.1 of bleed is out of range; use 0 to 1.5"),
        ("bleed=1.6", "the weight 1.6 of bleed is out of range; use 0 to 1.5"),
        ("bleed=inf", "the weight inf of bleed is out of range"),
        ("bleed=0.5,bleed=0.5", "bleed appears twice"),
    ],
)
def test_an_invalid_blend_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        parse_blend(text)


def test_a_blend_scales_adapters_and_averages_wet(write_preset, no_user_presets: Path) -> None:
    mine = write_preset(GOOD + 'wet = 0.5\n[adapters]\n"a.safetensors" = 0.5\n', adapters=("a.safetensors",)).parent
    other = no_user_presets / "other"
    shutil.copytree(mine, other)
    (other / "preset.toml").write_text(
        GOOD.replace("mine", "other") + '[adapters]\n"a.safetensors" = 1.0\n[[before]]\nplugin = "Invert"\n'
    )
    blend = blend_presets({"mine": 1.0, "other": 0.5})
    assert dict(blend.adapters) == {mine / "a.safetensors": 0.5, other / "a.safetensors": 0.5}
    assert blend.wet == pytest.approx((0.5 * 1.0 + 1.0 * 0.5) / 1.5)
    assert blend.before == ()
    assert blend.note == "a blend runs without the plugin chains of other"
    assert blend.name == "mine=1,other=0.5"


def test_a_blend_of_zero_weights_is_the_base_model(write_preset) -> None:
    write_preset(GOOD + 'trained = false\nnote = "later"\n')
    blend = blend_presets({"mine": 0.0, "general": 0.0})
    assert blend.wet == 1.0
    assert (blend.trained, blend.note) == (False, "not trained yet, so the same as general: mine")
    assert not any(blend.adapters.values())


def test_a_blend_of_unknown_presets_or_invalid_weights_is_an_error() -> None:
    with pytest.raises(PresetError, match="did you mean 'bleed'"):
        blend_presets({"bleeed": 0.5})
    with pytest.raises(OptionError, match="out of range"):
        blend_presets({"bleed": 2.0})
    with pytest.raises(OptionError, match="at least one preset"):
        blend_presets({})


def test_the_shipped_presets_are_in_the_package() -> None:
    assert Path(presets.__file__).parents[1] / "presets" == presets.SHIPPED
