"""The listening page, in a real browser where there is one (`make test` installs Chromium on Debian)."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from stemprover.reports.compare import Row, comparison_body
from stemprover.reports.page import Lane, listener, make_page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--no-first-run", "--autoplay-policy=no-user-gesture-required", "--mute-audio",
    "--enable-logging=stderr",
)  # fmt: skip
PROBE = """
<script>
const wait = condition => new Promise(resolve => {
  document.body.dataset.waits = condition;
  const ask = () => condition() ? resolve() : setTimeout(ask, 20);
  ask();
});
(async () => {
  const found = { errors: [] };
  addEventListener("error", event => found.errors.push(String(event.message)));
  addEventListener("unhandledrejection", event => found.errors.push(String(event.reason)));
  const { players, picks, lines, play, place } = listeners[0];
  await wait(() => players.every(player => player.duration > 0) && Number(place.max) > 2);
  found.durations = players.map(player => player.duration);
  place.value = 1.5;
  place.dispatchEvent(new Event("input"));
  found.sought = players[0].currentTime;
  picks[1].click();
  await wait(() => !players[1].seeking);
  found.switched = players[1].currentTime;
  found.pressed = picks.map(pick => pick.getAttribute("aria-pressed"));
  found.line = lines[1].style.left;
  play.click();
  await wait(() => !players[1].paused);
  dispatchEvent(new KeyboardEvent("keydown", { key: "1", bubbles: true }));
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "1", bubbles: true }));
  await wait(() => !players[0].paused && !players[0].seeking);
  found.playing = players.map(player => !player.paused);
  found.kept = players[0].currentTime;
  play.click();
  const starts = player => new Promise(resolve => player.addEventListener("play", resolve, { once: true }));
  const second = starts(listeners[1].players[0]);
  listeners[1].play.click();
  await second;
  const first = starts(players[0]);
  play.click();
  await first;
  found.others = listeners[1].players.map(player => player.paused);
  play.click();
  found.width = [innerWidth, document.documentElement.scrollWidth];
  document.body.dataset.found = JSON.stringify(found);
})();
</script>
</body>
"""


@pytest.fixture(scope="module")
def page() -> str:
    rng = np.random.default_rng(0)
    t = np.arange(3 * 44100) / 44100
    before = 0.1 * rng.standard_normal((2, len(t))) * (np.sin(2 * np.pi * t) > 0)
    after = np.stack([np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 660 * t)]) * 1.7
    rows = (Row("SI-SDR", "dB", "higher", 1.0, 2.5), Row("A <b>", "", "lower", 1.0, 2.0))
    lanes = [Lane("bleed: clearly <here>", rng.random((31, 200)), rng.random(31))]
    body = comparison_body({"Before": before, "After": after}, 44100, rows)
    return make_page("a & b <song>.wav", [*body, listener({"Stem": before}, 44100, lanes=lanes, tempo_bpm=120)])


def test_it_is_one_file_and_asks_nobody(page: str) -> None:
    assert "http" not in page.replace("http-equiv", "")
    assert "a &amp; b &lt;song&gt;.wav" in page
    assert "A &lt;b&gt;" in page
    assert page.count("data:audio/flac;base64,") == 3
    assert page.count("data:image/png;base64,") == 4
    assert "bleed: clearly &lt;here&gt;" in page
    assert "bar 2</span>" in page
    assert '<td class="better">+1.500 better</td>' in page
    assert '<td class="worse">+1.000 worse</td>' in page
    assert "$" not in re.sub(r"base64,[^\"]*", "", page).replace("[1-9]$/", "")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; apt install chromium")
@pytest.mark.parametrize("size", ["1200,900", "400,800"])
def test_the_switch_keeps_the_position_in_a_browser(page: str, tmp_path: Path, size: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", PROBE), encoding="utf-8")
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size}"]
    # Ten hours of the page's own time, which runs ahead while sounds are decoded: one was short on a busy machine.
    shown = subprocess.run(
        [*command, "--virtual-time-budget=36000000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    result = re.search(r'data-found="([^"]*)"', shown.stdout)
    waits = re.search(r'data-waits="([^"]*)"', shown.stdout)
    assert result is not None, f"still waits for {waits and waits[1]}; {shown.stderr[-2000:]}"
    found = json.loads(html.unescape(result[1]))
    assert found["errors"] == []
    assert "CONSOLE" not in shown.stderr
    assert found["durations"] == pytest.approx([3.0, 3.0], abs=0.01)
    assert found["sought"] == pytest.approx(1.5, abs=0.01)
    assert found["switched"] == pytest.approx(1.5, abs=0.05)
    assert found["pressed"] == ["false", "true"]
    assert found["line"] == "50%"
    assert found["playing"] == [True, False]
    assert found["kept"] >= 1.45
    assert found["others"] == [True], "one listener at a time"
    assert found["width"][1] <= found["width"][0], "nothing sticks out at the side"
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", file.as_uri()], capture_output=True, timeout=120, check=True)
    assert matplotlib.image.imread(picture)[..., :3].std() > 0.05


def test_the_command_writes_it(run_cli: Callable, make_audio: Callable, tmp_path: Path) -> None:
    before, after, target = make_audio("a.wav"), make_audio("b.wav", seed=1), tmp_path / "out.html"
    result = run_cli("compare", before, after, "--html", target)
    assert result.code == 0, result.err
    assert "<title>a.wav - StemProver</title>" in target.read_text()
    found = tmp_path / "found.html"
    assert run_cli("analyze", before, "--html", found).code == 0
    assert found.read_text().count('class="lane"') == 5
    assert run_cli("compare", before, after, "--html", target).code == 2, "it is there already"
