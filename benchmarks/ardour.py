"""Ardour 7 without a window: a session of two tracks, one of them through StemProver, exported to a file."""

from __future__ import annotations

import os
import subprocess
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from .jack import URI

TICKS = 282_240_000  # superclocks a second
LIBRARIES = Path("/usr/lib/ardour7")
NAMES = {"LV2": URI, "VST3": "ABCDEF019182FAEB5370767253707631"}

BUILD = """
AudioEngine:set_backend("None (Dummy)", "stemprover", "")
local session = create_session("{folder}", "{name}", {rate})
assert(session, "no session")
session:new_audio_track(2, 2, nil, 1, "Stem", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
session:new_audio_track(2, 2, nil, 1, "Other", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
local other = session:route_by_name("Other")
local plugin = ARDOUR.LuaAPI.new_plugin(session, "{uri}", ARDOUR.PluginType.{kind}, "")
assert(not plugin:isnil(), "no plug-in")
local track = session:route_by_name("Stem")
assert(track:add_processor_by_index(plugin, 0, nil, true) == 0, "not added")
{more}
session:save_state("")
close_session()
quit()
"""


SIDE_CHAIN = """
assert(track:add_sidechain(plugin), "no side-chain")
local send = ARDOUR.LuaAPI.new_send(session, other, other:amp())
assert(not send:isnil(), "no send")
local from, to = send:to_send():output(), plugin:to_plugininsert():sidechain_input()
for i = 0, 1 do
  from:nth(i):connect(to:nth(i):name())
end
"""


@dataclass(frozen=True)
class Exported:
    """What came out of the master bus, (2, n), and the seconds that it took."""

    sound: np.ndarray
    seconds: float
    log: str


class Session:
    """Built once, exported as often as wanted."""

    def __init__(self, folder: Path, plugin: Path, rate: int = 44100) -> None:
        self.folder, self.kind, self.rate = folder, plugin.suffix[1:].upper(), rate
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

    def build(self, stem: np.ndarray, other: np.ndarray, *, side_chain: bool = False) -> None:
        """Stem (2, n) on the track with the plug-in, and what is on the track beside it, which its side-chain hears where
        that is wanted."""
        script = self.folder / "build.lua"
        text = BUILD.format(
            folder=self.folder / "session", name="session", rate=self.rate, uri=NAMES[self.kind], kind=self.kind,
            more=SIDE_CHAIN if side_chain else "",
        )  # fmt: skip
        script.write_text(text)
        self._run("ardour7-lua", script)
        path = self.folder / "session" / "session.ardour"
        tree = ET.parse(path)
        root = tree.getroot()
        number = int(root.attrib["id-counter"]) + 1000
        audio = self.folder / "session" / "interchange" / "session" / "audiofiles"
        for track, sound in (("Stem", stem), ("Other", other)):
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
        span = {
            "id": str(number), "name": "session", "start": "a0", "end": f"a{length}", "flags": "IsSessionRange",
            "locked": "0", "timestamp": "0", "cue": "0",
        }  # fmt: skip
        ET.SubElement(_part(root, "Locations"), "Location", span)
        root.attrib["id-counter"] = str(number + 1)
        tree.write(path)

    def export(self, port: int, timeout_s: float = 60.0) -> Exported:
        """The session's range through the master bus, as 32-bit float; the bridge is on `port`."""
        self.environment |= {"STEMPROVER_PORT": str(port), "STEMPROVER_OFFLINE_TIMEOUT_S": str(timeout_s)}
        out = self.folder / "export.wav"
        out.unlink(missing_ok=True)
        begun = time.monotonic()
        log = self._run("ardour7-export", "-b", "float", "-o", out, self.folder / "session", "session")
        seconds = time.monotonic() - begun
        assert out.exists(), log
        sound, rate = soundfile.read(out, dtype="float32")
        assert rate == self.rate
        return Exported(sound.T, seconds, log)

    def _run(self, *command: object) -> str:
        for _ in range(6):
            shown = subprocess.run(
                [str(word) for word in command], env=self.environment, capture_output=True, text=True, timeout=180,
                check=False, cwd=self.folder,
            )  # fmt: skip
            if shown.returncode >= 0:
                break  # Ardour 7.3 without a window aborts about once in ten times, with plug-ins and without
        assert shown.returncode == 0, f"{command[0]}: {shown.returncode}\n{shown.stdout[-3000:]}{shown.stderr[-3000:]}"
        return shown.stdout + shown.stderr


def _part(root: ET.Element, name: str) -> ET.Element:
    found = root.find(name)
    assert found is not None, name
    return found
