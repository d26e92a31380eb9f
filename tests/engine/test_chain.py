"""Plugin chains: no delay, independent of block sizes, and the table matches pedalboard's own parameters."""

import inspect
import re

import numpy as np
import pedalboard
import pytest
from stemprover.engine.chain import PLUGINS, Chain, PluginSettings
from stemprover.engine.errors import InputError, PresetError

RATE = 44100
SETTINGS = {
    "cutoff_frequency_hz": 1000.0,
    "gain_db": 6.0,
    "q": 1.0,
    "threshold_db": -12.0,
    "ratio": 4.0,
    "drive_db": 12.0,
}


def settings_of(plugin: str) -> PluginSettings:
    return PluginSettings(plugin, {key: SETTINGS[key] for key in PLUGINS[plugin] if key in SETTINGS})


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal((channels, samples))).astype(np.float32)


@pytest.mark.parametrize("plugin", sorted(PLUGINS))
def test_the_table_has_the_plugins_own_parameters(plugin: str) -> None:
    signature = inspect.getdoc(getattr(pedalboard, plugin).__init__) or ""
    own = set(re.findall(r"(\w+): float", signature.splitlines()[0]))
    assert set(PLUGINS[plugin]) == own


@pytest.mark.parametrize("plugin", sorted(PLUGINS))
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_split_into_blocks_gives_the_same_output(plugin: str, channels: int) -> None:
    audio = noise(channels, 9000)
    whole = getattr(pedalboard, plugin)(**settings_of(plugin).parameters)(audio, RATE)
    for block in (1, 2, 64, 65, 480, 8193):
        part = audio[:, : 400 if block < 3 else None]
        chain = Chain([settings_of(plugin)], RATE, channels)
        blocks = [chain(part[:, start : start + block]) for start in range(0, part.shape[1], block)]
        streamed = np.concatenate(blocks, axis=1)
        assert streamed.shape == part.shape
        np.testing.assert_allclose(streamed, whole[:, : part.shape[1]], atol=1e-6)


@pytest.mark.parametrize("plugin", sorted(PLUGINS))
def test_plugins_are_stable_at_both_ends_of_their_ranges(plugin: str) -> None:
    audio = noise(1, 4000)
    for edge in (0, 1):
        parameters = {key: min(limits[edge], 20_000.0) for key, limits in PLUGINS[plugin].items()}
        out = Chain([PluginSettings(plugin, parameters)], RATE, 1)(audio)
        assert np.isfinite(out).all()


@pytest.mark.parametrize("rate", [22050, 44100, 96000])
def test_a_high_pass_is_3_db_down_at_its_cutoff(rate: int) -> None:
    time_s = np.arange(rate) / rate
    sine = np.sin(2 * np.pi * 1000 * time_s).astype(np.float32)[None]
    out = Chain([settings_of("HighpassFilter")], rate, 1)(sine)
    level_db = 20 * np.log10(np.std(out[:, rate // 2 :]) / np.std(sine[:, rate // 2 :]))
    assert level_db == pytest.approx(-3.0, abs=0.1)


def test_plugins_run_in_order_and_do_not_change_the_input() -> None:
    audio = noise(2, 1000)
    kept = audio.copy()
    out = Chain(
        [PluginSettings("Gain", {"gain_db": 20.0}), PluginSettings("Clipping", {"threshold_db": 0.0})], RATE, 2
    )(audio)
    np.testing.assert_allclose(out, np.clip(audio * 10, -1, 1), atol=1e-5)
    np.testing.assert_array_equal(audio, kept)


def test_an_empty_chain_returns_the_block_itself() -> None:
    audio = noise(2, 10)
    assert Chain([], RATE, 2)(audio) is audio


def test_a_cutoff_above_half_the_sample_rate_is_an_error() -> None:
    with pytest.raises(InputError, match=r"LowpassFilter at 5000 Hz .* 8000 Hz"):
        Chain([PluginSettings("LowpassFilter", {"cutoff_frequency_hz": 5000.0})], 8000, 1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"plugin": "Reverb"}, "'Reverb' is not available"),
        ({"plugin": 3}, "needs plugin"),
        ({"cutoff_frequency_hz": 60}, "needs plugin"),
        ("HighpassFilter", "needs plugin"),
        ({"plugin": "HighpassFilter", "cutof": 60}, "unknown key 'cutof'; HighpassFilter takes cutoff_frequency_hz"),
        ({"plugin": "Invert", "gain_db": 1}, "Invert takes no parameters"),
        ({"plugin": "HighpassFilter", "cutoff_frequency_hz": "60"}, "'60' is not a number"),
        ({"plugin": "HighpassFilter", "cutoff_frequency_hz": True}, "True is not a number"),
        ({"plugin": "HighpassFilter", "cutoff_frequency_hz": float("nan")}, "nan is not a number"),
        (
            {"plugin": "HighpassFilter", "cutoff_frequency_hz": -5},
            "-5 is out of range; HighpassFilter takes 10 to 40000",
        ),
    ],
)
def test_invalid_plugin_settings_say_what_is_wrong(table: object, message: str) -> None:
    with pytest.raises(PresetError, match=re.escape(message)):
        PluginSettings.from_toml(table)
