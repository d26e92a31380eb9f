"""The VST3's state in a session: complete, damaged or unusual."""

from __future__ import annotations

import shutil
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridges import running
from hosts import IDENTITY, Load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sounds import noise


def test_the_state_is_saved_and_restored(load: Load) -> None:
    first = load()
    first.preset, first.wet, first.quality, first.bleed = "phasiness", 30.0, "best", 90.0
    first.offline_failure, first.start_bridge, first.stem = "silence", False, "vocals"
    second = load()
    assert (second.preset, second.wet, second.stem) == ("general", 100.0, "unknown")
    second.raw_state = first.raw_state
    assert (second.preset, second.wet, second.quality, second.bleed) == ("phasiness", 30.0, "best", 90.0)
    assert (second.offline_failure, second.start_bridge, second.stem) == ("silence", False, "vocals")


def juce_base64(data: bytes) -> str:
    """The size, then six bits per character, lowest bits first (juce::MemoryBlock::toBase64Encoding)."""
    letters = ".ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+"
    number = int.from_bytes(data, "little")
    return f"{len(data)}." + "".join(letters[(number >> 6 * i) & 63] for i in range(-(-8 * len(data) // 6)))


def as_xml(text: str) -> bytes:
    """XML as JUCE stores it: a magic word, the size, the text."""
    return b"VC2!" + struct.pack("<I", len(text.encode())) + text.encode() + b"\0"


def set_own_state(plugin: Any, data: bytes) -> None:
    """Loads a session whose state of the plug-in itself is `data`."""
    whole = ET.fromstring(plugin.raw_state[8:].rstrip(b"\0").decode())
    part = whole.find("IComponent")
    assert part is not None
    part.text = juce_base64(data)
    plugin.raw_state = as_xml(ET.tostring(whole, encoding="unicode"))


def own_state(preset: str, wet: str, more: str = "") -> bytes:
    parameters = f'<PARAM id="preset" value="0"/><PARAM id="wet" value="{wet}"/>'
    return as_xml(f'<StemProver presetName="{preset}">{parameters}{more}</StemProver>')


def test_a_sessions_state_reaches_the_plug_in(load: Load) -> None:
    plugin = load()
    set_own_state(plugin, own_state("bleed", "0.5"))
    assert (plugin.preset, plugin.wet) == ("bleed", 50.0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=300), kept=st.integers(0, 60))
def test_a_damaged_state_changes_nothing(load: Load, junk: bytes, kept: int) -> None:
    plugin = load()
    plugin.wet = 30.0
    plugin.raw_state = junk
    set_own_state(plugin, junk)
    set_own_state(plugin, own_state("bleed", "0.5")[:kept])
    set_own_state(plugin, own_state("bleed", "0.5").replace(b"StemProver", b"SomeOthers"))
    assert (plugin.preset, plugin.wet) == ("general", 30.0)


NAMES = "".join(f'<place name="n{number}"/>' for number in range(1000))


@pytest.mark.parametrize(
    ("state", "preset", "wet"),
    [
        (own_state("no-such-preset", "7.5"), "no-such-preset", 100.0),
        (own_state("bleed", "nonsense"), "bleed", 0.0),
        (own_state("", "0.5"), "general", 50.0),
        (own_state("bleed", "0.5", f"<presets>{NAMES}</presets>"), "bleed", 50.0),
    ],
    ids=["unknown preset, wet out of range", "wet is not a number", "no preset", "a thousand presets"],
)
def test_the_valid_part_of_an_unusual_state_is_used(load: Load, state: bytes, preset: str, wet: float) -> None:
    with running(IDENTITY) as bridge:
        plugin, stem = load(bridge.port), noise(0.3, 44100)
        set_own_state(plugin, state)
        assert plugin.wet == wet
        assert plugin.parameters["preset"].string_value == preset
        np.testing.assert_array_equal(plugin.process(stem, 44100), stem)


def test_a_users_preset_keeps_its_name(load: Load, no_user_presets: Path) -> None:
    for name in ("zither", "alphorn"):
        (no_user_presets / name).mkdir()
        text = f'name = "{name}"\ntitle = "Mine"\ndescription = "My own."\nfor = "vocals"\n'
        (no_user_presets / name / "preset.toml").write_text(text)
    stem = noise(1.0, 44100)
    with running(IDENTITY) as bridge:
        first = load(bridge.port)
        first.process(stem, 44100)
        slot = first.parameters["preset"]  # pedalboard listed its values before the bridge listed this preset
        slot.raw_value = next(i / 47 for i in range(48) if slot.get_text_for_raw_value(i / 47) == "zither")
        state = first.raw_state
        shutil.rmtree(no_user_presets / "alphorn")  # the bridge's list changes
        second = load(bridge.port)
        second.raw_state = state
        assert second.parameters["preset"].string_value == "zither"
        second.process(stem, 44100)
        chosen = bridge.call(lambda: [stream.selection.name for stream in bridge.registry.streams.values()])
        assert "zither" in chosen
