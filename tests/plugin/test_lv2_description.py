"""The LV2's description, checked by LV2's own validator."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from hosts import needs

# JUCE 7.0.5 writes these for every plug-in: port properties on parameters, two interfaces of the editor swapped, an
# undefined property of its own, and a maintainer and a release of something not declared a project.
KNOWN_JUCE_ERRORS = {
    ("Subject not in domain <http://lv2plug.in/ns/lv2core#Port>", "portProperty"),
    ("Subject not in domain <http://usefulinc.com/ns/doap#Project>", "maintainer"),
    ("Subject not in domain <http://usefulinc.com/ns/doap#Project>", "release"),
    ("Object not in range <http://lv2plug.in/ns/lv2core#ExtensionData>", "extensionData"),
    ("Object not in range <http://lv2plug.in/ns/lv2core#Feature>", "optionalFeature"),
    ("Use of undefined property", "Program"),
    ("Property <https://stemprover.invalid/plugin:Program> has no label", "Program"),
}


def test_the_description_is_valid_apart_from_known_juce_errors(lv2: Path) -> None:
    needs(bool(shutil.which("lv2_validate") and shutil.which("sord_validate")), "lv2_validate")
    shown = subprocess.run(
        ["lv2_validate", *sorted(map(str, lv2.glob("*.ttl")))], capture_output=True, text=True, timeout=60, check=False
    )
    text = shown.stdout + shown.stderr
    assert re.search(r"checked \d{3,} restrictions", text), text
    found = re.findall(r"error: (.+)\n\s+\S+\n\s+\S*?([A-Za-z]+)\n", text.replace(">\n\n", ">\n"))
    assert len(found) == text.count("error: ")
    assert set(found) <= KNOWN_JUCE_ERRORS
