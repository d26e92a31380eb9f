"""Ardour 7 without a window: a session of two tracks, one of them through StemProver, exported to a file.

Ardour 7.3 starts about one export in a few hundred some samples too early or late, on all tracks alike. So a session
starts with LEAD samples of silence, in which a third track has a click that passes through no plug-in; the exported
file is aligned to that click.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from .jack import URI

TICKS = 282_240_000  # superclocks a second
LEAD, CLICK = 8192, 4096
LIBRARIES = Path("/usr/lib/ardour7")
NAMES = {"LV2": URI, "VST3": "ABCDEF019182FAEB5370767253707631"}

BUILD = """
AudioEngine:set_backend("None (Dummy)", "stemprover", "")
local session = create_session("{folder}", "{name}", {rate})
assert(session, "no session")
session:new_audio_track(2, 2, nil, 1, "Stem", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
session:new_audio_track(2, 2, nil, 1, "Other", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
session:new_audio_track(2, 2, nil, 1, "Mark", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
local place = session:route_by_name("Stem")
{bus}
local plugin = ARDOUR.LuaAPI.new_plugin(session, "{uri}", ARDOUR.PluginType.{kind}, "")
assert(not plugin:isnil(), "no plug-in")
assert(place:add_processor_by_index(plugin, 0, nil, true) == 0, "not added")
{pins}
for number, value in pairs({{{parameters}}}) do
  assert(ARDOUR.LuaAPI.set_processor_param(plugin, number, value), "parameter " .. number)
end
session:save_state("")
close_session()
quit()
"""


# Both tracks go to a bus of four channels with the plug-in on it, and nowhere else. A side-chain cannot be used, since
# Ardour 7 delays its send as much as the plug-in's output.
BUS = """
place = session:new_audio_route(4, 2, nil, 1, "Repair", ARDOUR.PresentationInfo.Flag.AudioBus,
                                ARDOUR.PresentationInfo.max_order):front()
"""
PINS = """
local audio = ARDOUR.DataType("audio")
assert(place:customize_plugin_insert(plugin, 1, ARDOUR.ChanCount(audio, 2), ARDOUR.ChanCount(audio, 4)), "no four pins")
local map = ARDOUR.ChanMapping()
for i = 0, 3 do
  map:set(audio, i, i)
end
plugin:to_plugininsert():set_input_map(0, map)
place:panner_shell():set_bypassed(true)
"""


@dataclass(frozen=True)
class Exported:
    """What came out of the master bus (2, n), without the lead; the seconds that it took, and what Ardour printed."""

    sound: np.ndarray
    seconds: float
    log: str


class Session:
    """A session that is built once and can be exported any number of times."""

    def __init__(self, folder: Path, plugin: Path, rate: int = 44100) -> None:
        self.folder, self.kind, self.rate = folder, plugin.suffix[1:].upper(), rate
        self.length = 0
        home = folder / "home"
        (home / plugin.suffix).mkdir(parents=True)
        (home / plugin.suffix / plugin.name).symlink_to(plugin)
        self.environment = {
            **os.environ, "HOME": str(home), "LV2_PATH": f"{home / '.lv2'}:/usr/lib/lv2",
            "XDG_CACHE_HOME": str(home / ".cache"), "XDG_CONFIG_HOME": str(home / ".config"),
        }  # fmt: skip
        if self.kind == "VST3":
            paths = {"LD_LIBRARY_PATH": LIBRARIES, "ARDOUR_DLL_PATH": LIBRARIES, "ARDOUR_CONFIG_PATH": "/etc/ardour7",
                     "ARDOUR_DATA_PATH": "/usr/share/ardour7"}  # fmt: skip
            subprocess.run(
                [LIBRARIES / "ardour-vst3-scanner", "-f", "-q", home / ".vst3" / plugin.name],
                env={**self.environment, **{name: str(path) for name, path in paths.items()}}, check=True,
            )  # fmt: skip

    def build(self, stem: np.ndarray, other: np.ndarray, *, bus: bool = False, preset: float | None = None) -> None:
        """Put `stem` (2, n) on the track with the plug-in, and `other` on a second track. With `bus` both go to a bus
        with the plug-in, and `other` is the mix at its side-chain. preset: the parameter's value in the host."""
        script = self.folder / "build.lua"
        text = BUILD.format(
            folder=self.folder / "session", name="session", rate=self.rate, uri=NAMES[self.kind], kind=self.kind,
            bus=BUS if bus else "", pins=PINS if bus else "",
            parameters="" if preset is None else f"[0] = {preset}",
        )  # fmt: skip
        script.write_text(text)
        self._run("ardour7-lua", script)
        path = self.folder / "session" / "session.ardour"
        tree = ET.parse(path)
        root = tree.getroot()
        number = int(root.attrib["id-counter"]) + 1000
        audio = self.folder / "session" / "interchange" / "session" / "audiofiles"
        self.length = stem.shape[1]
        stem, other = (np.pad(sound, ((0, 0), (LEAD, 0))) for sound in (stem, other))
        click = np.zeros_like(stem)
        click[:, CLICK] = 1.0
        for track, sound in (("Stem", stem), ("Other", other), ("Mark", click)):
            route = next(route for route in root.iter("Route") if route.attrib["name"] == track)
            playlist = next(p for p in root.iter("Playlist") if p.attrib["id"] == route.attrib["audio-playlist"])
            ids = [str(number + i) for i in range(2)]
            for channel, (mark, identity) in enumerate(zip("LR", ids, strict=True)):
                name = f"{track.lower()}%{mark}.wav"
                soundfile.write(audio / name, sound[channel], self.rate, subtype="FLOAT")
                source = {"name": name, "type": "audio", "flags": "", "id": identity, "channel": "0", "origin": ""}
                ET.SubElement(_part(root, "Sources"), "Source", source)
            length = sound.shape[1] * TICKS // self.rate
            region = {
                "name": track, "type": "audio", "start": "a0", "length": f"a{length}@a0", "opaque": "1",
                "channels": "2", "whole-file": "0", "default-fade-in": "0", "default-fade-out": "0",
                "fade-in-active": "0", "fade-out-active": "0", "envelope-active": "0", "scale-amplitude": "1",
                "layering-index": "0", "id": str(number + 2), "first-edit": "nothing", "sync-position": "a0",
                "stretch": "1", "shift": "1", "muted": "0", "locked": "0", "automatic": "0", "import": "0",
                "external": "0", "sync-marked": "0", "hidden": "0", "position-locked": "0", "valid-transients": "0",
                **{f"{kind}-{i}": ids[i] for kind in ("source", "master-source") for i in range(2)},
            }  # fmt: skip
            ET.SubElement(playlist, "Region", region)
            number += 3
        if bus:
            _connect_to_bus(root)
        span = {
            "id": str(number), "name": "session", "start": "a0", "end": f"a{length + CLICK * TICKS // self.rate}",
            "flags": "IsSessionRange",
            "locked": "0", "timestamp": "0", "cue": "0",
        }  # fmt: skip
        ET.SubElement(_part(root, "Locations"), "Location", span)
        root.attrib["id-counter"] = str(number + 1)
        tree.write(path)

    def export(self, port: int, timeout_s: float = 60.0, longest_s: float = 180.0) -> Exported:
        """Export the session through the master bus, as 32-bit float. The plug-in waits up to `timeout_s` for the
        bridge on `port`, and the export may take `longest_s`. It is repeated if Ardour aborts."""
        self.environment |= {"STEMPROVER_PORT": str(port), "STEMPROVER_OFFLINE_TIMEOUT_S": str(timeout_s)}
        out = self.folder / "export.wav"
        out.unlink(missing_ok=True)
        log, seconds = self._run(
            "ardour7-export", "-b", "float", "-o", out, self.folder / "session", "session", longest_s=longest_s
        )  # fmt: skip
        assert out.exists(), log
        sound, rate = soundfile.read(out, dtype="float32")
        assert rate == self.rate
        (clicks,) = np.nonzero(sound[: LEAD // 2 + CLICK // 2].any(axis=1))
        assert len(clicks) == 1, f"expected one click in the lead, found {len(clicks)} at {clicks[:5]}\n{log}"
        begin = int(clicks[0]) + LEAD - CLICK
        return Exported(sound[begin : begin + self.length].T, seconds, log)

    def _run(self, *command: object, longest_s: float = 180.0) -> tuple[str, float]:
        """What the program printed, and how many seconds it took."""
        for _ in range(6):
            begun = time.monotonic()
            shown = subprocess.run(
                [str(word) for word in command], env=self.environment, capture_output=True, text=True,
                timeout=longest_s, check=False, cwd=self.folder,
            )  # fmt: skip
            seconds = time.monotonic() - begun
            if shown.returncode != -signal.SIGABRT:
                break
            # Without a window, Ardour 7.3 aborts at the end of one in five to twenty exports if anything in the session
            # has latency, its own equaliser included (heap corruption in ~ExportGraphBuilder).
            if command[0] == "ardour7-lua":
                shutil.rmtree(self.folder / "session", ignore_errors=True)
        assert shown.returncode == 0, f"{command[0]}: {shown.returncode}\n{shown.stdout[-3000:]}{shown.stderr[-3000:]}"
        return shown.stdout + shown.stderr, seconds


def _part(root: ET.Element, name: str) -> ET.Element:
    found = root.find(name)
    assert found is not None, name
    return found


def _connect_to_bus(root: ET.Element) -> None:
    """Connect the tracks to the bus's four inputs and nowhere else, and its first two outputs to the master bus."""
    wires = {
        f"{name}/audio_out {i % 2 + 1}": f"Repair/audio_in {i + 1}"
        for i, name in enumerate(["Stem"] * 2 + ["Other"] * 2)
    }
    wires |= {f"Repair/audio_out {i}": f"Master/audio_in {i}" for i in (1, 2)}
    ports = {port.attrib["name"]: port for port in root.iter("Port") if "/audio_" in port.get("name", "")}
    for name, port in ports.items():
        if name in wires or name in wires.values() or name.startswith("Repair/"):
            for old in port.findall("Connection"):
                port.remove(old)
    for one, other in wires.items():
        ET.SubElement(ports[one], "Connection", {"other": other})
        ET.SubElement(ports[other], "Connection", {"other": one})
